"""Small matrices and bounded quadratic programs against numpy, brute force and finite differences; and the sweep with
bounds, damping and curved dynamics against what its parts mean."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from controllers import lqr
from controllers.box_qp import solve_box
from controllers.types import LinearDynamics, QuadraticCost

N, NX = 200, 3
solve_boxes = jax.jit(jax.vmap(solve_box))
sweep = jax.jit(lqr.backward_pass)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


# --- the program with bounds -----------------------------------------------------------------------------


def random_programs(nu):
    """N programs whose bounds are infinite, on both sides of zero, away from zero, or equal."""
    rng = np.random.default_rng(nu)
    root = rng.normal(size=(N, nu, nu))
    Q = root @ root.mT + 10.0 ** rng.uniform(-4, 0, size=(N, 1, 1)) * np.eye(nu)
    right = rng.normal(size=(N, nu, NX + 1))
    low, high = np.sort(rng.normal(size=(2, N, nu)), axis=0)
    low[rng.random((N, nu)) < 0.2] = -np.inf
    high[rng.random((N, nu)) < 0.2] = np.inf
    equal = (rng.random((N, nu)) < 0.1) & np.isfinite(low)
    return Q, right, low, np.where(equal, low, high)


def brute_force(Q, q, low, high):
    """The best of the minima over all choices of components that are free or at one of their bounds, if inside."""
    nu, best, us, free = len(q[0]), np.full(len(q), np.inf), np.full(q.shape, np.nan), np.zeros(q.shape, bool)
    for choice in itertools.product((-1, 0, 1), repeat=nu):
        side = np.broadcast_to(choice, q.shape)
        inside = side == 0
        bound = np.where(side < 0, low, high)
        possible = (np.isfinite(bound) | inside).all(1)
        u = np.where(inside | ~possible[:, None], 0.0, bound)
        face = inside[:, :, None] & inside[:, None]
        pull = np.where(inside, q + np.einsum("nij,nj->ni", Q, u), 0.0)
        u = u - np.linalg.solve(np.where(face, Q, np.eye(nu)), pull[..., None])[..., 0]
        value = 0.5 * np.einsum("ni,nij,nj->n", u, Q, u) + (q * u).sum(1)
        better = possible & (u >= low - 1e-12).all(1) & (u <= high + 1e-12).all(1) & (value < best - 1e-12)
        best, us, free = np.where(better, value, best), np.where(better[:, None], u, us), free | better[:, None]
        free = np.where(better[:, None], inside, free)
    return us, free


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def programs(request):
    """Programs of one size and our answers."""
    given = random_programs(request.param)
    with jax.enable_x64(True):
        gains, free = solve_boxes(*given)
    return given, np.asarray(gains), np.asarray(free)


def test_solution_is_the_best_of_all_active_sets(programs):
    (Q, right, low, high), gains, free = programs
    best, best_free = brute_force(Q, right[:, :, -1], low, high)
    np.testing.assert_allclose(gains[:, :, -1], best, atol=1e-8)
    np.testing.assert_array_equal(free, best_free)
    assert 0.2 < free.mean() < 0.8
    assert ((low > 0.0) | (high < 0.0)).any()


def test_solution_is_inside_and_exactly_at_its_bounds(programs):
    (_, _, low, high), gains, free = programs
    k = gains[:, :, -1]
    assert ((low <= k) & (k <= high)).all()
    assert ((k == low) | (k == high))[~free].all()


def test_gain_is_the_derivative_of_the_solution(programs):
    (Q, right, low, high), gains, _ = programs
    step = 1e-6
    for i in range(NX):
        ends, faces = zip(
            *[brute_force(Q, right[:, :, -1] + h * right[:, :, i], low, high) for h in (step, -step)], strict=True
        )
        same = (faces[0] == faces[1]).all(1)
        assert same.mean() > 0.98
        difference = (ends[0] - ends[1])[same] / (2 * step)
        np.testing.assert_allclose(gains[same, :, i], difference, rtol=1e-5, atol=1e-5)


def test_components_at_a_bound_have_no_gain(programs):
    _, gains, free = programs
    np.testing.assert_array_equal(gains[~free, :NX], 0.0)


def test_component_without_a_choice_has_no_gain_even_where_it_wants_to_stay():
    right = np.array([[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, -1.0]])
    gains, free = (a[0] for a in solve_boxes(np.eye(2)[None], right[None], np.zeros((1, 2)), np.array([[0.0, 3.0]])))
    np.testing.assert_array_equal(gains, [[0.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(free, [False, True])


def test_infinite_bounds_are_none():
    Q, right, low, high = random_programs(3)
    gains, free = solve_boxes(Q, right, np.full_like(low, -np.inf), np.full_like(high, np.inf))
    np.testing.assert_allclose(gains, -np.linalg.solve(Q, right), rtol=1e-7, atol=1e-9)
    assert free.all()


@pytest.mark.parametrize(
    "Q", [[[1.0, 0.0], [0.0, -1.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]]]
)
def test_program_that_is_not_convex_is_nan_and_leaves_the_others_of_a_batch_alone(Q):
    right = np.ones((2, 2, NX + 1))
    low, high = np.full((2, 2), -0.3), np.full((2, 2), 10.0)
    gains, _ = solve_boxes(np.array([Q, np.eye(2)]), right, low, high)
    assert np.isnan(gains[0]).all()
    np.testing.assert_array_equal(gains[1, :, -1], -0.3)


# --- the sweep -------------------------------------------------------------------------------------------


def arrays(problem):
    """Dynamics and cost as the classes under test."""
    return LinearDynamics(*map(jnp.asarray, problem.dynamics)), QuadraticCost(*map(jnp.asarray, problem.cost))


def cost_to_go(problem, solution, x, t):
    """Cost from x[t] = x under the mean of the solution's controller, without noise."""
    K, k = np.asarray(solution.controller.K), np.asarray(solution.controller.k)
    return oracles.path_cost(problem, *oracles.follow(problem, K, k, x, first=t), first=t)


