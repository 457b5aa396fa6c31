"""Constraints against scipy's SLSQP and the optimality conditions written without ours; in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from controllers import ilqr
from controllers.ilqr import Constraints, Options, Status

TIGHT = Options(cost_tolerance=1e-12, gradient_tolerance=1e-9)
T = 12
X0, US = np.array([-1.5, -0.3, 0.0, 1.0]), np.zeros((T, 2))
LIMITS = np.array([-0.7, -0.4]), np.array([0.9, 0.4])
PARAMS = {"centre": np.array([-0.7, -0.2]), "goal": np.array([0.1, -0.1]), "grip": np.array(0.6)}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def car(x, u, t, *_):
    """Position, heading and speed of a car; the actions are the curvature of its path and its acceleration."""
    return x + 0.2 * jnp.stack([x[3] * jnp.cos(x[2]), x[3] * jnp.sin(x[2]), x[3] * u[0], u[1]])


def cost(x, u, t, *_):
    return 0.2 * u[0] ** 2 + 0.1 * u[1] ** 2 + 0.01 * (x[0] ** 2 + x[1] ** 2)


def final_cost(x, *_):
    return (x**2).sum()


# Two sets of constraints: all kinds with parameters and limits; and two kinds without.


def tied(x, u, t, p):
    """Acceleration and heading are tied together at one moment."""
    return jnp.where(t == 2, u[1:] - 0.2 * x[2:3], 0.0)


def keep_off(x, u, t, p):
    """A disc that the car must not enter, and the grip of its tyres."""
    return jnp.stack([0.2**2 - ((x[:2] - p["centre"]) ** 2).sum(), x[3] ** 2 * u[0] - p["grip"]])


def arrive(x, p):
    return x[:2] - p["goal"]


def slow(x, p):
    return jnp.stack([x[3] - 0.5 * p["grip"], x[2] - 1.0])


def coupled(x, u, t):
    """Steering brakes, in the first half."""
    return jnp.where(t < 6, u[1:] + 0.3 + 0.5 * u[:1] ** 2 + 0.1 * x[3:], 0.0)


def aligned(x):
    return jnp.stack([x[3] - 0.1, x[2] + 0.1, -x[3] - 5.0])


CASES = {
    "all": (Constraints(tied, keep_off, arrive, slow), PARAMS, LIMITS),
    "two": (Constraints(equality=coupled, final_inequality=aligned), None, None),
}


def solve(case, x0=X0, us=US, options=TIGHT):
    constraints, params, limits = CASES[case]
    return ilqr.solve(
        car,
        cost,
        x0,
        us,
        final_cost=final_cost,
        params=params,
        limits=limits,
        constraints=constraints,
        options=options,
    )


def rolled_out(case):
    """Functions of all actions, written without ours: J, and values of equalities and of inequalities.

    Values at each time and then at the end.
    """
    c, params, _ = CASES[case]
    args = () if params is None else (params,)

    def path(actions):
        """The end state, and x, u, t of every time."""
        times = jnp.arange(T)
        end, xs = jax.lax.scan(lambda x, ut: (car(x, *ut), x), jnp.asarray(X0), (actions, times))
        return end, (xs, actions, times)

    def J(actions):
        end, stages = path(actions)
        return jax.vmap(cost)(*stages).sum() + final_cost(end)

    def values(stage, final):
        def of(actions):
            end, stages = path(actions)
            rows = [] if stage is None else [jax.vmap(lambda *xut: stage(*xut, *args))(*stages).ravel()]
            return jnp.concatenate([jnp.zeros(0), *rows, *([] if final is None else [final(end, *args)])])

        return of

    return J, values(c.equality, c.final_equality), values(c.inequality, c.final_inequality)


@pytest.fixture(scope="module")
def references():
    """[J, equalities, inequalities] and their derivatives by the flat actions, compiled as one function."""

    def everything(case):
        parts = [lambda flat, f=f: f(flat.reshape(T, 2)) for f in rolled_out(case)]
        both = jax.jit(lambda flat: ([f(flat) for f in parts], [jax.jacobian(f)(flat) for f in parts]))
        return lambda flat: jax.tree.map(np.asarray, both(np.ravel(flat)))

    return {case: everything(case) for case in CASES}


@pytest.fixture(scope="module")
def solutions():
    with jax.enable_x64():
        return {case: solve(case) for case in CASES}


def multipliers_like(values, solution, case):
    """Our multipliers in the order of the references: those of equalities, and those of inequalities."""
    stage, final = np.asarray(solution.multipliers.stage), np.asarray(solution.multipliers.final)
    n, m = (1, 2) if case == "all" else (1, 0)
    return np.append(stage[:, :n], final[:m]), np.append(stage[:, n:], final[m:])


@pytest.mark.parametrize("case", list(CASES))
def test_solution_is_that_of_slsqp(case, solutions, references):
    solution, limits, at = solutions[case], CASES[case][2], references[case]
    does = [np.abs(J).reshape(-1, 2 * T).max(1) > 0.0 for J in at(US + 0.1)[1]]  # rows that depend on the actions

    def constraint(kind, i, sign):
        return {
            "type": kind,
            "fun": lambda flat: sign * at(flat)[0][i][does[i]],
            "jac": lambda flat: sign * at(flat)[1][i][does[i]],
        }

    other = minimize(
        lambda flat: (float(at(flat)[0][0]), at(flat)[1][0]),
        US.ravel(),
        jac=True,
        bounds=None if limits is None else list(zip(*(np.tile(limit, T) for limit in limits), strict=True)),
        constraints=[constraint("eq", 1, 1.0), constraint("ineq", 2, -1.0)],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert other.success
    assert solution.converged
    np.testing.assert_allclose(solution.cost, other.fun, rtol=1e-7)
    np.testing.assert_allclose(np.ravel(solution.actions), other.x, atol=1e-4)


@pytest.mark.parametrize("case", list(CASES))
def test_multipliers_satisfy_the_optimality_conditions(case, solutions, references):
    solution, limits = solutions[case], CASES[case][2]
    (J, equal, below), (slope, equal_slope, below_slope) = references[case](solution.actions)
    m_equal, m_below = multipliers_like(equal, solution, case)
    np.testing.assert_allclose(solution.cost, J, rtol=1e-12)
    np.testing.assert_allclose(equal, 0.0, atol=1e-9)
    assert below.max() < 1e-9
    assert (m_below >= 0.0).all()
    np.testing.assert_allclose(m_below * below, 0.0, atol=1e-8)
    assert (m_below > 0.01).sum() >= 2
    assert (np.abs(m_equal) > 0.01).sum() >= 3
    gradient, us = slope + m_equal @ equal_slope + m_below @ below_slope, np.ravel(solution.actions)
    if limits is None:
        np.testing.assert_allclose(gradient, 0.0, atol=1e-8)
        return
    low, high = (np.tile(limit, T) for limit in limits)
    assert ((low <= us) & (us <= high)).all()
    assert (us == low).any()
    assert (us == high).any()
    assert (gradient[us == low] > 0.0).all()
    assert (gradient[us == high] < 0.0).all()
    np.testing.assert_allclose(gradient[(us > low) & (us < high)], 0.0, atol=1e-8)


def test_polish_finishes_what_the_rounds_leave(solutions, references):
    """The rounds end within the tolerance on violations; the Newton steps after them end at rounding."""
    rounds = solve("two", options=dataclasses.replace(TIGHT, polish=0))

    def missing(solution):
        (_, equal, below), (slope, equal_slope, below_slope) = references["two"](solution.actions)
        m_equal, m_below = multipliers_like(equal, solution, "two")
        stationarity = np.abs(slope + m_equal @ equal_slope + m_below @ below_slope).max()
        return max(stationarity, np.abs(equal).max(), below.max(), np.abs(m_below * below).max())

    assert rounds.converged
    assert 1e-9 < missing(rounds) < 1e-5
    assert missing(solutions["two"]) < 1e-13
    _, equal, below = references["two"](rounds.actions)[0]
    np.testing.assert_allclose(rounds.violation, max(np.abs(equal).max(), below.max()), rtol=1e-9)


def test_too_few_rounds_are_no_verdict_on_the_constraints():
    solution = solve("two", options=dataclasses.replace(TIGHT, rounds=1, polish=0))
    assert solution.violation > TIGHT.constraint_tolerance
    assert int(solution.status) == Status.ITERATION_LIMIT


def test_constraints_that_exclude_each_other_are_reported_and_leave_the_others_of_a_batch_alone():
    """Minimise u^2 where p <= u <= q, for three pairs; only the second has no u. The worst violation is least at 0."""
    between = Constraints(inequality=lambda x, u, t, pq: jnp.concatenate([pq[0] - u, u - pq[1]]))

    def solve(pq):
        return ilqr.solve(
            lambda x, u, t, pq: x,
            lambda x, u, t, pq: u @ u,
            np.zeros(1),
            np.full((2, 1), 0.3),
            params=pq,
            constraints=between,
            options=Options(batching="lockstep"),
        )

    together = jax.jit(jax.vmap(solve))(np.array([[0.5, 2.0], [1.0, -1.0], [-2.0, -1.5]]))
    assert together.converged.tolist() == [True, False, True]
    assert int(together.status[1]) == Status.CONSTRAINTS_VIOLATED
    np.testing.assert_allclose(together.violation, [0.0, 1.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(together.actions[::2, :, 0], [[0.5, 0.5], [-1.5, -1.5]], atol=1e-9)
    np.testing.assert_allclose(together.multipliers.stage[0], [[1.0, 0.0]] * 2, atol=1e-9)  # 2 |u|
    np.testing.assert_allclose(together.multipliers.stage[2], [[0.0, 3.0]] * 2, atol=1e-9)
    assert "constraints violated" in str(jax.tree.map(lambda a: a[1], together))


def test_float32_reaches_a_tolerance_that_it_can(solutions):
    with jax.enable_x64(False):
        solution = solve("two", X0.astype(np.float32), US.astype(np.float32), Options(constraint_tolerance=1e-4))
    assert {leaf.dtype for leaf in jax.tree.leaves(solution)} == {np.dtype(np.float32), np.dtype(np.int32)}
    assert solution.converged
    assert solution.violation <= 1e-4
    np.testing.assert_allclose(solution.cost, solutions["two"].cost, rtol=1e-4)
    np.testing.assert_allclose(solution.actions, solutions["two"].actions, atol=2e-3)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(equality=lambda x, u, t: u[0]), r"^equality must return float64 of shape \(n,\), not .*\(\)"),
        (Constraints(inequality=lambda x, u, t: x[None]), r"^inequality must return .* not float64 of shape \(1, 4\)"),
        (Constraints(final_equality=lambda x: (x,)), r"^final_equality must return .* not a tuple"),
        (Constraints(final_inequality=lambda x: x > 0.0), r"^final_inequality must return .* not bool of shape \(4,\)"),
    ],
)
def test_wrong_shapes_are_refused(constraints, message):
    with pytest.raises(ValueError, match=message):
        ilqr.solve(car, cost, X0, US, constraints=constraints)
