"""The Gaussian policy against its layers written out in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from policies.mlp import GaussianPolicy

NO, NU = 3, 2


def trained_policy():
    """Numbers unlike those of a start: biases, an input normaliser, and a different deviation for each action."""
    policy = GaussianPolicy.start(jax.random.key(1), NO, NU, (8, 5), 0.4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), policy.params)
    seen = jnp.asarray(rng.normal(size=(30, NO)) * [1.0, 5.0, 0.1] + [0.0, 3.0, -1.0], jnp.float32)
    normalizer = policy.normalizer.update(seen, jnp.ones(30))
    return GaussianPolicy(policy.network, params, normalizer, jnp.array([0.3, 2.0]))


def by_hand(policy, o):
    """tanh layers of the normalised observation and a linear one."""
    n, layers = policy.normalizer, policy.params["params"]
    h = (np.asarray(o, float) - np.asarray(n.mean)) / np.sqrt(np.asarray(n.squares) / np.asarray(n.count))
    for i in range(len(layers)):
        layer = layers[f"Dense_{i}"]
        h = h @ np.asarray(layer["kernel"], float) + np.asarray(layer["bias"])
        h = np.tanh(h) if i < len(layers) - 1 else h
    return h


def test_the_mean_is_the_network_of_the_normalised_observation():
    policy, o = trained_policy(), np.random.default_rng(1).normal(size=(4, 6, NO)).astype(np.float32)
    np.testing.assert_allclose(policy.mean(jnp.asarray(o)), by_hand(policy, o), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.mean(jnp.asarray(o[2, 3])), by_hand(policy, o[2, 3]), rtol=1e-4, atol=1e-5)


def test_a_sample_is_the_mean_and_scaled_noise():
    policy, o, noise = trained_policy(), jnp.array([0.1, 2.0, -1.0]), jnp.array([1.5, -0.5])
    np.testing.assert_allclose(policy.sample(o, noise), by_hand(policy, o) + np.array([0.45, -1.0]), rtol=1e-5)


def test_a_fresh_policy_hardly_acts_and_is_decided_by_its_key():
    start = [GaussianPolicy.start(jax.random.key(seed), NO, NU, (64, 64), 0.7) for seed in (0, 0, 1)]
    o = jnp.asarray(np.random.default_rng(2).normal(size=(100, NO)), jnp.float32)
    same, again, different = (np.asarray(policy.mean(o)) for policy in start)
    assert 0.0 < np.abs(same).max() < 0.5
    np.testing.assert_array_equal(same, again)
    assert np.abs(same - different).max() > 1e-3
    np.testing.assert_allclose(start[0].std, [0.7, 0.7])
