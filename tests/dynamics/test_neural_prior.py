"""The network of the change of state: its linearisation, its training, and hard data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynamics import buffer, neural_prior

train = jax.jit(neural_prior.train, static_argnames="updates")


def pendulum(count, seed=0):
    """w = (angle, velocity, torque, their changes) in 0.05 s."""
    rng = np.random.default_rng(seed)
    angle, velocity, torque = rng.uniform(-3, 3, count), rng.uniform(-4, 4, count), rng.uniform(-1, 1, count)
    acceleration = 9.81 * np.sin(angle) - 0.1 * velocity + 3.0 * torque
    change = np.stack([0.05 * velocity + 0.00125 * acceleration, 0.05 * acceleration], axis=1)
    return np.concatenate([np.stack([angle, velocity, torque], axis=1), change], axis=1).astype(np.float32)


def trained(w, weights=None, updates=800):
    weights = jnp.ones(len(w)) if weights is None else weights
    return train(neural_prior.start(jax.random.key(0), 2, 1), w, weights, jax.random.key(1), updates=updates).network


@pytest.fixture(scope="module")
def network():
    return trained(pendulum(2000))


def test_the_linearisation_is_that_of_finite_differences(network):
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, float), network)
        z, step = jnp.array([0.5, -1.0, 0.3]), 1e-6
        slope = exact.slope(z)
        for i in range(3):
            ahead, behind = (exact.change(z.at[i].add(sign * step)) for sign in (1.0, -1.0))
            np.testing.assert_allclose(slope[:, i], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9)


def test_it_learns_smooth_dynamics_that_no_line_fits(network):
    """Slopes of the swing at four angles; one linear model of all has the error 0.35 in the second row."""
    for angle in (0.0, 1.0, 2.0, 3.0):
        slope = network.slope(jnp.array([angle, 0.0, 0.0]))
        lifts = 9.81 * np.cos(angle)
        wanted = [[0.00125 * lifts, 0.05 - 1.25e-4, 0.00375], [0.05 * lifts, -0.005, 0.15]]
        np.testing.assert_allclose(slope[1], wanted[1], atol=0.07)
        np.testing.assert_allclose(slope[0], wanted[0], atol=0.01)


def test_an_untrained_network_says_that_nothing_changes():
    untrained = neural_prior.start(jax.random.key(0), 2, 1).network
    np.testing.assert_array_equal(untrained.change(jnp.ones(3)), np.zeros(2))


def test_what_does_not_count_teaches_nothing():
    w = pendulum(400)
    absurd = np.concatenate([w, np.full_like(w, 50.0)])
    weights = jnp.concatenate([jnp.ones(400), jnp.zeros(400)])
    ours = trained(absurd, weights)
    predicted = jax.vmap(ours.change)(w[:, :3])
    assert float(jnp.abs(predicted - w[:, 3:]).mean()) < 0.03


def test_without_data_it_stays_what_it_was():
    before = train(
        neural_prior.start(jax.random.key(0), 2, 1), pendulum(100), jnp.ones(100), jax.random.key(1), updates=10
    )
    after = train(before, pendulum(100), jnp.zeros(100), jax.random.key(3), updates=10)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_units_of_the_data_leave_what_it_says():
    """New data move mean, std and scale; training that is too short to teach anything changes no prediction."""
    w = pendulum(500)
    before = train(neural_prior.start(jax.random.key(0), 2, 1), w, jnp.ones(500), jax.random.key(1), updates=100)
    near = w[np.abs(w[:, 0]) < 0.5]
    moved = neural_prior._renormalized(before.network, near, jnp.ones(len(near)), jnp.array(False))
    assert not np.allclose(moved.std, before.network.std, rtol=0.2)
    expected = jax.vmap(before.network.change)(w[:, :3])
    np.testing.assert_allclose(jax.vmap(moved.change)(w[:, :3]), expected, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w[:1],  # one transition
        lambda w: w[:1].repeat(50, 0),  # identical ones
        lambda w: w * np.array([1, 1, 0, 1, 1], np.float32),  # an action that is constant
        lambda w: w * np.array([1e6, 1, 1, 1e6, 1], np.float32),  # units far apart
    ],
)
def test_hard_data_leave_a_usable_network(change):
    w = change(pendulum(200))
    ours = trained(w, updates=200)
    slopes = jax.vmap(ours.slope)(w[:, :3])
    assert np.isfinite(slopes).all()
    error = np.abs(jax.vmap(ours.change)(w[:, :3]) - w[:, 3:]).mean(0)
    assert (error <= 0.5 * np.abs(w[:, 3:]).mean(0) + 1e-6).all()


def test_the_oldest_transitions_give_way():
    kept = buffer.empty(6, 1)
    for start in (0.0, 4.0, 8.0):
        kept = buffer.add(kept, start + jnp.arange(4.0)[:, None], jnp.ones(4), 4)
    assert sorted(kept.points[:, 0].tolist()) == [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    assert int(kept.added) == 12


def test_a_part_of_many_transitions_is_spread_over_them():
    kept = buffer.add(buffer.empty(10, 1), jnp.arange(100.0)[:, None], jnp.ones(100), 5)
    assert np.diff(np.asarray(kept.points[:5, 0])).tolist() == [20.0] * 4
    assert float(kept.count) == 5.0


def test_a_dimension_that_never_changes_has_the_unit_one():
    w = jnp.stack([jnp.arange(4.0), jnp.full(4, 3e5)], axis=1)
    mean, std = buffer.add(buffer.empty(8, 2), w, jnp.ones(4), 4).scales()
    np.testing.assert_allclose(mean, [1.5, 3e5])
    np.testing.assert_allclose(std, [np.arange(4.0).std(), 1.0])
