"""iLQR against dense solves, scipy's L-BFGS, finite differences and problems with known answers; in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from controllers import ilqr
from controllers.ilqr import Options, Status

TIGHT = Options(cost_tolerance=1e-14, gradient_tolerance=1e-10)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


# --- linear dynamics, quadratic cost ---------------------------------------------------------------------


def dense_optimum(A, B, c, H, g, H_final, g_final, x0):
    """Actions, cost, d(first action)/dx0 and Q_uu[0]^-1 from one dense least-squares system in all actions.

    All states and actions are z = F U + f; minimising 1/2 z'Wz + w'z gives U. The Hessian F'WF has
    Q_uu[0] as the Schur complement of its first block, so that Q_uu[0]^-1 is a block of its inverse.
    """
    T, nx, nu = B.shape
    rows, x_of = [], np.hstack([np.zeros((nx, T * nu)), np.eye(nx), np.zeros((nx, 1))])
    for t in range(T):
        u_of = np.zeros((nu, T * nu + nx + 1))
        u_of[:, t * nu : (t + 1) * nu] = np.eye(nu)
        rows += [x_of, u_of]
        x_of = A[t] @ x_of + B[t] @ u_of
        x_of[:, -1] += c[t]
    maps = np.vstack([*rows, x_of])
    F, from_x0, f = maps[:, : T * nu], maps[:, T * nu : -1], maps[:, -1] + maps[:, T * nu : -1] @ x0
    W = np.zeros((len(f), len(f)))
    for t in range(T):
        block = slice(t * (nx + nu), (t + 1) * (nx + nu))
        W[block, block] = H[t]
    W[-nx:, -nx:] = H_final
    w = np.concatenate([g.ravel(), g_final])
    hessian = F.T @ W @ F
    U = -np.linalg.solve(hessian, F.T @ (W @ f + w))
    z = F @ U + f
    sensitivity = -np.linalg.solve(hessian, F.T @ W @ from_x0)
    return U.reshape(T, nu), 0.5 * z @ W @ z + w @ z, sensitivity[:nu], np.linalg.inv(hessian)[:nu, :nu]


@pytest.fixture(scope="module")
def linear_quadratic():
    """A time-varying problem with cross terms, and its solution from random actions."""
    rng = np.random.default_rng(0)
    T, nx, nu = 6, 3, 2
    A, B, c = rng.normal(size=(T, nx, nx)), rng.normal(size=(T, nx, nu)), rng.normal(size=(T, nx))
    root = rng.normal(size=(T, nx + nu, nx + nu))
    H, g = root @ root.transpose(0, 2, 1) + np.eye(nx + nu), rng.normal(size=(T, nx + nu))
    H_final, g_final, x0 = np.diag([1.0, 2.0, 3.0]), rng.normal(size=nx), rng.normal(size=nx)

    def dynamics(x, u, t):
        return jnp.asarray(A)[t] @ x + jnp.asarray(B)[t] @ u + jnp.asarray(c)[t]

    def cost(x, u, t):
        z = jnp.concatenate([x, u])
        return 0.5 * z @ jnp.asarray(H)[t] @ z + jnp.asarray(g)[t] @ z

    def final_cost(x):
        return 0.5 * x @ H_final @ x + g_final @ x

    with jax.enable_x64():
        solution = ilqr.solve(dynamics, cost, x0, rng.normal(size=(T, nu)), final_cost=final_cost)
    return solution, dense_optimum(A, B, c, H, g, H_final, g_final, x0)


def test_linear_quadratic_problem_is_solved_in_one_iteration(linear_quadratic):
    solution, (actions, cost, _, _) = linear_quadratic
    assert (int(solution.iterations), int(solution.status)) == (1, Status.CONVERGED_GRADIENT)
    np.testing.assert_allclose(solution.actions, actions, atol=1e-9)
    np.testing.assert_allclose(solution.cost, cost, rtol=1e-12)


def test_linear_quadratic_feedback_is_the_sensitivity_of_the_dense_solution(linear_quadratic):
    solution, (_, _, sensitivity, covariance) = linear_quadratic
    np.testing.assert_allclose(solution.K[0], sensitivity, atol=1e-10)
    np.testing.assert_allclose(solution.chol[0] @ solution.chol[0].T, covariance, atol=1e-10)


def test_model_predicts_the_decrease_of_a_quadratic_cost(linear_quadratic):
    trace = linear_quadratic[0].trace
    np.testing.assert_allclose(trace.expected_decrease[0], trace.actual_decrease[0], rtol=1e-10)


# --- nonlinear models ------------------------------------------------------------------------------------


def pendulum(x, u, t):
    """Angle from upright and its rate."""
    rate = x[1] + 0.1 * (9.81 * jnp.sin(x[0]) + u[0])
    return jnp.stack([x[0] + 0.1 * rate, rate])


def pendulum_cost(x, u, t):
    return 0.1 * (1.0 - jnp.cos(x[0])) + 0.002 * u[0] ** 2


def pendulum_final(x):
    return 20.0 * (1.0 - jnp.cos(x[0])) + 2.0 * x[1] ** 2


def car(x, u, t):
    """Position, heading and speed of a car; the actions are the curvature of its path and its acceleration."""
    return x + 0.2 * jnp.stack([x[3] * jnp.cos(x[2]), x[3] * jnp.sin(x[2]), x[3] * u[0], u[1]])


def car_cost(x, u, t):
    return 0.2 * u[0] ** 2 + 0.1 * u[1] ** 2 + 0.01 * (x[0] ** 2 + x[1] ** 2)


def car_final(x):
    return (x**2).sum()


HANGING = np.array([np.pi, 0.0])
PUSH = np.full((25, 1), 0.5)
CASES = {
    "pendulum": (pendulum, pendulum_cost, pendulum_final, HANGING, PUSH),
    "car": (car, car_cost, car_final, np.array([-1.5, -0.3, 0.0, 1.0]), np.zeros((15, 2))),
}


def objective(case, start=None):
    """J and its gradient as a function of all actions, written without ours."""
    dynamics, cost, final_cost, x0, us = CASES[case]
    x0 = x0 if start is None else start

    def total(actions):
        def step(t, sofar):
            x, value = sofar
            return dynamics(x, actions[t], t), value + cost(x, actions[t], t)

        x, value = jax.lax.fori_loop(0, len(us), step, (jnp.asarray(x0), 0.0))
        return value + final_cost(x)

    return jax.jit(jax.value_and_grad(total))


@jax.jit
def swing_up(x0, us):
    return ilqr.solve(pendulum, pendulum_cost, x0, us, final_cost=pendulum_final, options=TIGHT)


@jax.jit
def park(x0, us):
    return ilqr.solve(car, car_cost, x0, us, final_cost=car_final, options=TIGHT)


@pytest.fixture(scope="module")
def solutions():
    with jax.enable_x64():
        return {"pendulum": swing_up(HANGING, PUSH), "car": park(*CASES["car"][3:])}


@pytest.mark.parametrize("case", list(CASES))
def test_solution_is_a_stationary_point_and_as_good_as_lbfgs(case, solutions):
    solution, total, us = solutions[case], objective(case), CASES[case][4]
    value, gradient = total(solution.actions)
    np.testing.assert_allclose(solution.cost, value, rtol=1e-12)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-8)
    assert solution.converged

    def flat(actions):
        value, gradient = total(actions.reshape(us.shape))
        return float(value), np.asarray(gradient).ravel()

    other = minimize(flat, us.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15})
    np.testing.assert_allclose(solution.cost, other.fun, rtol=1e-6)


@pytest.mark.parametrize("case", list(CASES))
def test_reported_gradient_is_that_of_the_total_cost(case, solutions):
    _, gradient = objective(case)(CASES[case][4])
    np.testing.assert_allclose(solutions[case].trace.gradient_norm[0], abs(gradient).max(), rtol=1e-10)


def test_trace_tells_the_whole_descent(solutions):
    solution = solutions["pendulum"]
    n = int(solution.iterations)
    costs = np.append(solution.trace.cost[:n], solution.cost)
    moved = np.where(solution.trace.step_size[:n] > 0, solution.trace.actual_decrease[:n], 0.0)
    assert costs[0] == pytest.approx(float(objective("pendulum")(PUSH)[0]), rel=1e-12)
    np.testing.assert_allclose(-np.diff(costs), moved, atol=1e-12)
    assert (moved >= 0.0).all()
    assert all(
        np.isnan(values[n:]).all() and not np.isnan(values[:n]).any() for values in jax.tree.leaves(solution.trace)
    )


def test_gains_are_the_sensitivities_of_the_optimal_first_action():
    """Linear dynamics (whose curvature iLQR does not miss) and a convex cost that is not quadratic."""
    A, B = np.array([[1.0, 0.3], [-0.2, 0.9]]), np.array([[0.5, 0.1], [0.0, 1.0]])

    def cost(x, u, t):
        return jnp.log(jnp.cosh(2.0 * x)).sum() + jnp.cosh(u[0] + 0.3 * u[1]) + u[1] ** 2

    @jax.jit
    def first(x0):
        solution = ilqr.solve(lambda x, u, _t: A @ x + B @ u, cost, x0, jnp.zeros((5, 2)), options=TIGHT)
        return solution.actions[0], solution.K[0]

    x0, step = np.array([0.7, -0.4]), 1e-4
    differences = [(first(x0 + d)[0] - first(x0 - d)[0]) / (2 * step) for d in step * np.eye(2)]
    np.testing.assert_allclose(first(x0)[1], np.stack(differences, axis=1), atol=1e-6)


def test_vmap_over_start_states_is_the_same_as_one_by_one():
    starts = HANGING + np.array([[0.0, 0.0], [0.4, -1.0], [-2.0, 0.5]])
    together = jax.jit(jax.vmap(swing_up, in_axes=(0, None)))(starts, PUSH)
    for i, x0 in enumerate(starts):
        alone = swing_up(x0, PUSH)
        np.testing.assert_allclose(together.actions[i], alone.actions, atol=1e-6)
        np.testing.assert_allclose(together.K[i], alone.K, atol=1e-5)
        np.testing.assert_allclose(together.k[i], alone.k, atol=1e-5)
        assert together.status[i] <= Status.CONVERGED_GRADIENT
    assert len(set(together.iterations.tolist())) > 1  # they did not all stop together
    assert str(together).startswith("iLQR: 3 of 3 solves converged (")


def test_float32_reaches_the_cost_of_float64(solutions):
    with jax.enable_x64(False):
        single = swing_up(HANGING.astype(np.float32), PUSH.astype(np.float32))
    assert single.actions.dtype == np.float32
    assert single.converged
    np.testing.assert_allclose(single.cost, solutions["pendulum"].cost, rtol=1e-4)
    np.testing.assert_allclose(single.actions, solutions["pendulum"].actions, atol=0.05)


def test_controller_repeats_the_actions_and_corrects_deviations(solutions):
    solution = solutions["car"]
    controller = solution.controller(temperature=4.0)
    x = solution.states[3] + jnp.array([0.1, -0.2, 0.3, 0.0])
    np.testing.assert_allclose(controller.means(solution.states[:-1]), solution.actions, atol=1e-12)
    np.testing.assert_allclose(
        controller.act(3, x), solution.actions[3] + solution.K[3] @ (x - solution.states[3]), atol=1e-12
    )
    np.testing.assert_allclose(controller.chol, 2.0 * solution.chol, rtol=1e-12)
    annealed = solution.controller(temperature=jnp.arange(15.0))
    np.testing.assert_allclose(annealed.chol[9], 3.0 * solution.chol[9], rtol=1e-12)


def test_feedback_after_a_disturbance_is_nearly_as_good_as_solving_again(solutions):
    start, us = CASES["car"][3] + np.array([0.1, -0.1, 0.1, 0.1]), CASES["car"][4]
    controller, x, actions = solutions["car"].controller(), start, []
    for t in range(len(us)):
        actions.append(controller.act(t, x))
        x = car(x, actions[-1], t)
    total, best = objective("car", start), park(start, us).cost
    regret, regret_without = total(jnp.stack(actions))[0] - best, total(solutions["car"].actions)[0] - best
    assert 0.0 < regret < 0.02 * regret_without


def test_convergence_by_cost_is_within_its_tolerance_of_the_minimum(solutions):
    dynamics, cost, final_cost, x0, us = CASES["pendulum"]
    loose = Options(cost_tolerance=1e-5, gradient_tolerance=0.0)
    solution = ilqr.solve(dynamics, cost, x0, us, final_cost=final_cost, options=loose)
    assert int(solution.status) == Status.CONVERGED_COST
    assert solution.iterations < solutions["pendulum"].iterations
    np.testing.assert_allclose(solution.cost, solutions["pendulum"].cost, rtol=1e-4)


def test_small_steps_of_heavy_regularization_are_no_convergence():
    solution = ilqr.solve(
        *CASES["car"][:2], *CASES["car"][3:], final_cost=car_final, options=Options(regularization=1e9)
    )
    best = park(*CASES["car"][3:])
    assert solution.converged
    np.testing.assert_allclose(solution.cost, best.cost, rtol=1e-6)


def test_one_of_a_batch_is_picked_and_no_other():
    starts = HANGING + np.array([[0.0, 0.0], [0.4, -1.0]])
    together = jax.vmap(swing_up, in_axes=(0, None))(starts, PUSH)
    np.testing.assert_array_equal(together[1].actions, together.actions[1])
    assert [str(one) for one in together] == [str(together[0]), str(together[1])]
    with pytest.raises(IndexError, match="there are 2 solutions"):
        together[2]
    with pytest.raises(TypeError, match="one solution"):
        together[0][0]
