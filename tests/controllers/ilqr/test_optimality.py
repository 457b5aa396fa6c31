"""Derivatives of solutions against finite differences of solves; in float64."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from controllers import ilqr
from controllers.ilqr import Constraints, LeastSquares, Options

TIGHT = Options(cost_tolerance=0.0, gradient_tolerance=0.0, method="ddp", hessian="exact")
T = 10
X0, US = np.array([-1.0, -0.4, 0.2]), np.zeros((T, 2))
PARAMS = {"drag": np.array(0.3), "goal": np.array([0.2, 0.1]), "weight": np.array(0.4), "least": np.array(-0.06)}
LIMITS = np.array([-0.04, -0.08]), np.array([0.5, 0.0])
STEP = 1e-3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def boat(x, u, t, p):
    """Position and heading; the actions turn it and push it."""
    push = 0.5 + u[1] - p["drag"] * u[1] ** 2
    return x + 0.3 * jnp.stack([push * jnp.cos(x[2]), push * jnp.sin(x[2]), u[0] + 0.3 * jnp.sin(x[0] + x[1])])


def residual(x, u, t, p):
    """Curved, so that J'J is not the Hessian of its squares."""
    return jnp.concatenate([p["weight"] * u + 0.2 * jnp.sin(x[:2]) * u, 0.3 * jnp.tanh(x) ** 2])


def final_residual(x, p):
    return 2.0 * jnp.append(x[:2] - p["goal"], x[2] * x[0])


def careful(x, u, t, p):
    """It must push, the less the further it is away, and not turn too far to the left."""
    return jnp.stack([p["least"] - 0.1 * x[0] ** 2 - u[1], x[2] - 0.4])


def arrive(x, p):
    return x[:1] - p["goal"][:1] + 0.1 * x[2:] ** 2


COST, FINAL = LeastSquares(residual), LeastSquares(final_residual)
CONSTRAINTS = Constraints(inequality=careful, final_equality=arrive)


def plain_cost(*args):
    return COST(*args)


def plain_final(*args):
    return FINAL(*args)


def solve(name, at, us=US, costs=(COST, FINAL)):
    """Solve for x0, params and limits in a dict."""
    return ilqr.solve(
        boat,
        costs[0],
        at["x0"],
        us,
        final_cost=costs[1],
        params=at["params"],
        limits=at["limits"] if name == "limits" else None,
        constraints=CONSTRAINTS if name == "constraints" else None,
        options=TIGHT,
    )


def roll_out(at, us):
    end, xs = jax.lax.scan(lambda x, ut: (boat(x, *ut, at["params"]), x), at["x0"], (us, jnp.arange(T)))
    J = jax.vmap(lambda x, u, t: COST(x, u, t, at["params"]))(xs, us, jnp.arange(T)).sum() + FINAL(end, at["params"])
    return jnp.concatenate([xs, end[None]]), us, J


@jax.jit
def dense_optimum(at, us, free, low):
    """States, actions and cost by Newton's method on all free actions together; the others are at their limits."""

    def total(flat):
        return roll_out(at, flat.reshape(T, 2))[2]

    def step(_, flat):
        H = jnp.where(free[:, None] & free, jax.hessian(total)(flat), jnp.eye(2 * T))
        return flat - jnp.linalg.solve(H, jnp.where(free, jax.grad(total)(flat), 0.0))

    start = jnp.where(free, us.ravel(), jnp.where(low, *(jnp.tile(limit, T) for limit in at["limits"])))
    return roll_out(at, jax.lax.fori_loop(0, 5, step, start).reshape(T, 2))


AT = jax.tree.map(np.asarray, {"x0": X0, "params": PARAMS, "limits": LIMITS})


def outcome(solution):
    """All that has derivatives."""
    return ravel_pytree((solution.states, solution.actions, solution.cost, solution.multipliers))[0]


class Case(NamedTuple):
    solution: ilqr.Solution
    forward: np.ndarray  # Jacobian of the outcome in all of AT, by forward mode
    backward: np.ndarray  # by reverse mode
    differences: np.ndarray


@functools.cache
def case(name):
    """Derivatives of a solve with Gauss-Newton Hessians, and differences of solutions that are exact.

    Gauss-Newton converges linearly and ends some 1e-7 from the optimum; it starts there, so as not to test that. With
    constraints the differences are of solves, whose polish ends at rounding.
    """
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, AT))
    solution = solve(name, AT, costs=(plain_cost, plain_final))
    value, push = jax.linearize(lambda z: outcome(solve(name, unravel(z), solution.actions)), flat)
    pull = jax.linear_transpose(push, flat)
    free, low = jnp.ones(2 * T, bool), jnp.zeros(2 * T, bool)
    if name == "limits":
        low, high = ((solution.actions == limit).ravel() for limit in LIMITS)
        free = ~(low | high)

    def moved(change):
        at = unravel(flat + change)
        if name == "constraints":
            return outcome(solve(name, at, costs=(plain_cost, plain_final)))
        return ravel_pytree(dense_optimum(at, solution.actions, free, low))[0]

    np.testing.assert_allclose(moved(0.0), value, atol=1e-7)
    differences = [  # of fourth order
        (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * STEP)
        for h in STEP * np.eye(len(flat))
    ]
    return Case(
        solution,
        np.asarray(jax.vmap(push)(jnp.eye(len(flat)))).T,
        np.asarray(jax.vmap(lambda w: pull(w)[0])(jnp.eye(len(value)))),
        np.stack(differences, axis=1),
    )


