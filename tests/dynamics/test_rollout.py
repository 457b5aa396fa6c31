"""Roll-outs against a loop in numpy, and the exploration noise against the Gaussian filter."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynamics.rollout import exploration_noise, rollout

A = np.array([[0.9, 0.2], [-0.1, 0.8]])
B = np.array([[0.5], [1.5]])
T = 6


def simulator(step, limit=np.inf):
    """An engine made of a function, whose controls end at a limit either way."""
    return SimpleNamespace(step=step, clip=lambda action: jnp.clip(action, -limit, limit))


LINEAR = simulator(lambda state, action: jnp.asarray(A) @ state + jnp.asarray(B) @ action)


def act(memory, t, state, noise):
    """Remembers the last action; uses the time, the state and both kinds of noise."""
    action = 0.5 * memory + 0.1 * t + state[:1] - noise["action"] * noise["gain"]
    return action, action


def random_noise(batch=()):
    rng = np.random.default_rng(0)
    return {"action": rng.normal(size=(*batch, T, 1)), "gain": rng.uniform(1, 2, (*batch, T))}


def test_a_rollout_is_the_loop():
    noise, start = random_noise(), np.array([1.0, -2.0])
    ours = jax.jit(lambda s, n: rollout(LINEAR, act, s, n, jnp.full(1, 3.0)))(start, noise)
    state, memory, states, actions = start, np.full(1, 3.0), [start], []
    for t in range(T):
        memory = 0.5 * memory + 0.1 * t + state[:1] - noise["action"][t] * noise["gain"][t]
        state = A @ state + B @ memory
        states.append(state)
        actions.append(memory)
    np.testing.assert_allclose(ours.states, states, rtol=1e-5)
    np.testing.assert_allclose(ours.actions, actions, rtol=1e-5)
    assert ours.sound


def test_actions_are_recorded_as_they_were_applied():
    """A model that is fitted to torques beyond the limit would find that torque has no effect."""
    wanted, start = np.array([[0.3], [-2.0], [0.8], [1.5]]), np.array([1.0, -2.0])
    ours = rollout(simulator(LINEAR.step, 0.5), lambda m, t, s, n: (m, n), start, jnp.asarray(wanted))
    states = [start]
    for action in np.clip(wanted, -0.5, 0.5):
        states.append(A @ states[-1] + B @ action)
    np.testing.assert_allclose(ours.actions, [[0.3], [-0.5], [0.5], [0.5]], rtol=1e-6)
    np.testing.assert_allclose(ours.states, states, rtol=1e-5)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e8])
def test_only_the_diverged_member_of_a_batch_is_unsound(broken):
    noise = random_noise((3,))
    starts = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))
    many = jax.jit(jax.vmap(lambda s, n: rollout(LINEAR, act, s, n, jnp.zeros(1))))
    before = many(starts, noise)
    noise["action"][1, 4] = broken
    after = many(starts, noise)
    np.testing.assert_array_equal(before.sound, [True, True, True])
    np.testing.assert_array_equal(after.sound, [True, False, True])
    for i in (0, 2):
        np.testing.assert_array_equal(after.states[i], before.states[i])


def test_a_start_that_is_not_finite_is_unsound():
    start = jnp.array([jnp.nan, 0.0])
    forgetful = simulator(lambda state, action: jnp.zeros(2))
    assert not rollout(forgetful, lambda m, t, s, n: (m, n), start, jnp.zeros((T, 1))).sound


def test_an_action_that_is_not_finite_is_unsound_even_if_the_engine_hides_it():
    hiding = simulator(lambda state, action: jnp.zeros(2))
    noise = jnp.zeros((T, 1)).at[2].set(jnp.inf)
    assert not rollout(hiding, lambda m, t, s, n: (m, n), jnp.zeros(2), noise).sound


@pytest.fixture(scope="module")
def noises():
    """20 000 draws of two components over 12 steps, by smoothing."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    return {
        smoothing: np.asarray(jax.jit(jax.vmap(lambda k, s=smoothing: exploration_noise(k, 12, 2, s)))(keys), float)
        for smoothing in (0.0, 0.4, 2.0, 5.0)
    }


# An average of 20 000 products of standard normal numbers has a standard deviation of at most 0.01.
CLOSE = 0.05


@pytest.mark.parametrize("smoothing", [0.0, 0.4, 2.0, 5.0])
def test_noise_has_unit_variance_at_every_step_and_its_components_are_independent(noises, smoothing):
    noise = noises[smoothing]
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=CLOSE)
    np.testing.assert_allclose((noise**2).mean(0), 1.0, atol=CLOSE)
    np.testing.assert_allclose(np.einsum("ns,nt->st", noise[..., 0], noise[..., 1]) / len(noise), 0.0, atol=CLOSE)


@pytest.mark.parametrize("smoothing", [2.0, 5.0])
def test_the_correlation_of_smoothed_noise_is_that_of_the_gaussian_filter(noises, smoothing):
    """White noise through a Gaussian of standard deviation s has the correlation exp(-lag^2 / 4 s^2)."""
    noise = noises[smoothing]
    lag = np.arange(12)[:, None] - np.arange(12)
    for component in range(2):
        correlation = noise[..., component].T @ noise[..., component] / len(noise)
        np.testing.assert_allclose(correlation, np.exp(-(lag**2) / (4 * smoothing**2)), atol=CLOSE)


def test_noise_without_smoothing_is_white(noises):
    for component in range(2):
        noise = noises[0.0][..., component]
        np.testing.assert_allclose(noise.T @ noise / len(noise), np.eye(12), atol=CLOSE)
