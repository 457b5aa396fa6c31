"""The solver that is parallel in time against the sweep, dense solves and loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from controllers import lqr, lqr_parallel
from controllers.types import LinearDynamics, QuadraticCost

sweep = jax.jit(lqr.backward_pass)
at_once = jax.jit(lqr_parallel.backward_pass, static_argnames="block")
T, BLOCK = 11, 4  # of most problems here: the last block is not full


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def arrays(problem, dtype=None):
    """Dynamics and cost as the classes under test."""
    cast = functools.partial(jnp.asarray, dtype=dtype)
    return LinearDynamics(*map(cast, problem.dynamics)), QuadraticCost(*map(cast, problem.cost))


def solve(problem, temperature=1.0, regularization=0.0, block=BLOCK):
    """In one compiled program for all problems of equal size."""
    dynamics, cost = arrays(problem)
    temperature = jnp.broadcast_to(jnp.asarray(temperature), cost.c.shape)
    return at_once(dynamics, cost, temperature, jnp.asarray(regularization), block=block)


def assert_same(ours, theirs, rtol=1e-9, first=0):
    """Equal solutions from step `first` on, to a part of the largest number of each step."""
    assert ours.status == theirs.status
    pairs = [(getattr(ours.controller, name), getattr(theirs.controller, name)) for name in ("K", "k", "chol")]
    for a, b in [*pairs, (ours.V, theirs.V), (ours.v, theirs.v)]:
        a, b = np.asarray(a, np.float64)[first:], np.asarray(b, np.float64)[first:]
        scale = np.maximum(np.abs(b).max(axis=tuple(range(1, b.ndim)), keepdims=True), 1e-6)
        np.testing.assert_allclose(a / scale, b / scale, atol=rtol)


@pytest.mark.parametrize(("horizon", "block"), [(T, BLOCK), (1, BLOCK), (7, 40), (8, 1)])
def test_solution_is_that_of_the_sweep(horizon, block):
    """Also for one step, one block, and as many blocks as steps."""
    problem = oracles.random_problem(0, T=horizon)
    temperature = np.linspace(0.1, 2.0, horizon)
    theirs = sweep(*arrays(problem), temperature)
    ours = solve(problem, temperature, block=block)
    assert_same(ours, theirs)
    np.testing.assert_allclose(ours.slope, theirs.slope, rtol=1e-9)
    np.testing.assert_allclose(ours.curvature, theirs.curvature, rtol=1e-9)


def test_actions_are_optimal_from_any_state():
    problem = oracles.random_problem(1, T=T)
    controller = solve(problem).controller
    for x0 in 3.0 * np.random.default_rng(0).normal(size=(3, 3)):
        us, _ = oracles.optimal_actions(problem, x0)
        taken = oracles.follow(problem, np.asarray(controller.K), np.asarray(controller.k), x0)[1]
        np.testing.assert_allclose(taken, us, rtol=1e-9, atol=1e-9)


def test_regularization_is_a_cost_of_every_action_and_no_part_of_the_predicted_change():
    problem = oracles.random_problem(2, T=T)
    regularization = 3.0
    ours = solve(problem, regularization=regularization)
    H = problem.cost[0] + regularization * np.diag([0.0, 0.0, 0.0, 1.0, 1.0])
    assert_same(ours, sweep(*arrays(problem._replace(cost=(H, *problem.cost[1:])))))

    K, k = np.asarray(ours.controller.K), np.asarray(ours.controller.k)
    A, B, c, cov = problem.dynamics

    def cost(alpha):
        """Of the path from zero with the part alpha of k and of c."""
        part = problem._replace(dynamics=(A, B, alpha * c, cov))
        return oracles.path_cost(problem, *oracles.follow(part, K, alpha * k, np.zeros(3)))

    for alpha in (-1.0, 0.3, 1.0, 2.0):
        predicted = alpha * ours.slope + 0.5 * alpha**2 * ours.curvature
        np.testing.assert_allclose(cost(alpha) - cost(0.0), predicted, rtol=1e-10)


def test_indefinite_step_spoils_itself_and_what_comes_before():
    problem = oracles.random_problem(3, T=T)
    H = problem.cost[0].copy()
    H[5, 3:, 3:] -= 100.0 * np.eye(2)
    ours, sound = solve(problem._replace(cost=(H, *problem.cost[1:]))), solve(problem)
    assert ours.status == lqr.Status.INDEFINITE
    assert sound.status == lqr.Status.SOLVED
    assert np.isnan(np.asarray(ours.controller.K)[:6]).all()
    assert np.isnan(np.asarray(ours.controller.k)[:6]).all()
    assert_same(dataclasses.replace(ours, status=sound.status), sound, first=6)


def test_saddle_is_not_solved_with_a_gain_of_the_wrong_sign():
    """Only with the value function itself is Q_uu indefinite: with the guess of it, it is positive definite."""
    problem = oracles.random_problem(4, T=T)
    *_, H_final, g_final, c_final = problem.cost
    A, B, *rest = problem.dynamics
    H = problem.cost[0].copy()
    H[:, :3], H[:, :, :3] = 0.0, 0.0  # so that the cost to go falls from step to step
    H[2, 3:, 3:] = -1e-3 * np.eye(2)
    shrinking = (0.5 * A, B, *rest)
    cost = (H, problem.cost[1], problem.cost[2], 10.0 * H_final, g_final, c_final)
    hollow = problem._replace(dynamics=shrinking, cost=cost)
    assert (np.linalg.eigvalsh(B[2].T @ (10.0 * H_final) @ B[2]) > 1e-2).all()
    assert sweep(*arrays(hollow)).status == lqr.Status.INDEFINITE
    assert solve(hollow).status == lqr.Status.INDEFINITE


@pytest.mark.parametrize(("field", "index"), [("H", (9, 4, 4)), ("g", (2, 4)), ("H_final", (0, 0)), ("g_final", (1,))])
def test_input_that_is_not_finite_is_reported(field, index):
    problem = oracles.random_problem(5, T=T)
    names = [f.name for f in dataclasses.fields(QuadraticCost)]
    cost = [np.array(a) for a in problem.cost]
    cost[names.index(field)][index] = np.nan
    assert solve(problem._replace(cost=tuple(cost))).status == lqr.Status.INDEFINITE


def test_bad_member_of_a_batch_leaves_the_others_alone():
    problems = [oracles.random_problem(seed, T=T) for seed in (6, 7, 8)]
    problems[1].cost[0][2, 3:, 3:] -= 100.0 * np.eye(2)
    dynamics, cost = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(arrays, problems))
    batch = jax.jit(jax.vmap(lqr_parallel.backward_pass))(dynamics, cost)
    assert batch.status.tolist() == [lqr.Status.SOLVED, lqr.Status.INDEFINITE, lqr.Status.SOLVED]
    for i in (0, 2):
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], batch), sweep(*arrays(problems[i])))


@pytest.mark.parametrize("final", [1.0, 0.0, 1e4])
def test_cheap_actions_are_sound_in_float32(final):
    """Also where the terminal cost, which the guess starts from, is nothing like the cost to go."""
    problem = oracles.badly_scaled_problem(9, drift=0.1)
    H_final, *rest = problem.cost[3:]
    problem = problem._replace(cost=(*problem.cost[:3], final * H_final, *rest))
    exact = sweep(*arrays(problem))
    single = at_once(*arrays(problem, jnp.float32))
    assert {a.dtype for a in jax.tree.leaves(single)} - {single.status.dtype} == {jnp.dtype("float32")}
    assert_same(single, exact, rtol=5e-4)
    np.testing.assert_allclose(single.slope, exact.slope, rtol=1e-4)


@pytest.mark.parametrize("horizon", [1, 7, 32])
def test_rollout_is_a_loop(horizon):
    rng = np.random.default_rng(horizon)
    A, b, x = rng.normal(size=(horizon, 3, 3)), rng.normal(size=(horizon, 3)), rng.normal(size=3)
    xs = [x]
    for t in range(horizon):
        xs.append(A[t] @ xs[-1] + b[t])
    np.testing.assert_allclose(lqr_parallel.rollout(*map(jnp.asarray, (A, b, x))), xs, rtol=1e-11)


def test_suffixes_keep_the_order():
    """Of words, an operation that does not commute: 2 x 2 matrices of determinant 1."""
    pieces = np.random.default_rng(0).integers(-2, 3, size=(13, 2, 2)).astype(float)
    made = lqr_parallel.suffixes(lambda first, second: first @ second, jnp.asarray(pieces))
    for t in range(13):
        np.testing.assert_allclose(made[t], functools.reduce(np.matmul, pieces[t:]), atol=1e-9)


def test_block_below_one_is_refused():
    with pytest.raises(ValueError, match="block must be at least 1, not 0"):
        lqr_parallel.backward_pass(*arrays(oracles.random_problem(0)), block=0)
