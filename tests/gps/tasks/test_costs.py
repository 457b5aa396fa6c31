"""Residuals of costs against the formulas of the costs, by numpy in double precision; and at zero distance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gps.tasks import costs

OFFSETS = [np.array([0.3, -0.2, 0.5]), np.array([1e-3, 2e-3, -5e-4]), np.array([2e-9, 0.0, 0.0]), np.array([8.0, 9, 1])]


def value(residual):
    return 0.5 * float((np.asarray(residual, float) ** 2).sum())


@pytest.mark.parametrize("offset", OFFSETS)
def test_distances_are_their_formulas(offset):
    d2 = float(offset @ offset)
    given = jnp.asarray(offset)
    assert value(costs.quadratic(given, 3.0)) == pytest.approx(1.5 * d2, rel=1e-5)
    assert value(costs.log_distance(given, 0.7, 0.01)) == pytest.approx(0.35 * np.log1p(d2 / 1e-4), rel=1e-4)
    exact = 2.0 * d2 / (np.sqrt(d2 + 0.05**2) + 0.05)
    assert value(costs.smooth_distance(given, 2.0, 0.05)) == pytest.approx(exact, rel=1e-5)


def test_the_smooth_distance_is_the_distance_far_away_and_half_a_square_near():
    assert value(costs.smooth_distance(jnp.array([30.0, 40.0]), 1.0, 0.1)) == pytest.approx(49.9, rel=1e-4)
    assert value(costs.smooth_distance(jnp.array([3e-4, 4e-4]), 1.0, 0.1)) == pytest.approx(0.5 * 25e-8 / 0.1, rel=1e-4)


@pytest.mark.parametrize("part", [costs.log_distance, costs.smooth_distance])
def test_at_the_goal_a_distance_is_a_parabola(part):
    """Slope zero, and weight / precision^2 or weight / softness in all directions."""
    curvature = {costs.log_distance: 2.0 / 0.1**2, costs.smooth_distance: 2.0 / 0.1}[part]
    J = np.asarray(jax.jacfwd(lambda offset: part(offset, 2.0, 0.1))(jnp.zeros(3)))
    np.testing.assert_allclose(J.T @ J, curvature * np.eye(3), rtol=1e-5)
    exact = jax.hessian(lambda offset: 0.5 * (part(offset, 2.0, 0.1) ** 2).sum())(jnp.zeros(3))
    np.testing.assert_allclose(exact, curvature * np.eye(3), rtol=1e-5)


@pytest.mark.parametrize("part", [costs.log_distance, costs.smooth_distance])
@pytest.mark.parametrize("size", [1e-3, 0.0999, 0.1001, 1.0, 30.0])
def test_gauss_and_newton_see_all_directions_of_a_distance(part, size):
    """The slope is exact; along the offset and across it the curvature is positive."""
    offset = jnp.array([0.6, 0.8]) * size
    J = np.asarray(jax.jacfwd(lambda offset: part(offset, 1.0, 1.0))(offset))
    exact = {
        costs.log_distance: size / (1 + size**2),
        costs.smooth_distance: size / np.sqrt(1 + size**2),
    }[part]
    np.testing.assert_allclose(part(offset, 1.0, 1.0) @ J, exact * np.array([0.6, 0.8]), rtol=2e-4)
    assert np.linalg.eigvalsh(J.T @ J).min() > 0.0


def rotation(axis, angle):
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.mark.parametrize("turned", [0.0, 0.02, 1.0, np.pi])
def test_a_turn_costs_twice_the_sine_of_half_its_angle(turned):
    wanted = rotation((0.6, 0.0, 0.8), 0.7)
    by = rotation((0.0, 0.6, 0.8), turned) @ wanted
    expected = 0.5 * 3.0 * (2 * np.sin(turned / 2)) ** 2
    assert value(costs.turn(jnp.asarray(by), jnp.asarray(wanted), 3.0)) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert value(costs.angle(0.7 + turned, 0.7 + 2 * np.pi, 3.0)) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_what_hangs_is_not_held_there_by_its_angle():
    def curvature(value):
        J = jax.jacobian(lambda v: costs.angle(v, 0.0, 3.0))(jnp.float32(value))
        return float((J * J).sum())

    assert curvature(np.pi) == pytest.approx(0.0, abs=1e-6)
    assert curvature(0.0) == pytest.approx(3.0)


def test_bounds_cost_nothing_inside():
    low, high = jnp.array([-1.0, 0.0, 0.0]), jnp.array([1.0, 2.0, 1.0])
    np.testing.assert_allclose(costs.beyond(jnp.array([-1.5, 1.0, 3.0]), low, high, 4.0), [-1.0, 0.0, 4.0])


def test_an_obstacle_costs_much_inside_and_next_to_nothing_far_away():
    inside, border, far = (value(costs.near(jnp.float32(d), 0.2, 2.0)) for d in (0.0, 0.2, 0.6))
    assert border == pytest.approx(np.log(2.0) ** 2, rel=1e-5)
    assert inside == pytest.approx(np.log1p(np.exp(4.0)) ** 2, rel=1e-5)
    assert far < 1e-6


def test_parts_add_up():
    parts = costs.quadratic(jnp.array([1.0, 2.0]), 3.0), costs.weighted(jnp.array([4.0]), 0.5)
    assert value(costs.total(*parts)) == pytest.approx(1.5 * 5.0 + 0.25 * 16.0)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1]),
        ("quadratic", [1 / 16, 0.25, 9 / 16, 1]),
        ("final", [0, 0, 0, 1]),
    ],
)
def test_ramps(kind, weights):
    np.testing.assert_allclose(jax.vmap(lambda t: costs.ramp(t, 4, kind))(jnp.arange(4)), weights)


def test_an_unknown_ramp_is_named():
    with pytest.raises(ValueError, match="ramp 'cubic' is unknown; choose one of constant, linear, quadratic, final"):
        costs.ramp(jnp.int32(0), 4, "cubic")
