"""The Riccati sweep against dense solves over whole trajectories."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from controllers import lqr
from controllers.types import LinearDynamics, QuadraticCost

SEEDS = (0, 1, 2)
sweep = jax.jit(lqr.backward_pass)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def arrays(problem):
    """Dynamics and cost as the classes under test."""
    return LinearDynamics(*map(jnp.asarray, problem.dynamics)), QuadraticCost(*map(jnp.asarray, problem.cost))


def solve(problem, temperature=1.0, regularization=0.0):
    T, nx, nu = problem.dynamics[1].shape
    damping = regularization * np.eye(nu, nx + nu, nx) * np.ones((T, 1, 1))
    return sweep(*arrays(problem), jnp.asarray(temperature), damping)


def cost_to_go(problem, solution, x, t):
    """Cost from x[t] = x to the end under the mean of the solution's controller, without noise."""
    K, k = np.asarray(solution.controller.K), np.asarray(solution.controller.k)
    return oracles.path_cost(problem, *oracles.follow(problem, K, k, x, first=t), first=t)


@pytest.mark.parametrize("seed", SEEDS)
def test_controller_takes_the_optimal_actions_from_any_state(seed):
    problem = oracles.random_problem(seed)
    controller = solve(problem).controller
    rng = np.random.default_rng(seed)
    for x0 in 3.0 * rng.normal(size=(3, 3)):
        us, best = oracles.optimal_actions(problem, x0)
        xs, taken = oracles.follow(problem, np.asarray(controller.K), np.asarray(controller.k), x0)
        np.testing.assert_allclose(taken, us, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(oracles.path_cost(problem, xs, taken), best, rtol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_actions_are_the_conditionals_of_the_maximum_entropy_distribution(seed):
    problem = oracles.random_problem(seed)
    temperature = 0.7
    controller = solve(problem, temperature).controller
    rng = np.random.default_rng(seed)
    x0, us = rng.normal(size=3), rng.normal(size=(6, 2))
    xs = oracles.rollout(problem, x0, us)
    for t in range(6):
        mean, cov = oracles.maximum_entropy_conditional(problem, x0, us[:t], temperature)
        np.testing.assert_allclose(controller.act(t, xs[t]), mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(controller.chol[t] @ controller.chol[t].T, cov, rtol=1e-8, atol=1e-10)


def test_temperature_scales_the_covariance_of_its_own_step_alone():
    problem = oracles.random_problem(3)
    temperature = np.array([0.1, 2.0, 1.0, 5.0, 0.3, 1.5])
    plain, hot = solve(problem, np.ones(6)), solve(problem, temperature)
    np.testing.assert_array_equal(hot.controller.K, plain.controller.K)
    np.testing.assert_array_equal(hot.controller.k, plain.controller.k)
    covs = [np.asarray(s.controller.chol @ s.controller.chol.mT) for s in (plain, hot)]
    np.testing.assert_allclose(covs[1], temperature[:, None, None] * covs[0], rtol=1e-12)


def test_controller_minimises_expected_cost_minus_priced_entropy():
    """With noise and a price that varies over time: zero slope and positive curvature in every direction tried."""
    problem = oracles.random_problem(4)
    temperature = np.array([0.1, 2.0, 1.0, 5.0, 0.3, 1.5])
    solution = [np.asarray(a) for a in jax.tree.leaves(solve(problem, temperature).controller)]
    rng = np.random.default_rng(0)
    here = oracles.soft_cost(problem, solution, temperature)
    for _ in range(12):
        direction = [rng.normal(size=a.shape) for a in solution]
        direction[2] = np.tril(direction[2])
        ahead, behind = (
            oracles.soft_cost(problem, [a + h * d for a, d in zip(solution, direction, strict=True)], temperature)
            for h in (1e-4, -1e-4)
        )
        curvature = (ahead - 2 * here + behind) / 1e-8
        assert curvature > 0.1
        assert abs(ahead - behind) / 2e-4 < 1e-4 * curvature


@pytest.mark.parametrize("regularization", [0.0, 3.0])
def test_value_is_that_of_the_returned_controller(regularization):
    problem = oracles.random_problem(5)
    solution = solve(problem, regularization=regularization)
    rng = np.random.default_rng(5)
    for t in range(7):
        V, v = np.asarray(solution.V[t]), np.asarray(solution.v[t])
        np.testing.assert_array_equal(V, V.T)
        x, y = rng.normal(size=(2, 3))
        gap = cost_to_go(problem, solution, x, t) - cost_to_go(problem, solution, y, t)
        np.testing.assert_allclose(0.5 * (x @ V @ x - y @ V @ y) + v @ (x - y), gap, rtol=1e-9)


def test_regularization_penalises_each_action_once_and_costs_something():
    """K, k minimise stage cost + cost to go + regularization/2 |u|^2, and no longer the cost itself."""
    problem = oracles.random_problem(6)
    regularization = 3.0
    damped, best = solve(problem, regularization=regularization), solve(problem)
    rng = np.random.default_rng(6)
    A, B, c, _ = problem.dynamics
    H, g = problem.cost[:2]
    for t in range(6):
        x = rng.normal(size=3)

        def objective(u, t=t, x=x):
            z = np.concatenate([x, u])
            stage = 0.5 * z @ H[t] @ z + g[t] @ z + 0.5 * regularization * u @ u
            return stage + cost_to_go(problem, damped, A[t] @ x + B[t] @ u + c[t], t + 1)

        u = np.asarray(damped.controller.act(t, x))
        slope = [objective(u + 0.1 * e) - objective(u - 0.1 * e) for e in np.eye(2)]  # exact for a quadratic
        np.testing.assert_allclose(slope, 0.0, atol=1e-10)
    x0 = rng.normal(size=3)
    assert cost_to_go(problem, damped, x0, 0) > cost_to_go(problem, best, x0, 0) + 0.01


@pytest.mark.parametrize("regularization", [0.0, 3.0])
def test_slope_and_curvature_predict_the_change_of_cost(regularization):
    """From x[0] = 0, with alpha k and alpha c for k and c: exact for every alpha, damped or not."""
    problem = oracles.random_problem(7)
    A, B, c, noise = problem.dynamics
    solution = solve(problem, regularization=regularization)
    K, k = np.asarray(solution.controller.K), np.asarray(solution.controller.k)
    slope, curvature = float(solution.slope), float(solution.curvature)

    def change(alpha):
        scaled = problem._replace(dynamics=(A, B, alpha * c, noise))
        still = np.zeros((7, 3)), np.zeros((6, 2))
        return oracles.path_cost(scaled, *oracles.follow(scaled, K, alpha * k, np.zeros(3))) - oracles.path_cost(
            scaled, *still
        )

    assert abs(c).min() > 1e-3
    np.testing.assert_allclose((change(1e-3) - change(-1e-3)) / 2e-3, slope, rtol=1e-8)
    for alpha in (-1.0, 0.3, 1.0, 2.0):
        np.testing.assert_allclose(change(alpha), alpha * slope + 0.5 * alpha**2 * curvature, rtol=1e-9, atol=1e-12)


def test_indefinite_step_spoils_itself_and_what_comes_before():
    problem = oracles.random_problem(8)
    H = problem.cost[0].copy()
    H[3, 3:, 3:] -= 100.0 * np.eye(2)
    bad = problem._replace(cost=(H, *problem.cost[1:]))
    solution, sound = solve(bad), solve(problem)
    assert solution.status == lqr.Status.INDEFINITE
    assert sound.status == lqr.Status.SOLVED
    for array, reference in zip(jax.tree.leaves(solution.controller), jax.tree.leaves(sound.controller), strict=True):
        # the zeros above the diagonal of chol need not be NaN
        lower = np.tril(np.ones(array.shape[1:])) > 0 if array.ndim == 3 and array.shape[2] == 2 else slice(None)
        assert np.isnan(np.asarray(array)[:4][:, lower]).all()
        np.testing.assert_array_equal(array[4:], reference[4:])


def test_saddle_is_not_solved_with_a_gain_of_the_wrong_sign():
    """One positive and one negative eigenvalue of Q_uu: a plain linear solve would find a stationary point."""
    problem = oracles.random_problem(9)
    H = problem.cost[0].copy()
    H[5, 3:, 3:] = [[1.0, 0.0], [0.0, -100.0]]
    assert solve(problem._replace(cost=(H, *problem.cost[1:]))).status == lqr.Status.INDEFINITE


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("field", "index"), [("H", (0, 4, 4)), ("H", (2, 3, 3)), ("H", (1, 0, 0)), ("g", (2, 4))])
def test_input_that_is_not_finite_is_reported(value, field, index):
    dynamics, cost = arrays(oracles.random_problem(10))
    cost = dataclasses.replace(cost, **{field: getattr(cost, field).at[index].set(value)})
    assert sweep(dynamics, cost).status == lqr.Status.INDEFINITE


def test_bad_member_of_a_batch_leaves_the_others_alone():
    problems = [oracles.random_problem(seed) for seed in (0, 1, 2)]
    problems[1].cost[0][2, 3:, 3:] -= 100.0 * np.eye(2)
    dynamics, cost = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(arrays, problems))
    batch = jax.jit(jax.vmap(lqr.backward_pass))(dynamics, cost)
    assert batch.status.tolist() == [lqr.Status.SOLVED, lqr.Status.INDEFINITE, lqr.Status.SOLVED]
    for i in (0, 2):
        alone = solve(problems[i])
        for ours, theirs in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-10, atol=1e-12)


