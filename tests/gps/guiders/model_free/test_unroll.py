"""What is collected, replayed step by step; and advantages against sums written out."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toys import Clock, advantages_by_sums

from gps.guiders.learner import NetworkSettings
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.networks import Networks
from gps.guiders.model_free.unroll import Running, advantages, collect, values_after
from gps.pytrees import bare, keyed

N, LENGTH, MEMORY = 6, 8, 4
NETWORKS = NetworkSettings(hidden=(5,), memory=MEMORY, distribution="gaussian")
ACTING = ("guider", "learner")


@functools.cache
def networks_of(task: Clock) -> Networks:
    return Networks.make(METHODS["ppo-bc"], False, task, NETWORKS)


def policy_of(networks: Networks):
    """Parameters unlike those of a start, and normalisers that have seen something."""
    generator = np.random.default_rng(0)
    params = networks.start(*jax.random.split(jax.random.key(0)))
    params = jax.tree.map(lambda p: p + jnp.asarray(0.4 * generator.normal(size=p.shape), jnp.float32), params)
    seen = {"learner": generator.normal(1.0, 0.7, (20, 2)), "guider": generator.normal(1.5, 0.7, (20, 4))}
    normalizers = networks.start_normalizers()
    return params, {
        role: n.update(jnp.asarray(seen[role], jnp.float32), jnp.ones(20)) for role, n in normalizers.items()
    }


def start(task: Clock) -> Running:
    states = jax.vmap(task.reset)(jax.random.split(jax.random.key(1), N))
    return Running(states, jnp.ones(N, bool), jnp.zeros(N), networks_of(task).start_memories(N))


@functools.cache
def collected(task: Clock):
    """Two unrolls, the second from where the first one ended; environments are acted in by guider and learner."""
    networks = networks_of(task)
    acting = ACTING, jnp.arange(N) % 2
    run = jax.jit(lambda running, key: collect(task, networks, acting, policy_of(networks), running, key, LENGTH))
    middle, first = run(start(task), jax.random.key(2))
    last, second = run(middle, jax.random.key(3))
    return middle, last, jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)


ENDING = Clock()
LOST = Clock(ends=(0, 2), name="lost")
DARK, TOLD = (Clock(ends=(0, 2), how=how, name=how) for how in ("dark", "told"))


@pytest.mark.parametrize("task", [ENDING, LOST, DARK, TOLD], ids=lambda task: task.name)
def test_episodes_begin_anew_exactly_where_they_end(task):
    _, last, unroll = collected(task)
    ended = dict.fromkeys(task.ends, 0)
    for n in range(N):
        t, total, began = 0, 0.0, True
        for i in range(2 * LENGTH):
            length, end = unroll.obs["privileged_state"][i, n].astype(int)
            assert unroll.first[i, n] == began
            assert unroll.obs["state"][i, n, 0] == t
            t += 1
            over = t == length
            lost = over and end == 2
            expected = 0.0 if lost else np.clip(unroll.action[i, n, 0], -1, 1) + t
            assert unroll.reward[i, n] == pytest.approx(expected, abs=1e-5)
            assert (unroll.done[i, n], unroll.truncated[i, n], unroll.diverged[i, n]) == (over, over and end == 1, lost)
            total += unroll.reward[i, n]
            if over:
                assert unroll.returned[i, n] == pytest.approx(total, abs=1e-5)
                ended[end] += 1
                t, total = 0, 0.0
            else:
                assert np.isnan(unroll.returned[i, n])
                np.testing.assert_array_equal(unroll.final["state"][i, n, 0], t)
            if over and end == 1:  # what is bootstrapped from is the state before the reset
                np.testing.assert_array_equal(unroll.final["state"][i, n, 0], length)
                np.testing.assert_array_equal(unroll.final["privileged_state"][i, n], [length, end])
            if i + 1 < 2 * LENGTH and not over:
                np.testing.assert_array_equal(unroll.final["state"][i, n], unroll.obs["state"][i + 1, n])
            began = over
        assert float(last.returns[n]) == pytest.approx(total, abs=1e-5)
        assert bool(last.first[n]) == began
    assert min(ended.values()) > 5
    assert all(np.isfinite(o).all() for o in (*unroll.obs.values(), *unroll.final.values()))
    # a number of its own for each step of each environment: no key is used twice, at resets neither
    numbers = unroll.obs["state"][..., 1]
    assert len(np.unique(numbers)) == numbers.size


def test_memories_and_densities_are_those_of_whoever_acts_run_step_by_step():
    networks = networks_of(ENDING)
    params, normalizers = policy_of(networks)
    _, last, unroll = collected(ENDING)
    act = jax.jit(
        lambda role, memory, seen: networks.run(params, (role,), {role: memory}, seen, jnp.zeros((1, 1), bool))[role],
        static_argnums=0,
    )
    for n in range(N):
        for index, role in enumerate(ACTING):
            memory = np.zeros((1, MEMORY))
            for i in range(2 * LENGTH):
                obs = {name: jnp.asarray(o[i : i + 1, n : n + 1]) for name, o in unroll.obs.items()}
                memory = np.zeros((1, MEMORY)) if unroll.first[i, n] else memory
                seen = networks.normalized(normalizers, obs)
                hs, z = act(role, memory, seen)
                memory = hs[0]
                if n % 2 == index:
                    log_prob = networks.distribution.log_prob(z[0, 0], jnp.asarray(unroll.action[i, n]))
                    assert float(log_prob) == pytest.approx(unroll.log_prob[i, n], abs=1e-4)
            np.testing.assert_allclose(last.memories[role][n], memory[0], atol=1e-5)


def test_the_actions_of_an_unroll_are_draws_of_the_policy():
    """Whitened by the policy's moments they are standard normal numbers, all different."""
    networks = networks_of(ENDING)
    params, normalizers = policy_of(networks)
    _, _, unroll = collected(ENDING)
    seen = networks.normalized(normalizers, jax.tree.map(jnp.asarray, unroll.obs))
    first = jnp.asarray(unroll.first)
    zs = [networks.run(params, (role,), {role: jnp.zeros((N, MEMORY))}, seen, first)[role][1] for role in ACTING]
    z = jnp.where((jnp.arange(N) % 2 == 0)[None, :, None], *zs)
    mean, std = networks.distribution.moments(z)
    noise = np.asarray((unroll.action - mean) / std)
    assert len(np.unique(noise.round(6))) == noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * noise.size))


