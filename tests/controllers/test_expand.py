"""Quadratic expansions against hand-written derivatives, and their treatment against matrix functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from support import oracles

from controllers import expand
from controllers.types import QuadraticCost

T = 4
quadratize = jax.jit(expand.quadratize, static_argnums=(0, 1), static_argnames="hessian")
RNG = np.random.default_rng(0)
XS, US = RNG.normal(size=(T + 1, 2)), RNG.normal(size=(T, 1))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def stage(x, u, t):
    """Its Hessian is indefinite at most points."""
    return jnp.sin(x[0]) * x[1] + (t + 1.0) * x[0] * u[0] ** 2 + 0.3 * u[0]


def final(x):
    return x[0] ** 2 * x[1] - jnp.cos(x[1])


def stage_by_hand(x, u, t):
    """Value, gradient and Hessian of `stage` in (x[0], x[1], u)."""
    a, b, w, s = x[0], x[1], u[0], t + 1.0
    value = np.sin(a) * b + s * a * w**2 + 0.3 * w
    gradient = [np.cos(a) * b + s * w**2, np.sin(a), 2 * s * a * w + 0.3]
    hessian = [[-np.sin(a) * b, np.cos(a), 2 * s * w], [np.cos(a), 0.0, 0.0], [2 * s * w, 0.0, 2 * s * a]]
    return value, np.array(gradient), np.array(hessian)


def final_by_hand(x):
    a, b = x
    hessian = [[2 * b, 2 * a], [2 * a, np.cos(b)]]
    return a**2 * b - np.cos(b), np.array([2 * a * b, a**2 + np.sin(b)]), np.array(hessian)


TREATMENTS = {
    "exact": lambda H: H,
    "clip": lambda H: 0.5 * (H + scipy.linalg.sqrtm(H @ H).real),  # the positive part, by the polar decomposition
    "flip": lambda H: scipy.linalg.sqrtm(H @ H).real,
}


@pytest.mark.parametrize("hessian", TREATMENTS)
def test_expansion_matches_derivatives_by_hand(hessian):
    cost = quadratize(stage, final, jnp.asarray(XS), jnp.asarray(US), hessian=hessian)
    for t in range(T):
        value, gradient, second = stage_by_hand(XS[t], US[t], t)
        assert np.linalg.eigvalsh(second)[0] < -0.1  # otherwise the treatments would not differ
        np.testing.assert_allclose(cost.c[t], value, rtol=1e-12)
        np.testing.assert_allclose(cost.g[t], gradient, rtol=1e-12)
        np.testing.assert_allclose(cost.H[t], TREATMENTS[hessian](second), rtol=1e-7, atol=1e-7)
    value, gradient, second = final_by_hand(XS[-1])
    np.testing.assert_allclose(cost.c_final, value, rtol=1e-12)
    np.testing.assert_allclose(cost.g_final, gradient, rtol=1e-12)
    np.testing.assert_allclose(cost.H_final, TREATMENTS[hessian](second), rtol=1e-7, atol=1e-7)


def test_negative_eigenvalues_are_clipped_by_default():
    default = quadratize(stage, final, jnp.asarray(XS), jnp.asarray(US))
    clipped = quadratize(stage, final, jnp.asarray(XS), jnp.asarray(US), hessian="clip")
    np.testing.assert_array_equal(default.H, clipped.H)
    assert (np.linalg.eigvalsh(default.H)[:, 0] > -1e-12).all()


@pytest.mark.parametrize("hessian", ["clip", "flip"])
def test_positive_definite_matrices_are_left_as_they_are(hessian):
    H = oracles.random_covariance(np.random.default_rng(1), 5)
    np.testing.assert_allclose(expand.treat(jnp.asarray(H), hessian), H, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(expand.treat(jnp.eye(3), hessian), np.eye(3), atol=1e-14)  # one eigenvalue, thrice


def quadratic(weights, x, u, *_):
    return 0.5 * (weights[:2] @ x**2 + weights[2] * u[0] ** 2) + x[0] * u[0]


@pytest.mark.parametrize(
    ("weights", "params", "left_out"),
    [
        ([2.0, 0.1, 1.0], False, True),  # convex
        ([2.0, 0.1, 0.4], False, False),  # indefinite: 2 * 0.4 < 1
        ([2.0, 0.1, 1.0], True, False),  # not known when it is compiled
    ],
)
def test_eigenvalues_are_left_out_where_a_quadratic_cost_is_known_to_be_convex(weights, params, left_out):
    def cost(x, u, t, *given):
        return quadratic(*given, x, u) if given else quadratic(jnp.array(weights), x, u)

    args = (jnp.array(weights),) if params else ()
    expand_it = jax.jit(
        lambda args: expand.quadratize(cost, lambda x, *_: x @ x, jnp.asarray(XS), jnp.asarray(US), args=args)
    )
    assert ("syevd" not in expand_it.lower(args).as_text()) == left_out
    second = np.diag(weights) + np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(expand_it(args).H, np.broadcast_to(TREATMENTS["clip"](second), (T, 3, 3)), atol=1e-7)


def test_unknown_treatment_is_refused_before_the_cost_is_traced():
    def untraceable(*_):
        raise AssertionError("traced")

    with pytest.raises(ValueError, match=r"'clamp'.*exact, clip, flip"):
        expand.quadratize(untraceable, untraceable, jnp.asarray(XS), jnp.asarray(US), "clamp")


def test_recentred_expansion_is_the_same_function():
    """As a function of the actions and states themselves, wherever the origin of the deviations lies."""
    problem = oracles.random_problem(0)
    cost = QuadraticCost(*map(jnp.asarray, problem.cost))
    rng = np.random.default_rng(2)
    dx, du, ex, eu = (rng.normal(size=s) for s in ((7, 3), (6, 2), (7, 3), (6, 2)))
    moved = expand.recentre(cost, jnp.asarray(dx), jnp.asarray(du))
    parts = (moved.H, moved.g, moved.c, moved.H_final, moved.g_final, moved.c_final)
    moved_problem = problem._replace(cost=tuple(map(np.asarray, parts)))
    for size in (0.0, 1.0, -2.0):  # value, gradient and Hessian along one line
        value = oracles.path_cost(moved_problem, size * ex, size * eu)
        np.testing.assert_allclose(value, oracles.path_cost(problem, dx + size * ex, du + size * eu), rtol=1e-11)
    back = expand.recentre(moved, -jnp.asarray(dx), -jnp.asarray(du))
    np.testing.assert_allclose(back.g, cost.g, atol=1e-12)
    np.testing.assert_allclose(back.c, cost.c, atol=1e-11)


def test_recentring_a_quadratic_equals_expanding_it_there():
    problem = oracles.random_problem(1)
    H, g, c, H_final, g_final, c_final = map(jnp.asarray, problem.cost)

    def quadratic_stage(x, u, t):
        z = jnp.concatenate([x, u])
        return 0.5 * z @ H[t] @ z + g[t] @ z + c[t]

    def quadratic_final(x):
        return 0.5 * x @ H_final @ x + g_final @ x + c_final

    rng = np.random.default_rng(3)
    xs, us = jnp.asarray(rng.normal(size=(7, 3))), jnp.asarray(rng.normal(size=(6, 2)))
    there = quadratize(quadratic_stage, quadratic_final, xs, us, hessian="exact")
    moved = expand.recentre(QuadraticCost(H, g, c, H_final, g_final, c_final), xs, us)
    for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