def assert_something_holds(name, solution):
    """Otherwise the derivatives would not depend on limits or constraints."""
    if name == "limits":
        us, (low, high) = np.asarray(solution.actions), LIMITS
        assert (us == low).any(0).all()
        assert (us == high).any(0)[0]
        assert 5 < ((us > low) & (us < high)).sum() < 15
    if name == "constraints":
        stage, final = solution.multipliers.stage, solution.multipliers.final
        assert ((stage > 1e-3).sum(0) >= 2).all()
        assert ((stage == 0.0).sum(0) >= 2).all()
        assert abs(final[0]) > 1e-2


@pytest.mark.parametrize("name", ["free", "limits", pytest.param("constraints", marks=pytest.mark.slow)])
def test_derivatives_are_those_of_the_solutions(name):
    """Of states, actions, cost and multipliers, with respect to the start state, all parameters and limits."""
    found = case(name)
    assert found.solution.converged
    assert_something_holds(name, found.solution)
    np.testing.assert_allclose(found.forward, found.differences, atol=1e-7)
    np.testing.assert_allclose(found.backward, found.forward, atol=1e-10)


WEIGHTS = np.sin(np.arange(2.0 * T))


def weighted(xs, us):
    """A scalar of a solution."""
    return WEIGHTS @ us.ravel() + xs[4] @ jnp.arange(3.0)


def test_gradients_under_jit_and_vmap_are_those_one_by_one():
    def of_solve(x0, params):
        solution = solve("free", {"x0": x0, "params": params})
        return weighted(solution.states, solution.actions)

    starts, step = X0 + np.array([[0.1, 0.2, -0.3], [0.0, 0.0, 0.0]]), 1e-4
    near, every = solve("free", {**AT, "x0": starts[0]}, costs=(plain_cost, plain_final)).actions, jnp.ones(2 * T, bool)

    def exact(x0):
        return weighted(*dense_optimum({**AT, "x0": x0}, near, every, ~every)[:2])

    gradients = jax.jit(jax.vmap(jax.grad(of_solve, argnums=(0, 1)), in_axes=(0, None)))(starts, PARAMS)
    differences = [(exact(starts[0] + h) - exact(starts[0] - h)) / (2.0 * step) for h in step * np.eye(3)]
    np.testing.assert_allclose(gradients[0][0], np.array(differences), atol=1e-6)
    weights = np.zeros(len(case("free").forward))
    weights[12:15], weights[33:53] = np.arange(3.0), WEIGHTS
    expected = weights @ case("free").forward
    for i, found in ((slice(-3, None), gradients[0]), (slice(4, -3), ravel_rows(gradients[1]))):
        np.testing.assert_allclose(found[1], expected[i], atol=1e-6)


def ravel_rows(tree):
    """Leaves with one leading axis as rows."""
    return jax.vmap(lambda leaves: ravel_pytree(leaves)[0])(tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["free", "constraints"])
def test_second_derivatives_are_exact_too(name):
    """Of actions, against differences of first derivatives."""

    def some(x0):
        return solve(name, {**AT, "x0": x0}, costs=(plain_cost, plain_final)).actions[2:5].ravel()

    first, x0 = jax.jacrev(some), jnp.asarray(X0)
    both = jax.jit(lambda x0: (first(x0), jax.jacfwd(first)(x0)))
    differences = [(both(x0 + h)[0] - both(x0 - h)[0]) / 2e-4 for h in 1e-4 * np.eye(3)]
    second = both(x0)[1]
    assert np.abs(second).max() > 1.0
    np.testing.assert_allclose(second, np.stack(differences, axis=-1), atol=1e-5)


def test_gradient_of_the_cost_is_its_derivative_with_the_actions_held():
    """The envelope theorem, with limits too."""
    found = case("limits")

    def cost_of(params):
        x, total = jnp.asarray(X0), 0.0
        for t, u in enumerate(found.solution.actions):
            x, total = boat(x, u, t, params), total + COST(x, u, t, params)
        return total + FINAL(x, params)

    expected = ravel_pytree(jax.grad(cost_of)(PARAMS))[0]
    np.testing.assert_allclose(found.forward[3 * (T + 1) + 2 * T, 4:-3], expected, atol=1e-7)


def test_start_of_the_iterations_and_what_is_no_solution_have_no_gradient():
    """The initial actions do not matter; feedback and diagnostics are constants to differentiation."""

    def of(x0, us):
        s = solve("free", {"x0": x0, "params": PARAMS}, us)
        diagnostics = s.K.sum() + s.chol.sum() + s.gradient_norm + s.regularization + s.gap + jnp.nansum(s.trace.cost)
        return s.actions.sum() + s.states.sum() + s.cost, diagnostics

    _, pull = jax.vjp(of, jnp.asarray(X0), jnp.asarray(US))
    of_x0, of_us = pull((1.0, 0.0))
    assert np.abs(of_x0).max() > 0.1
    np.testing.assert_array_equal(of_us, 0.0)
    for gradient in pull((0.0, 1.0)):
        np.testing.assert_array_equal(gradient, 0.0)


def closing_over(weight):
    """A cost that depends on the weight behind the back of the solver."""
    return ilqr.solve(lambda x, u, t: x + u, lambda x, u, t: weight * x @ x + u @ u, np.ones(1), np.zeros((2, 1))).cost


def test_differentiation_in_what_a_function_closes_over_is_refused():
    for derivative in (jax.grad(closing_over), jax.jacfwd(closing_over), jax.jit(jax.grad(closing_over))):
        with pytest.raises(ValueError, match="closes over a value that is being differentiated"):
            derivative(1.0)
    with pytest.raises(TypeError):  # from JAX, which sees it too late to say why
        jax.grad(jax.jit(closing_over))(1.0)