def test_inverse_factor_is_the_cholesky_factor_of_the_inverse():
    a = oracles.random_covariance(np.random.default_rng(0), 5)
    np.testing.assert_allclose(lqr.inverse_factor(a), np.linalg.cholesky(np.linalg.inv(a)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("diagonal", [(1.0, -1.0, 1.0), (1.0, 0.0, 1.0), (-1e-9, 1.0, 1.0)])
def test_inverse_factor_of_what_has_none_is_nan(diagonal):
    factor = np.asarray(lqr.inverse_factor(jnp.diag(jnp.asarray(diagonal))))
    assert np.isnan(factor[np.tril_indices(3)]).all()


def test_long_ill_conditioned_horizon_is_sound_in_float32():
    problem = oracles.badly_scaled_problem(11)
    exact = solve(problem)
    with jax.enable_x64(False):
        single = solve(problem)
    assert single.controller.K.dtype == jnp.float32
    assert single.status == lqr.Status.SOLVED
    scale = np.abs(exact.controller.K).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(single.controller.K / scale, exact.controller.K / scale, atol=2e-3)
    ratio = np.linalg.solve(np.asarray(exact.controller.chol), np.asarray(single.controller.chol, np.float64))
    np.testing.assert_allclose(ratio, np.broadcast_to(np.eye(2), ratio.shape), atol=2e-3)
    V = np.asarray(single.V)
    np.testing.assert_array_equal(V, V.swapaxes(1, 2))
    eigenvalues = np.linalg.eigvalsh(V.astype(np.float64))
    assert (eigenvalues[:, 0] > -1e-7 * eigenvalues[:, -1]).all()
    x0 = problem.initial[0]
    best, reached = cost_to_go(problem, exact, x0, 0), cost_to_go(problem, single, x0, 0)
    assert best <= reached <= best + 1e-5 * abs(best)


def test_float32_problem_stays_float32_where_float64_is_enabled():
    with jax.enable_x64(False):
        dynamics, cost = arrays(oracles.random_problem(0))
    solution = lqr.backward_pass(dynamics, cost, temperature=0.5, damping=jnp.full((6, 2, 5), 1e-3, jnp.float32))
    assert {a.dtype for a in jax.tree.leaves(solution.controller)} == {jnp.dtype("float32")}
