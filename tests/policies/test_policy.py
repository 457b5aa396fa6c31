"""The policy of a network against its layers written out in numpy, and step by step against whole episodes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from support.policies import gaussian_policy, means, stds, with_random_weights

NO, NU = 3, 2


def trained_policy(memory=0):
    """Numbers unlike those of a start: biases, an input normaliser, and a different deviation for each action."""
    policy = with_random_weights(gaussian_policy(jax.random.key(1), NO, NU, (8, 5), 0.4, memory), 1.0)
    rng = np.random.default_rng(0)
    seen = jnp.asarray(rng.normal(size=(30, NO)) * [1.0, 5.0, 0.1] + [0.0, 3.0, -1.0], jnp.float32)
    policy = dataclasses.replace(policy, normalizer=policy.normalizer.update(seen, jnp.ones(30)))
    return policy.with_std(jnp.array([0.3, 2.0]))


def by_hand(policy, o):
    """tanh layers of the normalised observation and a linear one."""
    n, layers = policy.normalizer, policy.params["params"]
    h = (np.asarray(o, float) - np.asarray(n.mean)) / np.sqrt(np.asarray(n.squares) / np.asarray(n.count))
    for name in ("input", "dense_1", "head"):
        h = h @ np.asarray(layers[name]["kernel"], float) + np.asarray(layers[name]["bias"])
        h = h if name == "head" else np.tanh(h)
    return h


def test_the_mean_is_the_network_of_the_normalised_observation():
    policy, o = trained_policy(), np.random.default_rng(1).normal(size=(4, 6, NO)).astype(np.float32)
    np.testing.assert_allclose(means(policy, jnp.asarray(o)), by_hand(policy, o), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.mean(jnp.asarray(o[2, 3])), by_hand(policy, o[2, 3]), rtol=1e-4, atol=1e-5)


def test_an_action_is_the_mean_and_scaled_noise_inside_the_limits():
    policy, o, noise = trained_policy(), jnp.array([0.1, 2.0, -1.0]), jnp.array([-9.0, -0.1])
    _, u = policy.act(policy.start_memory(), o, noise)
    expected = by_hand(policy, o) + np.array([-2.7, -0.2])
    np.testing.assert_allclose(u, np.clip(expected, -1.0, 1.0), rtol=1e-4)
    assert abs(expected[0]) < 1 < abs(expected[1])


def test_a_whole_episode_is_its_steps_one_after_another():
    policy, episode = trained_policy(memory=4), np.random.default_rng(2).normal(size=(6, NO)).astype(np.float32)
    mean, _ = policy.distribution.action_moments(policy.along(jnp.asarray(episode)[None])[0])
    memory = policy.start_memory()
    for t in range(6):
        memory, u = policy.act(memory, jnp.asarray(episode[t]), jnp.zeros(NU))
        np.testing.assert_allclose(u, np.clip(mean[t], -1.0, 1.0), atol=1e-5)
    _, forgetful = policy.act(policy.start_memory(), jnp.asarray(episode[5]), jnp.zeros(NU))
    assert np.abs(forgetful - u).max() > 1e-3


def test_a_fresh_policy_hardly_acts_and_is_decided_by_its_key():
    start = [gaussian_policy(jax.random.key(seed), NO, NU, (64, 64), 0.7) for seed in (0, 0, 1)]
    o = jnp.asarray(np.random.default_rng(2).normal(size=(100, NO)), jnp.float32)
    same, again, different = (np.asarray(means(policy, o)) for policy in start)
    assert 0.0 < np.abs(same).max() < 0.5
    np.testing.assert_array_equal(same, again)
    assert np.abs(same - different).max() > 1e-3
    np.testing.assert_allclose(stds(start[0], o), 0.7, rtol=1e-6)
