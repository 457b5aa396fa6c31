"""Control limits against scipy's L-BFGS-B; in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from controllers import ilqr
from controllers.ilqr import Options

TIGHT = Options(cost_tolerance=1e-14, gradient_tolerance=1e-10)
T = 12
X0, US = np.array([-1.5, -0.8, 0.0, 1.0]), np.zeros((T, 2))
LOW, HIGH = np.array([-0.5, -0.6]), np.array([0.7, 0.2])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def car(x, u, t):
    """Position, heading and speed of a car; the actions are the curvature of its path and its acceleration."""
    return x + 0.2 * jnp.stack([x[3] * jnp.cos(x[2]), x[3] * jnp.sin(x[2]), x[3] * u[0], u[1]])


def cost(x, u, t):
    return 0.05 * u[0] ** 2 + 0.02 * u[1] ** 2 + 0.01 * (x[0] ** 2 + x[1] ** 2)


def final_cost(x):
    return 3.0 * (x**2).sum()


def solve(limits, x0=X0, us=US, options=TIGHT):
    return ilqr.solve(car, cost, x0, us, final_cost=final_cost, limits=limits, options=options)


@jax.jit
@jax.value_and_grad
def objective(actions):
    """J, written without ours."""

    def step(t, sofar):
        x, value = sofar
        return car(x, actions[t], t), value + cost(x, actions[t], t)

    x, value = jax.lax.fori_loop(0, T, step, (jnp.asarray(X0), 0.0))
    return value + final_cost(x)


def scipy_minimum(low, high):
    def flat(actions):
        value, gradient = objective(actions.reshape(T, 2))
        return float(value), np.asarray(gradient).ravel()

    bounds = [(a, b) for a, b in zip(np.ravel(low), np.ravel(high), strict=True)]
    return minimize(
        flat, US.ravel(), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-16}
    )


def over_time():
    """Limits that change with time and do not always contain zero."""
    low = LOW + 0.3 * np.sin(np.arange(T))[:, None]
    high = HIGH - 0.1 * np.cos(np.arange(T))[:, None]
    low[5], high[5] = 0.25, 0.4
    low[8, 0] = high[8, 0] = 0.1  # no choice
    return low, high


@pytest.fixture(scope="module")
def solutions():
    """Solutions and their limits, written out for every time and action."""
    limits = {"per action": (LOW, HIGH), "numbers": (-0.5, 0.4), "per time": over_time()}
    with jax.enable_x64():
        return {
            name: (solve(pair), *(np.broadcast_to(limit, (T, 2)) for limit in pair)) for name, pair in limits.items()
        }


@pytest.mark.parametrize("name", ["per action", "numbers", "per time"])
def test_solution_is_as_good_as_that_of_scipy(name, solutions):
    solution, low, high = solutions[name]
    other = scipy_minimum(low, high)
    assert solution.converged
    np.testing.assert_allclose(solution.cost, objective(solution.actions)[0], rtol=1e-12)
    np.testing.assert_allclose(solution.cost, other.fun, rtol=1e-8)
    np.testing.assert_allclose(solution.actions.ravel(), other.x, atol=1e-3)


@pytest.mark.parametrize("name", ["per action", "numbers", "per time"])
def test_actions_are_inside_and_exactly_at_their_limits(name, solutions):
    solution, low, high = solutions[name]
    us, gradient = np.asarray(solution.actions), np.asarray(objective(solution.actions)[1])
    assert ((low <= us) & (us <= high)).all()
    at_low, at_high = us == low, us == high
    assert at_low.sum() > 1
    assert at_high.sum() > 1
    assert (~at_low & ~at_high).sum() > 3
    assert (gradient[at_low & ~at_high] > 0.0).all()
    assert (gradient[at_high & ~at_low] < 0.0).all()
    np.testing.assert_allclose(gradient[~at_low & ~at_high], 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["per action", "per time"])
def test_actions_at_a_limit_have_no_feedback_and_no_noise(name, solutions):
    solution, low, high = solutions[name]
    held = (solution.actions == low) | (solution.actions == high)
    np.testing.assert_array_equal(solution.K[held], 0.0)
    np.testing.assert_array_equal(solution.chol[held], 0.0)
    assert (np.abs(solution.K).max(2)[~held] > 1e-3).all()
    assert (np.abs(solution.chol).max(2)[~held] > 1e-3).all()


def test_gradient_is_reported_without_what_the_limits_hold(solutions):
    solution = solutions["per action"][0]
    assert np.abs(objective(solution.actions)[1]).max() > 0.1
    assert solution.gradient_norm < 1e-6
    first = solve((0.0, 0.9)).trace.gradient_norm[0]  # all actions start at their low limits
    gradient = np.asarray(objective(US)[1])
    assert gradient.max() > -1.5 * gradient.min() > 1.0  # the largest component is held
    np.testing.assert_allclose(first, -gradient.min(), rtol=1e-10)


def test_initial_actions_outside_are_brought_inside():
    outside = np.where(np.arange(T)[:, None] % 2, 3.0, -3.0) * np.ones(2)
    solution = solve((-0.5, 0.4), us=outside)
    np.testing.assert_allclose(solution.trace.cost[0], objective(np.clip(outside, -0.5, 0.4))[0], rtol=1e-12)
    assert (np.abs(solution.actions + 0.05) <= 0.45 + 1e-15).all()


def test_infinite_limits_are_none():
    without, infinite = solve(None), solve((-np.inf, np.inf))
    assert (np.asarray(without.actions) > 0.9).any()  # the limits of the other tests do hold something
    for name in ("states", "actions", "K", "chol", "cost", "trace"):
        ours, theirs = (jax.tree.leaves(getattr(s, name)) for s in (infinite, without))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    assert (int(infinite.iterations), int(infinite.status)) == (int(without.iterations), int(without.status))


def test_one_limit_may_be_infinite():
    solution = solve((np.array([-np.inf, -0.6]), np.array([0.7, np.inf])))
    other = scipy_minimum(np.tile([-np.inf, -0.6], (T, 1)), np.tile([0.7, np.inf], (T, 1)))
    np.testing.assert_allclose(solution.cost, other.fun, rtol=1e-8)


def test_vmap_over_limits_is_the_same_as_one_by_one(solutions):
    lows, highs = (np.stack([s[i] for s in solutions.values()]) for i in (1, 2))
    together = jax.jit(jax.vmap(lambda *limits: solve(limits)))(lows, highs)
    for i, (alone, _, _) in enumerate(solutions.values()):
        np.testing.assert_allclose(together.actions[i], alone.actions, atol=1e-7)
        np.testing.assert_allclose(together.K[i], alone.K, atol=1e-6)
        np.testing.assert_allclose(together.cost[i], alone.cost, rtol=1e-12)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0.5, -0.5), r"limits must have low <= high, not 0.5 and -0.5 for action 0 at t = 0"),
        ((LOW, np.array([1.0, -0.7])), r"low <= high, not -0.6 and -0.7 for action 1 at t = 0"),
        ((np.nan, 1.0), r"low <= high, not nan and 1.0"),
        ((np.zeros(3), 1.0), r"low of limits must fit one action, \(2,\), or us, not \(3,\)"),
        ((-1.0, np.zeros((T + 1, 2))), r"high of limits must fit one action, \(2,\), or us, not \(13, 2\)"),
        ((-1.0, {"a": 1.0}), r"high of limits must fit"),
        ((-1.0, "one"), r"high of limits must fit"),
        ((-1.0,), r"limits must be a pair \(low, high\), not \(-1.0,\)"),
        (1.0, r"limits must be a pair \(low, high\), not 1.0"),
    ],
)
def test_impossible_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        solve(limits)