def test_advantages_are_discounted_sums_of_errors():
    """Several environments that end, are cut, and go on at different steps, the last one of the unroll among them."""
    generator = np.random.default_rng(3)
    rewards, values, finals = (generator.normal(size=(6, 5)).astype(np.float32) for _ in range(3))
    done = np.array(
        [[0, 0, 1, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], bool
    )
    truncated = done & np.array([[0, 0, 1, 0, 0]] + [[1, 1, 0, 0, 0]] * 4 + [[0, 1, 0, 0, 0]], bool)
    assert {(bool(d), bool(t)) for d, t in zip(done[-1], truncated[-1], strict=True)} == {(0, 0), (1, 0), (1, 1)}
    for discount, trace in ((0.9, 0.8), (0.99, 0.0), (1.0, 1.0)):
        expected = advantages_by_sums(rewards, values, finals, done, truncated, discount, trace)
        found = advantages(*(jnp.asarray(a) for a in (rewards, values, finals, done, truncated)), discount, trace)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_advantage_by_hand():
    """Two environments, three steps: one is cut after the first step, the other terminates there."""
    rewards = jnp.asarray([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    values = jnp.asarray([[0.5, 0.5], [1.0, 1.0], [2.0, 2.0]])
    finals = jnp.asarray([[10.0, 10.0], [99.0, 99.0], [6.0, 6.0]])
    done = jnp.asarray([[True, True], [False, False], [False, False]])
    truncated = jnp.asarray([[True, False], [False, False], [False, False]])
    found = advantages(rewards, values, finals, done, truncated, 0.5, 0.5)
    last = 4.0 + 0.5 * 6.0 - 2.0  # 5
    middle = 2.0 + 0.5 * 2.0 - 1.0 + 0.25 * last  # 3.25
    np.testing.assert_allclose(found, [[1.0 + 5.0 - 0.5, 1.0 - 0.5], [middle, middle], [last, last]], rtol=1e-6)


@pytest.mark.parametrize("any_cut", [True, False])
def test_the_value_after_a_step_has_the_memory_that_came_to_it(any_cut):
    """The critic, run step by step over an episode and then over its final observation."""
    networks = networks_of(ENDING)
    params, normalizers = policy_of(networks)
    _, _, unroll = collected(ENDING)
    unroll = jax.tree.map(jnp.asarray, unroll)
    seen, after = (networks.normalized(normalizers, obs) for obs in (unroll.obs, unroll.final))
    memories, _ = networks.run(params, ("critic",), {"critic": jnp.zeros((N, MEMORY))}, seen, unroll.first)["critic"]
    needed = unroll.truncated & any_cut
    found = np.asarray(values_after(networks, params, "critic", memories, after, needed))

    first = jnp.zeros((1, 1), bool)
    value_of = jax.jit(
        lambda memory, seen: networks.run(params, ("critic",), {"critic": memory}, seen, first)["critic"]
    )
    compared = 0
    for n in range(N):
        memory = jnp.zeros((1, MEMORY))
        for i in range(2 * LENGTH):
            now, then = (jax.tree.map(lambda x: x[i : i + 1, n : n + 1], s) for s in (seen, after))  # noqa: B023
            memory = jnp.zeros((1, MEMORY)) if unroll.first[i, n] else memory
            memory = value_of(memory, now)[0][0]
            if needed[i, n] or i == 2 * LENGTH - 1:
                value = value_of(memory, then)[1][0, 0]
                assert found[i, n] == pytest.approx(float(value), abs=1e-5)
                compared += 1
    assert compared == N + int(needed[:-1].sum())
    assert not any_cut or compared > 2 * N


def test_random_keys_are_bare_in_a_state_that_is_saved_and_come_back():
    states = start(ENDING).states
    saved = bare(states)
    assert all(not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(saved))
    back = keyed(saved, jax.eval_shape(lambda: states))
    assert back.data["key"].dtype == states.data["key"].dtype
    np.testing.assert_array_equal(jax.random.key_data(back.data["key"]), jax.random.key_data(states.data["key"]))
    np.testing.assert_array_equal(back.obs["state"], states.obs["state"])
