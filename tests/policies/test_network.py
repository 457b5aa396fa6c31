"""Recurrent networks over sequences against the same equations in numpy, one step and one environment at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policies.distributions import Categorical, Gaussian, TanhGaussian
from policies.network import Network, NetworkPolicy
from policies.normalize import Normalizer

L, B, N_IN, WIDTH, OUT = 7, 3, 4, 5, 6
NETWORK = Network(hidden=(6,), outputs=OUT, memory=WIDTH, free=2)
# resets at the start, in the middle, twice in a row, at the last step, and never
FIRST = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]], bool)


@pytest.fixture(scope="module")
def params():
    """No bias is zero, no memory starts at zero."""
    fresh, generator = NETWORK.start(jax.random.key(0), N_IN), np.random.default_rng(0)
    return jax.tree.map(lambda p: p + jnp.asarray(0.3 * generator.normal(size=p.shape), jnp.float32), fresh)


@pytest.fixture(scope="module")
def sequence():
    generator = np.random.default_rng(1)
    return tuple(jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((B, WIDTH), (L, B, N_IN)))


def sigmoid(x):
    return 1.0 / (1.0 + jnp.exp(-x))


def reference_step(params, h, x):
    """One step of one environment, gate by gate."""
    layers = params["params"]
    x = jnp.tanh(x @ layers["input"]["kernel"] + layers["input"]["bias"])
    gru = layers["GRU_0"]
    W, b, U = gru["input"]["kernel"], gru["input"]["bias"], gru["recurrent"]
    gate = {name: slice(i * WIDTH, (i + 1) * WIDTH) for i, name in enumerate("rzn")}
    r = sigmoid(x @ W[:, gate["r"]] + b[gate["r"]] + h @ U[:, gate["r"]])
    z = sigmoid(x @ W[:, gate["z"]] + b[gate["z"]] + h @ U[:, gate["z"]])
    n = jnp.tanh(x @ W[:, gate["n"]] + b[gate["n"]] + r * (h @ U[:, gate["n"]] + gru["bias"]))
    h = (1.0 - z) * n + z * h
    return h, jnp.concatenate([h @ layers["head"]["kernel"] + layers["head"]["bias"], layers["free"]])


def reference(params, h, x, first):
    """A plain loop over environments and steps."""
    memories, outputs = [], []
    for b in range(x.shape[1]):
        memory, rows, zs = h[b], [], []
        for t in range(len(x)):
            memory = jnp.zeros(WIDTH) if first[t, b] else memory
            memory, z = reference_step(params, memory, x[t, b])
            rows.append(memory)
            zs.append(z)
        memories.append(jnp.stack(rows))
        outputs.append(jnp.stack(zs))
    return jnp.stack(memories, axis=1), jnp.stack(outputs, axis=1)


def test_a_sequence_is_its_steps_and_both_are_the_equations(params, sequence):
    h, x = sequence
    memories, z = NETWORK.apply(params, h, x, jnp.asarray(FIRST))
    expected, outputs = reference(params, h, x, FIRST)
    np.testing.assert_allclose(memories, expected, atol=1e-5)
    np.testing.assert_allclose(z, outputs, atol=1e-5)
    for t in range(L):
        hs, zs = NETWORK.apply(params, h, x[t : t + 1], jnp.asarray(FIRST[t : t + 1]))
        h = hs[0]
        np.testing.assert_allclose(h, memories[t], atol=1e-5)
        np.testing.assert_allclose(zs[0], z[t], atol=1e-5)


def test_gradients_are_those_of_a_plain_loop(params, sequence):
    """With respect to parameters, the memory before the sequence, and the inputs."""
    h, x = sequence
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(L, B, OUT)), jnp.float32)

    def loss(apply):
        return lambda params, h, x: (weights * apply(params, h, x, FIRST)[1] ** 2).sum()

    gradients = jax.grad(loss(lambda p, h, x, f: NETWORK.apply(p, h, x, jnp.asarray(f))), argnums=(0, 1, 2))(
        params, h, x
    )
    expected = jax.grad(loss(reference), argnums=(0, 1, 2))(params, h, x)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert float(jnp.abs(other).max()) > 0
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    # nothing passes a reset: the first environment's memory is dropped at once, the others' counts
    assert not gradients[1][0].any()
    assert gradients[1][1:].any(axis=-1).all()


def test_windows_that_start_from_stored_memories_give_the_whole_sequence(params, sequence):
    h, x = sequence
    x, first = x[:6], jnp.asarray(FIRST[:6])
    memories, z = NETWORK.apply(params, h, x, first)
    for start in (0, 2, 4):
        before = h if start == 0 else memories[start - 1]
        hs, part = NETWORK.apply(params, before, x[start : start + 2], first[start : start + 2])
        np.testing.assert_allclose(part, z[start : start + 2], atol=1e-5)
        np.testing.assert_allclose(hs, memories[start : start + 2], atol=1e-5)


def test_a_reset_forgets_everything_and_nothing_else_does(params, sequence):
    h, x = sequence
    changed = x.at[1].add(1.0)
    z, other = (NETWORK.apply(params, h, inputs, jnp.asarray(FIRST))[1] for inputs in (x, changed))
    differs = np.asarray(jnp.abs(z - other).max(-1) > 1e-7)
    # environment 0 begins anew at steps 3 and 6, environment 1 at step 2, environment 2 never
    np.testing.assert_array_equal(differs[:, 0], [False, True, True, False, False, False, False])
    np.testing.assert_array_equal(differs[:, 1], [False, True, False, False, False, False, False])
    np.testing.assert_array_equal(differs[:, 2], [False, True, True, True, True, True, True])


@pytest.mark.parametrize(("activation", "function"), [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0.0))])
def test_without_memory_a_network_is_its_layers_and_steps_are_apart(activation, function):
    network = Network(hidden=(5, 4), outputs=3, activation=activation)
    params = network.start(jax.random.key(3), 2)
    generator = np.random.default_rng(3)
    params = jax.tree.map(lambda p: p + jnp.asarray(0.2 * generator.normal(size=p.shape), jnp.float32), params)
    x = generator.normal(size=(4, 2, 2)).astype(np.float32)
    memories, z = network.apply(params, jnp.zeros((2, 0)), jnp.asarray(x), jnp.zeros((4, 2), bool))
    h = x.astype(float)
    for name in ("input", "dense_1", "head"):
        h = h @ np.asarray(params["params"][name]["kernel"]) + np.asarray(params["params"][name]["bias"])
        h = h if name == "head" else function(h)
    np.testing.assert_allclose(z, h, atol=1e-5)
    assert memories.size == 0


def test_a_fresh_policy_hardly_prefers_anything():
    """The head starts small: logits of 256 inputs are close to each other, and an unbounded deviation starts at one."""
    x = jax.random.normal(jax.random.key(4), (1, 256, N_IN))
    z = NETWORK.apply(NETWORK.start(jax.random.key(5), N_IN), jnp.zeros((256, WIDTH)), x, jnp.zeros((1, 256), bool))[1]
    assert 0.0 < float(jnp.abs(z[..., :4]).max()) < 0.3
    np.testing.assert_array_equal(z[..., 4:], 0.0)


@pytest.mark.parametrize("distribution", [Gaussian(2), TanhGaussian(2), Categorical(4)])
def test_a_policy_acts_step_by_step_as_its_network_over_the_episode(distribution):
    network = Network(hidden=(6,), outputs=distribution.outputs, memory=WIDTH, free=distribution.free)
    generator = np.random.default_rng(6)
    seen = jnp.asarray(generator.normal(2.0, 3.0, size=(30, 2)), jnp.float32)
    normalizer = Normalizer.start(2).update(seen, jnp.ones(30))
    params = jax.tree.map(lambda p: 3.0 * p, network.start(jax.random.key(6), 2))
    policy = NetworkPolicy(network, distribution, params, normalizer)

    memory, actions = policy.start_memory(), []
    noises = policy.noise(jax.random.key(7), (5,))
    for o, noise in zip(seen[:5], noises, strict=True):
        memory, action = policy.act(memory, o, noise)
        actions.append(action)
    mean, deviation = np.asarray(seen).mean(0), np.asarray(seen).std(0)
    x = ((np.asarray(seen[:5]) - mean) / deviation)[:, None]
    hs, z = network.apply(params, jnp.zeros((1, WIDTH)), jnp.asarray(x), jnp.zeros((5, 1), bool))
    np.testing.assert_allclose(memory, hs[-1, 0], atol=1e-5)
    expected = distribution.environment(distribution.sample(z[:, 0], noises))
    np.testing.assert_allclose(jnp.stack(actions), expected, atol=1e-4)
    assert len(np.unique(np.asarray(actions), axis=0)) > 1
    still = policy.act(policy.start_memory(), seen[0], jnp.zeros_like(noises[0]))[1]
    mode = distribution.environment(distribution.sample(z[0, 0], jnp.zeros_like(noises[0])))
    np.testing.assert_allclose(still, mode, atol=1e-5)
    np.testing.assert_allclose(policy.along(seen[:5]), z[:, 0], atol=1e-5)


# side inputs: what a guider sees and a learner does not


SIDE = 2


@pytest.fixture(scope="module")
def sided():
    """Parameters with side inputs, and side inputs for a sequence."""
    fresh, generator = NETWORK.start(jax.random.key(0), N_IN, SIDE), np.random.default_rng(9)
    bent = jax.tree.map(lambda p: p + jnp.asarray(0.3 * generator.normal(size=p.shape), jnp.float32), fresh)
    return bent, jnp.asarray(generator.normal(size=(L, B, SIDE)), jnp.float32)


def test_side_inputs_are_added_to_what_the_first_layer_makes_of_the_others(sided, sequence):
    """A network of x and side inputs side by side, whose first weights are the two matrices one above the other."""
    params, side = sided
    h, x = sequence
    layers = params["params"]
    stacked = jnp.concatenate([layers["input"]["kernel"], layers["side"]["kernel"]])
    joint = {"params": {**layers, "input": {"kernel": stacked, "bias": layers["input"]["bias"]}}}
    memories, z = NETWORK.run(params, h, x, jnp.asarray(FIRST), side)
    expected, outputs = reference(joint, h, jnp.concatenate([x, side], axis=-1), FIRST)
    np.testing.assert_allclose(memories, expected, atol=1e-5)
    np.testing.assert_allclose(z, outputs, atol=1e-5)


def test_who_does_not_see_side_inputs_is_the_network_without_them(sided, sequence):
    params, side = sided
    h, x = sequence
    first = jnp.asarray(FIRST)
    z = NETWORK.run(NETWORK.without_side(params), h, x, first)[1]
    np.testing.assert_allclose(NETWORK.run(params, h, x, first, jnp.zeros_like(side))[1], z, atol=1e-6)
    assert float(jnp.abs(NETWORK.run(params, h, x, first, side)[1] - z).max()) > 0.1
    # parameters that ignore side inputs, whatever these are
    blind = NETWORK.with_blind_side(NETWORK.without_side(params), SIDE)
    np.testing.assert_allclose(NETWORK.run(blind, h, x, first, side)[1], z, atol=1e-6)
    assert jax.tree.map(jnp.shape, blind) == jax.tree.map(jnp.shape, params)


def test_a_fresh_network_starts_alike_with_and_without_side_inputs():
    one, other = NETWORK.start(jax.random.key(0), N_IN), NETWORK.start(jax.random.key(0), N_IN, SIDE)
    assert jnp.any(other["params"]["side"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, NETWORK.without_side(other), one)


def test_a_rescaled_network_is_the_same_function_of_what_was_not_yet_normalised(params, sequence):
    """Also where an input was constant before, and of a policy; memory and all."""
    h, raw = sequence
    generator = np.random.default_rng(10)
    seen = jnp.asarray(generator.normal(1.0, 3.0, size=(30, N_IN)), jnp.float32).at[:, 2].set(5.0)
    old = Normalizer.start(N_IN).update(seen, jnp.ones(30))
    new = old.update(jnp.asarray(generator.normal(-2.0, 0.5, size=(50, N_IN)), jnp.float32), jnp.ones(50))
    moved = NETWORK.rescaled(params, old, new)
    z = NETWORK.run(params, h, old(raw), jnp.asarray(FIRST))[1]
    np.testing.assert_allclose(NETWORK.run(moved, h, new(raw), jnp.asarray(FIRST))[1], z, atol=1e-4)
    assert float(jnp.abs(NETWORK.run(params, h, new(raw), jnp.asarray(FIRST))[1] - z).max()) > 0.1
    policy = NetworkPolicy(NETWORK, Gaussian(3), params, old)
    episodes = jnp.swapaxes(raw, 0, 1)
    np.testing.assert_allclose(policy.renormalized(new).along(episodes), policy.along(episodes), atol=1e-4)


def test_a_standard_deviation_is_set_without_moving_a_mean(sequence):
    flat = Network(hidden=(6,), outputs=6, free=3)
    policy = NetworkPolicy(flat, Gaussian(3), flat.start(jax.random.key(1), N_IN), Normalizer.start(N_IN))
    other = policy.with_std(jnp.asarray([0.1, 0.2, 0.3]))
    o = sequence[1][0, 0]
    np.testing.assert_array_equal(other.mean(o), policy.mean(o))
    std = Gaussian(3).moments(other.along(o[None])[0])[1]
    np.testing.assert_allclose(std, [0.1, 0.2, 0.3], rtol=1e-6)


def test_a_network_is_its_encoder_and_its_head_and_a_head_can_be_anothers(params, sequence):
    h, x = sequence
    first = jnp.asarray(FIRST)
    memories, z = NETWORK.run(params, h, x, first)
    encoder = NETWORK.without_head(params)
    hs, features = NETWORK.run(encoder, h, x, first, decode=False)
    np.testing.assert_array_equal(hs, memories)
    np.testing.assert_array_equal(features, memories)  # the head reads the memory
    np.testing.assert_array_equal(NETWORK.decode(params, features), z)
    assert set(encoder["params"]) == {"input", "GRU_0"}
    other = jax.tree.map(lambda p: 2.0 * p, params)
    joined = NETWORK.with_head(encoder, other)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    outputs = NETWORK.run(joined, h, x, first)[1]
    np.testing.assert_allclose(outputs, 2.0 * z, rtol=1e-5)  # linear, its bias and what no input changes included