def cost_of_action(problem, solution, t):
    """A function of x, u: the stage cost at t and what follows under the controller; quadratic."""
    A, B, c, _ = problem.dynamics
    H, g = problem.cost[:2]

    def value(x, u):
        z = np.concatenate([x, u])
        return 0.5 * z @ H[t] @ z + g[t] @ z + cost_to_go(problem, solution, A[t] @ x + B[t] @ u + c[t], t + 1)

    return value


def slopes(value, u):
    """Derivatives of a quadratic function at u."""
    return np.array([(value(u + e) - value(u - e)) / 2.0 for e in np.eye(len(u))])


def curvatures(value, nu):
    """Second derivatives of a quadratic function."""
    return np.stack([slopes(value, e) - slopes(value, np.zeros(nu)) for e in np.eye(nu)])


@pytest.fixture(scope="module")
def bounded():
    """A problem of three actions, bounds that differ over time, and the sweep under them."""
    problem = oracles.random_problem(12, nu=3)
    rng = np.random.default_rng(12)
    low, high = np.sort(rng.normal(size=(2, 6, 3)), axis=0)
    low[0], high[1] = -np.inf, np.inf
    high[2, 1] = low[2, 1]
    with jax.enable_x64(True):
        return problem, low, high, sweep(*arrays(problem), bounds=(low, high))


def test_bounded_offset_is_the_best_inside_the_bounds(bounded):
    problem, low, high, solution = bounded
    held = 0
    assert solution.status == lqr.Status.SOLVED
    for t in range(6):
        k, value = np.asarray(solution.controller.k[t]), cost_of_action(problem, solution, t)
        slope = slopes(lambda u, value=value: value(np.zeros(3), u), k)
        assert ((low[t] <= k) & (k <= high[t])).all()
        assert (slope[k == low[t]] > -1e-9).all() or (k == high[t])[k == low[t]].any()
        assert (slope[(k == high[t]) & (k > low[t])] < 1e-9).all()
        inside = (k > low[t]) & (k < high[t])
        np.testing.assert_allclose(slope[inside], 0.0, atol=1e-9)
        held += (~inside).sum()
    assert 4 < held < 14


def test_bounded_gain_is_optimal_for_the_free_actions_and_zero_for_the_others(bounded):
    problem, low, high, solution = bounded
    x = np.random.default_rng(0).normal(size=3)
    for t in range(6):
        K, k = np.asarray(solution.controller.K[t]), np.asarray(solution.controller.k[t])
        inside, value = (k > low[t]) & (k < high[t]), cost_of_action(problem, solution, t)
        np.testing.assert_array_equal(K[~inside], 0.0)
        np.testing.assert_allclose(slopes(lambda u, v=value: v(x, u), K @ x + k)[inside], 0.0, atol=1e-9)


def test_bounded_noise_is_the_inverse_curvature_of_the_free_actions(bounded):
    problem, low, high, solution = bounded
    for t in range(6):
        k, value = np.asarray(solution.controller.k[t]), cost_of_action(problem, solution, t)
        free = np.flatnonzero((k > low[t]) & (k < high[t]))
        cov = np.zeros((3, 3))
        cov[np.ix_(free, free)] = np.linalg.inv(curvatures(lambda u, v=value: v(np.zeros(3), u), 3)[np.ix_(free, free)])
        chol = np.asarray(solution.controller.chol[t])
        np.testing.assert_allclose(chol @ chol.T, cov, atol=1e-9)
        np.testing.assert_array_equal(chol, np.tril(chol))


