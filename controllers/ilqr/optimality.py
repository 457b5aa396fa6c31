"""The optimality conditions of a solved problem, and linear systems with their derivative.

A solution makes the Lagrangian stationary in states, actions, costates l and multipliers m:

    L = J + sum_t l[t+1]'(dynamics(x[t], u[t], t) - x[t+1]) + l[0]'(x0 - x[0]) + m'c

but for actions that a limit holds, which stay there, and multipliers of constraints that are not active, which are
zero. The second derivative of L is symmetric and goes stage by stage; a system with it is a linear-quadratic problem,
solved by the same Riccati sweep as a step, with a closed-loop roll-out, so that unstable dynamics do no harm. Newton
steps on the conditions polish a constrained solution, and the implicit function theorem gives from them how a solution
moves with the start state, parameters and limits.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .. import lqr
from ..expand import quadratize
from ..types import LinearDynamics, QuadraticCost
from .problem import Multipliers, Problem, Trajectory, adjoint

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

REFINEMENTS = 12  # multiplier steps on a linear system with constraints


class Point(NamedTuple):
    """The unknowns of the conditions; also what the conditions are short of zero, in the same places."""

    xs: Float[Array, "T+1 nx"]
    us: Float[Array, "T nu"]
    costates: Float[Array, "T+1 nx"]
    multipliers: Multipliers | None


class Sides(NamedTuple):
    """Which limits and constraints take part."""

    free: Bool[Array, "T nu"]  # actions that no limit holds
    low: Bool[Array, "T nu"]  # of the others, those at the lower limit
    active: Multipliers | None  # of booleans: constraints that hold with equality


def held(us, gradient, limits) -> Bool[Array, "T nu"]:
    """Actions that only a limit keeps from following the gradient."""
    stays = ((us <= limits[0]) & (gradient > 0.0)) | ((us >= limits[1]) & (gradient < 0.0))
    return stays | (limits[0] >= limits[1])


def locate(problem: Problem, xs, us, K, multipliers: Multipliers | None, args: tuple, limits) -> tuple[Point, Sides]:
    """The point of a trajectory with gains K around it, and the sides that it is on."""
    at = Trajectory(xs, us, jnp.zeros(()), jnp.zeros_like(xs[1:]))
    stage, final = _lagrangian_costs(problem, multipliers, args)
    cost = quadratize(stage, final, xs, us, "exact")
    costates, gradient = adjoint(problem.linearize(at, args), cost, K)
    free, low = jnp.ones_like(us, bool), jnp.zeros_like(us, bool)
    if limits is not None:
        free, low = ~held(us, gradient, limits), us <= limits[0]
    active = None
    if multipliers is not None:
        on = equalities(problem, xs, us, args)
        active = jax.tree.map(lambda equal, m: equal | (m > 0.0), on, multipliers)
    return Point(xs, us, costates, multipliers), Sides(free, low, active)


def violations(problem: Problem, xs, us, args: tuple) -> Multipliers:
    """Values of the constraints along a trajectory."""
    constraints = problem.constraints
    assert constraints is not None
    stage = jax.vmap(lambda x, u, t: constraints.stage(x, u, t, *args)[0])(xs[:-1], us, jnp.arange(len(us)))
    return Multipliers(stage, constraints.final(xs[-1], *args)[0])


def equalities(problem: Problem, xs, us, args: tuple) -> Multipliers:
    """Which of the constraints are equalities."""
    constraints = problem.constraints
    assert constraints is not None
    one = constraints.stage(xs[0], us[0], 0, *args)[1]
    return Multipliers(jnp.broadcast_to(one, (len(us), len(one))), constraints.final(xs[-1], *args)[1])


def conditions(problem: Problem, sides: Sides, point: Point, x0, args: tuple, limits) -> Point:
    """The gradient of L, with held actions at their limits; zero for what takes no part, and at a solution."""

    def lagrangian(point: Point):
        xs, us, costates, m = point
        following = jax.vmap(lambda x, u, t: problem.dynamics(x, u, t, *args))(xs[:-1], us, jnp.arange(len(us)))
        gaps = jnp.concatenate([(x0 - xs[0])[None], following - xs[1:]])
        value = problem.objective(xs, us, args) + (costates * gaps).sum()
        if m is None:
            return value
        return value + sum(map(jnp.vdot, jax.tree.leaves(m), jax.tree.leaves(violations(problem, xs, us, args))))

    gradient: Point = jax.grad(lagrangian)(point._replace(us=pinned(sides, point.us, limits)))
    return _taking_part(sides, gradient, jax.tree.map(jnp.zeros_like, gradient))


def pinned(sides: Sides, us, limits) -> Float[Array, "T nu"]:
    """The actions, with those that a limit holds put there."""
    return us if limits is None else jnp.where(sides.free, us, jnp.where(sides.low, limits[0], limits[1]))


def _taking_part(sides: Sides, there: Point, elsewhere: Point) -> Point:
    """Components of the first point that take part, the others of the second."""
    us = jax.tree.map(jnp.where, sides.free, there.us, elsewhere.us)
    if sides.active is None:
        return there._replace(us=us)
    chosen = jax.tree.map(jnp.where, sides.active, there.multipliers, elsewhere.multipliers)
    return there._replace(us=us, multipliers=chosen)


def solve_linear(
    problem: Problem, sides: Sides, point: Point, args: tuple, right: Point
) -> tuple[Point, Float[Array, "T nu nx"]]:
    """Solve D s = right, where D is the derivative of the conditions, and the identity where nothing takes part.

    With constraints by the method of multipliers, whose every step is one linear-quadratic problem.

    Returns:
        s, and the gains of the linear-quadratic problem. NaN where that has no minimum.
    """
    xs, us = point.xs, point.us
    T, nx = len(us), xs.shape[1]
    dynamics, H, H_final = _second_order(problem, point, args)
    dynamics = replace(dynamics, c=-right.costates[1:])
    g = -jnp.concatenate([right.xs[:-1], jnp.where(sides.free, right.us, 0.0)], axis=1)
    cost = QuadraticCost(H, g, jnp.zeros(T), H_final, -right.xs[-1], jnp.zeros(()))
    start = -right.costates[0]
    if sides.active is None or right.multipliers is None:
        s, K = _minimise(sides.free, dynamics, cost, start)
        return _taking_part(sides, s, right), K

    C, C_final = _constraint_jacobians(problem, point, sides.active, args)
    steepest = jnp.maximum(jnp.maximum(jnp.abs(C).max(initial=0.0), jnp.abs(C_final).max(initial=0.0)), 1e-6)
    weight = jnp.abs(H).max() / steepest**2 * (1e4 if us.dtype == jnp.float64 else 1e2)
    aim = jax.tree.map(lambda on, r: on * r, sides.active, right.multipliers)
    cost = replace(cost, H=H + weight * C.mT @ C, H_final=H_final + weight * C_final.T @ C_final)

    def refine(carry, _):
        m = carry[0].multipliers
        toward = jnp.einsum("tcz,tc->tz", C, m.stage - weight * aim.stage)
        end = (m.final - weight * aim.final) @ C_final
        s, K = _minimise(sides.free, dynamics, replace(cost, g=g + toward, g_final=cost.g_final + end), start)
        dz = jnp.concatenate([s.xs[:-1], s.us], axis=1)
        missing = Multipliers(jnp.einsum("tcz,tz->tc", C, dz) - aim.stage, C_final @ s.xs[-1] - aim.final)
        return (s._replace(multipliers=jax.tree.map(lambda a, b: a + weight * b, m, missing)), K), None

    blank = jax.tree.map(jnp.zeros_like, point._replace(multipliers=aim))
    (s, K), _ = jax.lax.scan(refine, (blank, jnp.zeros((T, us.shape[1], nx), us.dtype)), None, length=REFINEMENTS)
    return _taking_part(sides, s, right), K


def _lagrangian_costs(problem: Problem, m: Multipliers | None, args: tuple):
    """Stage and final costs with what the constraints add to L."""
    constraints = problem.constraints

    def stage(x, u, t):
        value = problem.cost(x, u, t, *args)
        return value if m is None or constraints is None else value + m.stage[t] @ constraints.stage(x, u, t, *args)[0]

    def final(x):
        value = problem.final_cost(x, *args)
        return value if m is None or constraints is None else value + m.final @ constraints.final(x, *args)[0]

    return stage, final


def _second_order(problem: Problem, point: Point, args: tuple) -> tuple[LinearDynamics, Array, Array]:
    """Dynamics to first order, and the second derivatives of L, stage by stage."""
    at = Trajectory(point.xs, point.us, jnp.zeros(()), jnp.zeros_like(point.xs[1:]))
    cost = quadratize(*_lagrangian_costs(problem, point.multipliers, args), point.xs, point.us, "exact")
    curvature = jnp.einsum("ti,tizw->tzw", point.costates[1:], problem.second_derivatives(at, args))
    return problem.linearize(at, args), cost.H + curvature, cost.H_final


def _constraint_jacobians(problem: Problem, point: Point, active: Multipliers, args: tuple) -> tuple[Array, Array]:
    """Derivatives of the active constraints in z (T n nz) and in x[T] (m nx); zero rows for the others."""
    constraints, nx = problem.constraints, point.xs.shape[1]
    assert constraints is not None
    zs = jnp.concatenate([point.xs[:-1], point.us], axis=1)
    stage = jax.jacfwd(lambda z, t: constraints.stage(z[:nx], z[nx:], t, *args)[0])
    C = jax.vmap(stage)(zs, jnp.arange(len(zs)))
    C_final = jax.jacfwd(lambda x: constraints.final(x, *args)[0])(point.xs[-1])
    return C * active.stage[..., None], C_final * active.final[:, None]


def _minimise(free, dynamics: LinearDynamics, cost: QuadraticCost, start) -> tuple[Point, Array]:
    """States, actions and costates of a linear-quadratic problem in the free actions, the others zero; its gains."""
    nx = len(start)
    keep = jnp.concatenate([jnp.ones((len(free), nx), bool), free], axis=1)
    H = jnp.where(keep[:, :, None] & keep[:, None], cost.H, jnp.eye(keep.shape[1], dtype=cost.H.dtype))
    dynamics = replace(dynamics, B=dynamics.B * free[:, None])
    solution = lqr.backward_pass(dynamics, replace(cost, H=H, g=jnp.where(keep, cost.g, 0.0)))
    K, k = solution.controller.K, solution.controller.k

    def step(x, t):
        u = K[t] @ x + k[t]
        return dynamics.A[t] @ x + dynamics.B[t] @ u + dynamics.c[t], (x, u)

    end, (xs, us) = jax.lax.scan(step, start, jnp.arange(len(free)))
    xs = jnp.concatenate([xs, end[None]])
    return Point(xs, us, jnp.einsum("tij,tj->ti", solution.V, xs) + solution.v, None), K


def tangent(problem: Problem, solution, primals: tuple, tangents: tuple):
    """How states, actions, cost and multipliers of a solution move with x0, args and limits.

    Args:
        solution: an `ilqr_solution.Solution` with flat arrays.
        primals: x0, args and limits.
        tangents: their tangents.

    Returns:
        A Solution of tangents; zero for everything else in it.
    """
    x0, args, limits = primals
    found = solution.states, solution.actions, solution.K, solution.multipliers
    point, sides = locate(problem, *found, args, limits)

    _, moved = jax.jvp(functools.partial(conditions, problem, sides, point), primals, tangents)
    # as one vector, all of which depends on the tangents: a part that did not could not be transposed
    right, unravel = ravel_pytree(jax.tree.map(jnp.negative, moved))

    def derivative(s):
        s = unravel(s)
        inner = _taking_part(sides, s, jax.tree.map(jnp.zeros_like, s))
        out = jax.jvp(lambda p: conditions(problem, sides, p, x0, args, limits), (point,), (inner,))[1]
        return ravel_pytree(_taking_part(sides, out, s))[0]

    def solve(_, b):
        return ravel_pytree(solve_linear(problem, sides, point, args, unravel(b))[0])[0]

    step = unravel(jax.lax.custom_linear_solve(derivative, right, solve, symmetric=True))
    _, us = jax.jvp(lambda us, limits: pinned(sides, us, limits), (point.us, limits), (step.us, tangents[2]))
    _, cost = jax.jvp(problem.objective, (point.xs, point.us, args), (step.xs, us, tangents[1]))
    still = jax.tree.map(_no_tangent, solution)
    known = jnp.where(jnp.isfinite(solution.cost), 1.0, jnp.nan)  # nothing is, of what was not solved
    moved = jax.tree.map(lambda a: known * a, (step.xs, us, cost, step.multipliers))
    return replace(still, **dict(zip(("states", "actions", "cost", "multipliers"), moved, strict=True)))


def _no_tangent(x):
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
