"""What iLQR offers beside the plain solve, against plain solves; in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers import expand, ilqr
from controllers.ilqr import Cost, Dynamics, LeastSquares, Options, Status
from controllers.ilqr.step import damping_rows
from controllers.types import LinearDynamics

TIGHT = Options(cost_tolerance=1e-14, gradient_tolerance=1e-10, line_search="backtracking")
HANGING, PUSH = np.array([np.pi, 0.0]), np.full((20, 1), 0.5)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def pendulum(x, u, t):
    """Angle from upright and its rate."""
    rate = x[1] + 0.1 * (9.81 * jnp.sin(x[0]) + 3.0 * u[0])
    return jnp.stack([x[0] + 0.1 * rate, rate])


def residual(x, u, t):
    return jnp.stack([np.sqrt(0.4) * jnp.sin(0.5 * x[0]), np.sqrt(0.04) * u[0]])


def final_residual(x):
    return jnp.stack([np.sqrt(80.0) * jnp.sin(0.5 * x[0]), 2.0 * x[1]])


def cost(x, u, t):
    return 0.1 * (1.0 - jnp.cos(x[0])) + 0.02 * u[0] ** 2  # = 1/2 |residual|^2


def final_cost(x):
    return 20.0 * (1.0 - jnp.cos(x[0])) + 2.0 * x[1] ** 2


def swing_up(x0=HANGING, us=PUSH, dynamics=pendulum, cost=cost, final_cost=final_cost, xs=None, **changed):
    return ilqr.solve(
        dynamics, cost, x0, us, final_cost=final_cost, xs=xs, options=dataclasses.replace(TIGHT, **changed)
    )


@pytest.fixture(scope="module")
def plain():
    with jax.enable_x64():
        return swing_up()


def assert_same_optimum(solution, other, atol=1e-6):
    assert solution.converged
    np.testing.assert_allclose(solution.cost, other.cost, rtol=1e-10)
    np.testing.assert_allclose(solution.actions, other.actions, atol=atol)
    np.testing.assert_allclose(solution.states, other.states, atol=atol)


# --- differential dynamic programming --------------------------------------------------------------------


@pytest.fixture(scope="module")
def second_order():
    with jax.enable_x64():
        return swing_up(method="ddp", hessian="exact")


def test_ddp_takes_fewer_iterations_to_the_same_swing_up(plain, second_order):
    assert_same_optimum(second_order, plain)
    assert second_order.iterations < plain.iterations


def test_ddp_ends_quadratically_and_ilqr_does_not(plain, second_order):
    """Gradient norms of the last iterations, as powers of each other."""

    def last(solution):
        norms = np.append(solution.trace.gradient_norm[: int(solution.iterations)], solution.gradient_norm)
        return norms[norms > 1e-9][-3:]

    fast, slow = last(second_order), last(plain)
    assert fast[2] < 10.0 * fast[1] ** 1.7
    assert slow[2] > 1e-2 * slow[1]


def test_gains_of_ddp_are_the_sensitivities_of_the_optimal_first_action(plain, second_order):
    step = 2e-5

    def first(x0):
        return swing_up(x0, second_order.actions, method="ddp", hessian="exact").actions[0]

    differences = [(first(HANGING + d) - first(HANGING - d)) / (2.0 * step) for d in step * np.eye(2)]
    np.testing.assert_allclose(second_order.K[0], np.stack(differences, axis=1), rtol=1e-5)
    assert np.abs(plain.K[0] / second_order.K[0] - 1.0).max() > 0.05


# --- derivatives of one's own -----------------------------------------------------------------------------


@jax.custom_jvp
def without_derivative(x):
    return x


@without_derivative.defjvp
def _refuse(*_):
    raise AssertionError("differentiated automatically")


def pendulum_jacobian(x, u, t):
    pull = 0.981 * jnp.cos(x[0])
    A = jnp.array([[1.0 + 0.1 * pull, 0.1], [pull, 1.0]])
    return A, jnp.array([[0.03], [0.3]])


def cost_derivatives(x, u, t):
    g = jnp.stack([0.1 * jnp.sin(x[0]), 0.0, 0.04 * u[0]])
    return g, jnp.diag(jnp.stack([0.1 * jnp.cos(x[0]), 0.0, 0.04]))


def final_jacobian(x):
    return jnp.array([[np.sqrt(20.0) * jnp.cos(0.5 * x[0]), 0.0], [0.0, 2.0]])


def test_least_squares_have_the_minimum_of_the_same_cost(plain):
    solution = swing_up(cost=LeastSquares(residual), final_cost=LeastSquares(final_residual))
    assert_same_optimum(solution, plain)
    assert (solution.trace.regularization[: int(solution.iterations)] == 0.0).all()  # never indefinite


def test_derivatives_of_ones_own_stand_for_automatic_ones(plain):
    """Of dynamics, cost and least squares, all at once; and functions that must not be differentiated."""
    solution = swing_up(
        dynamics=Dynamics(lambda x, u, t: without_derivative(pendulum(x, u, t)), pendulum_jacobian),
        cost=Cost(lambda x, u, t: without_derivative(cost(x, u, t)), cost_derivatives),
        final_cost=LeastSquares(lambda x: without_derivative(final_residual(x)), final_jacobian),
    )
    assert_same_optimum(solution, plain)


def test_expansion_takes_the_given_derivatives_whatever_they_are():
    """J'J of a given Jacobian and the residual itself; the treatment of Hessians applies to a Cost alone."""
    xs, us = np.array([[0.3, 1.0], [3.0, -2.0], [0.5, 0.2]]), np.array([[0.2], [-0.4]])
    J, J_final = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]), np.array([[0.0, 5.0], [1.0, 1.0]])
    squares = LeastSquares(residual, lambda x, u, t: J), LeastSquares(final_residual, lambda x: J_final)
    found = expand.quadratize(*squares, xs, us)
    for t in range(2):
        np.testing.assert_allclose(found.H[t], J.T @ J, rtol=1e-14)
        np.testing.assert_allclose(found.g[t], J.T @ residual(xs[t], us[t], t), rtol=1e-14)
        np.testing.assert_allclose(found.c[t], cost(xs[t], us[t], t), rtol=1e-12)
    np.testing.assert_allclose(found.H_final, J_final.T @ J_final, rtol=1e-14)
    np.testing.assert_allclose(found.g_final, J_final.T @ final_residual(xs[2]), rtol=1e-14)
    odd = Cost(cost, lambda x, u, t: (jnp.arange(3.0), jnp.diag(jnp.array([1.0, -2.0, 3.0]))))
    found = expand.quadratize(odd, final_cost, xs, us, "flip")
    np.testing.assert_allclose(found.g[1], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(found.H[1], np.diag([1.0, 2.0, 3.0]), atol=1e-12)


def test_gauss_newton_hessian_is_that_of_the_linearised_residual():
    xs, us = np.array([[2.0, 1.0], [0.5, 0.2]]), np.array([[0.2]])
    found = expand.quadratize(LeastSquares(residual), LeastSquares(final_residual), xs, us)
    J = np.array([[np.sqrt(0.1) * np.cos(1.0), 0.0, 0.0], [0.0, 0.0, 0.2]])
    np.testing.assert_allclose(found.H[0], J.T @ J, rtol=1e-12)
    np.testing.assert_allclose(found.g[0], cost_derivatives(xs[0], us[0], 0)[0], rtol=1e-12)


# --- other ways to iterate ---------------------------------------------------------------------------------


def test_all_step_lengths_at_once_choose_the_same_steps(plain):
    solution = swing_up(line_search="parallel")
    n = int(plain.iterations)
    assert (plain.trace.step_size[:n] < 1.0).any()
    assert int(solution.iterations) == n
    np.testing.assert_array_equal(solution.trace.step_size, plain.trace.step_size)
    np.testing.assert_allclose(solution.trace.cost[:n], plain.trace.cost[:n], rtol=1e-9)
    assert_same_optimum(solution, plain)


def test_regularization_in_state_space_is_of_the_new_state():
    """It adds mu/2 |A x + B u|^2 where the gains are computed: second derivatives in u, and in u and x."""
    rng = np.random.default_rng(0)
    A, B = jnp.asarray(rng.normal(size=(3, 4, 4))), jnp.asarray(rng.normal(size=(3, 4, 2)))
    rows = damping_rows(LinearDynamics(A, B, A[:, 0], A), 0.7, "state")

    def added(z, t):
        return 0.35 * ((A[t] @ z[:4] + B[t] @ z[4:]) ** 2).sum()

    for t in range(3):
        np.testing.assert_allclose(rows[t], jax.hessian(added)(jnp.zeros(6), t)[4:], rtol=1e-12, atol=1e-12)


def test_regularization_in_state_space_descends_to_the_same_swing_up(plain):
    solution = swing_up(regularization_type="state", regularization=10.0)
    assert_same_optimum(solution, plain)
    assert solution.trace.regularization[0] == 10.0
    assert solution.regularization == 0.0


def test_parallel_in_time_finds_the_same_swing_up(plain):
    us = plain.actions + 0.1 * np.sin(np.arange(20.0))[:, None]
    solution = swing_up(us=us, parallel_in_time=True, method="ilqr")
    assert_same_optimum(solution, plain, atol=1e-5)
    assert solution.gap < 1e-9 * np.abs(solution.states).max()
    np.testing.assert_allclose(solution.K, plain.K, rtol=1e-3, atol=1e-4)


def test_start_with_gaps_between_the_states_ends_without(plain):
    """States of the solution moved apart, with other actions."""
    rng = np.random.default_rng(0)
    xs = np.asarray(plain.states + rng.normal(size=(21, 2)) * [0.3, 0.5])
    us = np.asarray(plain.actions + rng.normal(size=(20, 1)))
    solution = swing_up(xs=xs, us=us)
    gaps = np.array([pendulum(xs[t], us[t], t) for t in range(20)]) - xs[1:]
    gaps[0] = pendulum(HANGING, us[0], 0) - xs[1]  # xs[0] counts as x0
    np.testing.assert_allclose(solution.trace.gap[0], np.abs(gaps).max(), rtol=1e-12)
    assert solution.gap == 0.0
    assert_same_optimum(solution, plain)
    np.testing.assert_array_equal(solution.states[0], HANGING)


def still(x, u, t):
    return x


def quartic(x, u, t):
    return (u[0] - 1.0) ** 4


def test_small_step_ends_the_solve():
    options = Options(cost_tolerance=0.0, gradient_tolerance=0.0, step_tolerance=0.05)
    solution = ilqr.solve(still, quartic, np.zeros(1), np.full((2, 1), 3.0), options=options)
    assert int(solution.status) == Status.CONVERGED_STEP
    assert solution.converged
    # Newton's method takes a third of the way to the minimum of a fourth power in each step
    n, way = int(solution.iterations), 2.0 * (2.0 / 3.0) ** np.arange(30)
    np.testing.assert_allclose(solution.actions, 1.0 + way[n], rtol=1e-9)
    steps = way[:-1] - way[1:]
    assert steps[n - 1] <= 0.05 * (1.0 + way[n])
    assert steps[n - 2] > 0.05 * (1.0 + way[n - 1])