def test_value_slope_and_curvature_are_those_of_the_bounded_controller(bounded):
    problem, _, _, solution = bounded
    A, B, c, noise = problem.dynamics
    x, y = np.random.default_rng(1).normal(size=(2, 3))
    for t in range(7):
        V, v = np.asarray(solution.V[t]), np.asarray(solution.v[t])
        gap = cost_to_go(problem, solution, x, t) - cost_to_go(problem, solution, y, t)
        np.testing.assert_allclose(0.5 * (x @ V @ x - y @ V @ y) + v @ (x - y), gap, rtol=1e-9)
    K, k, zero = np.asarray(solution.controller.K), np.asarray(solution.controller.k), np.zeros(3)
    still = oracles.path_cost(problem, np.zeros((7, 3)), np.zeros((6, 3)))
    for alpha in (-0.5, 0.3, 1.0):
        scaled = problem._replace(dynamics=(A, B, alpha * c, noise))
        change = oracles.path_cost(scaled, *oracles.follow(scaled, K, alpha * k, zero)) - still
        np.testing.assert_allclose(
            change, alpha * solution.slope + 0.5 * alpha**2 * solution.curvature, rtol=1e-9, atol=1e-12
        )


def test_indefinite_step_under_bounds_is_reported():
    problem = oracles.random_problem(12, nu=3)
    problem.cost[0][3, 3:, 3:] -= 100.0 * np.eye(3)
    solution = sweep(*arrays(problem), bounds=(np.full((6, 3), -1.0), np.full((6, 3), 1.0)))
    assert solution.status == lqr.Status.INDEFINITE
    assert np.isnan(solution.controller.K[:4]).all()
    assert np.isfinite(solution.controller.K[4:]).all()


def test_damping_is_a_cost_of_the_action_that_only_the_choice_of_the_controller_sees():
    """K, k minimise stage cost + cost to go + 1/2 u'D_u u + u'D_x x; V is without D."""
    problem = oracles.random_problem(13)
    rng = np.random.default_rng(13)
    root = rng.normal(size=(6, 2, 2))
    D = np.concatenate([rng.normal(size=(6, 2, 3)), root @ root.mT], axis=2)
    solution = sweep(*arrays(problem), damping=jnp.asarray(D))
    x = rng.normal(size=3)
    for t in range(6):
        value, u = cost_of_action(problem, solution, t), np.asarray(solution.controller.act(t, x))

        def damped(u, t=t, value=value):
            return value(x, u) + 0.5 * u @ D[t, :, 3:] @ u + u @ D[t, :, :3] @ x

        np.testing.assert_allclose(slopes(damped, u), 0.0, atol=1e-9)
        chol = np.asarray(solution.controller.chol[t])
        np.testing.assert_allclose(chol @ chol.T, np.linalg.inv(curvatures(damped, 2)), rtol=1e-9)
        gap = cost_to_go(problem, solution, x, t) - cost_to_go(problem, solution, 0 * x, t)
        np.testing.assert_allclose(0.5 * x @ solution.V[t] @ x + solution.v[t] @ x, gap, rtol=1e-9)


def test_second_derivatives_give_the_exact_expansion_of_cost_and_value_of_the_next_state():
    """With x' = Az + c + 1/2 z'Sz, the step at t is the Newton step of cost(z) + V[t+1](x'(z)) at z = 0."""
    problem = oracles.random_problem(14)
    A, B, c, _ = problem.dynamics
    F, c, H, g = map(jnp.asarray, (np.concatenate([A, B], axis=2), c, *problem.cost[:2]))
    root = 0.05 * np.random.default_rng(14).normal(size=(6, 3, 5, 5))
    S = jnp.asarray(root + root.mT)
    solution = sweep(*arrays(problem), second=S)
    assert solution.status == lqr.Status.SOLVED
    plain = sweep(*arrays(problem))
    assert np.abs(solution.controller.K - plain.controller.K).max() > 0.1

    def total(z, t):
        following = F[t] @ z + c[t] + 0.5 * jnp.einsum("izw,z,w->i", S[t], z, z)
        V, v = solution.V[t + 1], solution.v[t + 1]
        return 0.5 * z @ H[t] @ z + g[t] @ z + 0.5 * following @ V @ following + v @ following

    slope_and_curvature = jax.jit(lambda t: (jax.grad(total)(jnp.zeros(5), t), jax.hessian(total)(jnp.zeros(5), t)))
    for t in range(6):
        q, Q = slope_and_curvature(t)
        K, k = -np.linalg.solve(Q[3:, 3:], Q[3:, :3]), -np.linalg.solve(Q[3:, 3:], q[3:])
        np.testing.assert_allclose(solution.controller.K[t], K, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(solution.controller.k[t], k, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(solution.V[t], Q[:3, :3] + Q[:3, 3:] @ K, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(solution.v[t], q[:3] + Q[:3, 3:] @ k, rtol=1e-8, atol=1e-10)
