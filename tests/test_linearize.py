"""Derivatives of the simulator: automatic ones, MuJoCo's finite differences, and regression over small deviations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from controllers import ilqr
from dynamics.linearize import finite_difference_jacobians, jacobians, known_dynamics
from dynamics.regression import fit_dynamics, pooled_prior, transitions
from dynamics.rollout import rollout
from dynamics.simulator import make_simulator

T = 6


@pytest.fixture(scope="module")
def doubles(arms):
    """The arm's simulators in double precision, by engine."""
    model = arms["mujoco"].simulator.model
    with jax.enable_x64(True):
        return {engine: make_simulator(model, 5, engine) for engine in ("mujoco", "mjx")}


def path(simulator):
    """States (T+1 nx) and actions (T nu) of a moving arm."""
    us = np.random.default_rng(0).uniform(-0.8, 0.8, (T, 2))
    start = jnp.array([0.0, 0.2, 1.6, 2.0, -3.0])
    states = rollout(simulator, lambda m, t, s, n: (m, n), start, jnp.asarray(us)).states
    return np.asarray(states)[:, 1:], us


@pytest.fixture(scope="module")
def exact(doubles):
    """A and B along the path by automatic differentiation."""
    with jax.enable_x64(True):
        xs, us = path(doubles["mujoco"])
        A, B = jax.jit(lambda xs, us: jacobians(doubles["mjx"], xs, us))(jnp.asarray(xs[:-1]), jnp.asarray(us))
    return np.asarray(A), np.asarray(B)


def test_automatic_derivatives_are_mujocos_finite_differences(doubles, exact):
    with jax.enable_x64(True):
        xs, us = path(doubles["mujoco"])
    A, B = finite_difference_jacobians(doubles["mujoco"], xs[:-1], us)
    np.testing.assert_allclose(exact[0], A, atol=2e-7)
    np.testing.assert_allclose(exact[1], B, atol=2e-7)
    assert np.abs(A - A.transpose(0, 2, 1)).max() > 0.01  # a transpose would show


def test_regression_over_small_deviations_finds_the_same_derivatives(doubles, exact):
    """Deviations of 1e-3 leave a curvature of about 1e-3 of the slope; 200 samples average it out."""
    with jax.enable_x64(True):
        simulator = doubles["mujoco"]
        xs, us = path(simulator)
        rng = np.random.default_rng(1)
        du = jnp.asarray(1e-3 * rng.normal(size=(200, T, 2)))
        starts = jnp.asarray(np.concatenate([np.zeros((200, 1)), xs[0] + 1e-3 * rng.normal(size=(200, 4))], axis=1))
        many = jax.jit(jax.vmap(lambda s, u: rollout(simulator, lambda m, t, s, n: (m, n), s, u)))
        dx = many(starts, us + du).states[..., 1:] - xs
        w = transitions(dx, du)
        prior = pooled_prior(w.reshape(-1, w.shape[-1]), jnp.ones(w.shape[0] * T), 1e-3)
        fitted = fit_dynamics(dx, du, jnp.ones(200), prior, 1e-9)
    np.testing.assert_allclose(fitted.A, exact[0], atol=5e-3)
    np.testing.assert_allclose(fitted.B, exact[1], atol=5e-3)


def test_finite_differences_of_a_model_whose_actuator_has_a_state(actuated):
    """Against differences of whole steps, taken here."""
    model = mujoco.MjModel.from_xml_string(actuated)
    with jax.enable_x64(True):
        simulator = make_simulator(model, 3, "mujoco")
        step, x, u = known_dynamics(simulator), np.array([0.1, -0.2, 0.3, 0.4, 0.5]), np.array([0.2, 1.7])
        A, B = finite_difference_jacobians(simulator, x[None], u[None])
        h = 1e-6
        slopes_x = [(step(x + h * e, u, 0) - step(x - h * e, u, 0)) / (2 * h) for e in np.eye(5)]
        slopes_u = [(step(x, u + h * e, 0) - step(x, u - h * e, 0)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(A[0], np.stack(slopes_x, axis=1), atol=1e-7)
    np.testing.assert_allclose(B[0], np.stack(slopes_u, axis=1), atol=1e-7)


def test_positions_that_are_no_coordinates_are_refused():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><freejoint/><geom size="0.1"/></body></worldbody></mujoco>'
    )
    simulator = make_simulator(model, 1, "mujoco")
    with pytest.raises(ValueError, match="nq = 7 but nv = 6"):
        known_dynamics(simulator)
    with pytest.raises(ValueError, match="nq = 7 but nv = 6"):
        finite_difference_jacobians(simulator, np.zeros((1, 12)), np.zeros((1, 0)))


@pytest.mark.slow
def test_ilqr_with_the_known_model_reaches_a_target(arms):
    """Planned through MJX, and executed by the engine in C."""
    arm = arms["mjx"]
    target, dynamics = jnp.array([-0.08, 0.12]), known_dynamics(arm.simulator)
    solution = ilqr.solve(
        dynamics,
        lambda x, u, t: arm.cost(x, u, t, target),
        jnp.array([0.0, 1.6, 0.0, 0.0]),
        jnp.full((50, 2), 0.01),
        final_cost=lambda x: arm.final_cost(x, target),
    )
    start = jnp.array([0.0, 0.0, 1.6, 0.0, 0.0])
    executed = rollout(arms["mujoco"].simulator, lambda m, t, s, u: (m, u), start, solution.actions).states[:, 1:]
    np.testing.assert_allclose(executed, solution.states, atol=1e-3)
    assert float(arm.distance(executed[0], target)) > 0.1
    assert max(float(arm.distance(x, target)) for x in executed[-10:]) < 0.01
