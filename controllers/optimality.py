"""The optimality conditions of a solved problem, and linear systems with their derivative.

With L(u, m) = J + m'c over trajectories of the dynamics, a solution has

    dL/du = 0 on the free actions,   u = limit on the held ones,   c = 0 on the active constraints.

The derivative of these conditions in (u, m) is symmetric; a system with it is a linear-quadratic problem,
solved by the same Riccati sweep as a step. Newton steps on them polish a constrained solution, and the implicit
function theorem gives from them how a solution moves with the start state, parameters and limits.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controllers import lqr
from controllers.expand import quadratize
from controllers.ilqr_problem import Data, Multipliers, Problem, Trajectory, adjoint
from controllers.types import LinearDynamics, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

REFINEMENTS = 12  # multiplier steps on a linear system with constraints


class Solved(NamedTuple):
    """A solution as the conditions see it."""

    us: Float[Array, "T nu"]
    multipliers: Multipliers | None
    free: Bool[Array, "T nu"]  # actions that no limit holds
    active: Multipliers | None  # of booleans: constraints that hold with equality


class Residual(NamedTuple):
    """What the conditions are short of zero, or the unknowns of a linear system with their derivative."""

    u: Float[Array, "T nu"]
    c: Multipliers | None


def classify(problem: Problem, x0, us, multipliers: Multipliers | None, args: tuple, limits) -> Solved:
    """Which limits hold an action and which constraints are active."""
    free = jnp.ones_like(us, bool)
    if limits is not None:
        gradient = jax.grad(lagrangian, argnums=2)(problem, x0, us, multipliers, args)
        free = ~held(us, gradient, limits)
    active = None
    if multipliers is not None:
        at = problem.rollout(x0, len(us), lambda _, t: us[t], Data(args))
        stage, final = equalities(problem, at, args)
        active = Multipliers(stage | (multipliers.stage > 0.0), final | (multipliers.final > 0.0))
    return Solved(us, multipliers, free, active)


def held(us, gradient, limits) -> Bool[Array, "T nu"]:
    """Actions that only a limit keeps from following the gradient."""
    return (limits[0] >= limits[1]) | ((us <= limits[0]) & (gradient > 0.0)) | ((us >= limits[1]) & (gradient < 0.0))


def lagrangian(problem: Problem, x0, us, multipliers: Multipliers | None, args: tuple) -> Float[Array, ""]:
    """L of the trajectory from x0 under the actions `us`."""
    at = problem.rollout(x0, len(us), lambda _, t: us[t], Data(args))
    if multipliers is None:
        return at.cost
    stage, final = violations(problem, at.xs, us, args)
    return at.cost + (multipliers.stage * stage).sum() + multipliers.final @ final


def violations(problem: Problem, xs, us, args: tuple) -> tuple[Float[Array, "T n"], Float[Array, " m"]]:
    """Values of the constraints along a trajectory."""
    constraints = problem.constraints
    assert constraints is not None
    stage = jax.vmap(lambda x, u, t: constraints.stage(x, u, t, *args)[0])(xs[:-1], us, jnp.arange(len(us)))
    return stage, constraints.final(xs[-1], *args)[0]


def equalities(problem: Problem, at: Trajectory, args: tuple) -> tuple[Bool[Array, "T n"], Bool[Array, " m"]]:
    """Which of the constraints are equalities."""
    constraints = problem.constraints
    assert constraints is not None
    one = constraints.stage(at.xs[0], at.us[0], 0, *args)[1]
    return jnp.broadcast_to(one, (len(at.us), len(one))), constraints.final(at.xs[-1], *args)[1]


def residual(problem: Problem, solved: Solved, x0, us, multipliers, args: tuple, limits) -> Residual:
    """The conditions at (us, multipliers), with what is held and active as in `solved`; zero at a solution."""
    us = pinned(solved, us, limits)
    gradient: Array = jax.grad(lagrangian, argnums=2)(problem, x0, us, multipliers, args)
    u = jnp.where(solved.free, gradient, jnp.zeros_like(gradient))
    if solved.active is None:
        return Residual(u, None)
    at = problem.rollout(x0, len(us), lambda _, t: us[t], Data(args))
    found = Multipliers(*violations(problem, at.xs, us, args))
    return Residual(u, _where(solved.active, found, 0.0))


def pinned(solved: Solved, us, limits) -> Float[Array, "T nu"]:
    """The actions, with those that a limit holds put there."""
    if limits is None:
        return us
    return jnp.where(solved.free, us, jnp.where(solved.us <= limits[0], limits[0], limits[1]))


def solve_linear(problem: Problem, solved: Solved, x0, args: tuple, right: Residual) -> Residual:
    """Solve D s = right, where D is the derivative of the conditions in (u, multipliers).

    With constraints, minimise 1/2 u'D_uu u - right_u'u subject to c_u u = right_c by the method of multipliers,
    whose every step is one linear-quadratic problem. NaN where D_uu is not positive definite.
    """
    us, nx = solved.us, x0.shape[0]
    at = problem.rollout(x0, len(us), lambda _, t: us[t], Data(args))
    dynamics, H, H_final = _second_order(problem, at, solved, args)
    unknown = functools.partial(_unheld, solved.free, nx)
    toward = jnp.where(solved.free, right.u, 0.0)
    g, g_final = jnp.concatenate([jnp.zeros_like(at.xs[:-1]), -toward], axis=1), jnp.zeros(nx, us.dtype)
    if solved.active is None or right.c is None:
        dz, _ = _minimise(unknown(dynamics, QuadraticCost(H, g, jnp.zeros(len(us)), H_final, g_final, jnp.zeros(()))))
        return Residual(jnp.where(solved.free, dz[:, nx:], right.u), None)

    C, C_final = _constraint_jacobians(problem, at, solved, args)
    weight = (
        jnp.abs(H).max()
        / jnp.maximum(jnp.maximum(jnp.abs(C).max(initial=0.0), jnp.abs(C_final).max(initial=0.0)), 1e-6) ** 2
    )
    weight = weight * (1e4 if us.dtype == jnp.float64 else 1e2)
    H = H + weight * C.mT @ C
    H_final = H_final + weight * C_final.T @ C_final
    aim = _where(solved.active, right.c, 0.0)

    def refine(m: Multipliers, _):
        cost = QuadraticCost(
            H,
            g + jnp.einsum("tcz,tc->tz", C, m.stage - weight * aim.stage),
            jnp.zeros(len(us)),
            H_final,
            g_final + (m.final - weight * aim.final) @ C_final,
            jnp.zeros(()),
        )
        dz, end = _minimise(unknown(dynamics, cost))
        missing = Multipliers(jnp.einsum("tcz,tz->tc", C, dz) - aim.stage, C_final @ end - aim.final)
        return jax.tree.map(lambda a, b: a + weight * b, m, missing), dz

    m, dz = jax.lax.scan(refine, jax.tree.map(jnp.zeros_like, aim), None, length=REFINEMENTS)
    return Residual(jnp.where(solved.free, dz[-1, :, nx:], right.u), _where(solved.active, m, right.c))


def _second_order(problem: Problem, at: Trajectory, solved: Solved, args) -> tuple[LinearDynamics, Array, Array]:
    """Dynamics to first order, and the second derivatives of L along its trajectories, stage by stage."""
    constraints, m = problem.constraints, solved.multipliers

    def stage(x, u, t):
        value = problem.cost(x, u, t, *args)
        return value if m is None or constraints is None else value + m.stage[t] @ constraints.stage(x, u, t, *args)[0]

    def final(x):
        value = problem.final_cost(x, *args)
        return value if m is None or constraints is None else value + m.final @ constraints.final(x, *args)[0]

    dynamics = problem.linearize(at, args)
    cost = quadratize(stage, final, at.xs, at.us, "exact")
    costates, _ = adjoint(dynamics, cost)
    curvature = jnp.einsum("ti,tizw->tzw", costates[1:], problem.second_derivatives(at, args))
    return dynamics, cost.H + curvature, cost.H_final


def _constraint_jacobians(problem: Problem, at: Trajectory, solved: Solved, args) -> tuple[Array, Array]:
    """Derivatives of the active constraints in z (T n nz) and in x[T] (m nx); zero rows for the others."""
    constraints, nx = problem.constraints, at.xs.shape[1]
    assert constraints is not None
    assert solved.active is not None
    zs = jnp.concatenate([at.xs[:-1], at.us], axis=1)
    stage = jax.jacfwd(lambda z, t: constraints.stage(z[:nx], z[nx:], t, *args)[0])
    C = jax.vmap(stage)(zs, jnp.arange(len(zs)))
    C_final = jax.jacfwd(lambda x: constraints.final(x, *args)[0])(at.xs[-1])
    return C * solved.active.stage[..., None], C_final * solved.active.final[:, None]


def _unheld(free, nx: int, dynamics: LinearDynamics, cost: QuadraticCost) -> tuple[LinearDynamics, QuadraticCost]:
    """The same problem in the free actions; the others are decoupled and stay at zero."""
    keep = jnp.concatenate([jnp.ones((len(free), nx), bool), free], axis=1)
    H = jnp.where(keep[:, :, None] & keep[:, None], cost.H, jnp.eye(keep.shape[1], dtype=cost.H.dtype))
    still = replace(dynamics, B=dynamics.B * free[:, None], c=jnp.zeros_like(dynamics.c))
    return still, replace(cost, H=H, g=jnp.where(keep, cost.g, 0.0))


def _minimise(problem: tuple[LinearDynamics, QuadraticCost]) -> tuple[Float[Array, "T nz"], Float[Array, " nx"]]:
    """States and actions, and the end state, of a linear-quadratic problem from zero."""
    dynamics, cost = problem
    controller = lqr.backward_pass(dynamics, cost).controller

    def step(x, t):
        u = controller.act(t, x)
        return dynamics.A[t] @ x + dynamics.B[t] @ u, jnp.concatenate([x, u])

    end, zs = jax.lax.scan(step, jnp.zeros_like(cost.g_final), jnp.arange(len(dynamics.A)))
    return zs, end


def _where(condition: Multipliers, value: Multipliers, other: Multipliers | float) -> Multipliers:
    if isinstance(other, Multipliers):
        return jax.tree.map(jnp.where, condition, value, other)
    return jax.tree.map(lambda c, v: jnp.where(c, v, jnp.asarray(other, v.dtype)), condition, value)


def tangent(problem: Problem, solution, primals: tuple, tangents: tuple):
    """How states, actions, cost and multipliers of a solution move with x0, args and limits.

    Args:
        solution: an `ilqr_solution.Solution` with flat arrays.
        primals: x0, args and limits.
        tangents: their tangents.

    Returns:
        A Solution of tangents; zero for everything else in it.
    """
    solution = jax.lax.stop_gradient(solution)
    us, m = solution.actions, solution.multipliers
    x0, args, limits = primals
    solved = classify(problem, x0, us, m, args, limits)

    def conditions(x0, args, limits):
        return residual(problem, solved, x0, us, m, args, limits)

    def derivative(s: Residual) -> Residual:  # of the conditions in (u, multipliers); the identity elsewhere
        held = jax.tree.map(jnp.where, solved.free, s.u, jnp.zeros_like(s.u))
        out: Residual = jax.jvp(lambda u, m: residual(problem, solved, x0, u, m, args, limits), (us, m), (held, s.c))[1]
        c = None if solved.active is None or out.c is None or s.c is None else _where(solved.active, out.c, s.c)
        return Residual(jax.tree.map(jnp.where, solved.free, out.u, s.u), c)

    _, moved = jax.jvp(conditions, primals, tangents)
    right = jax.tree.map(jnp.negative, moved)
    step = jax.lax.custom_linear_solve(
        derivative, right, lambda _, b: solve_linear(problem, solved, x0, args, b), symmetric=True
    )

    def outcome(x0, args, limits, us):
        us = pinned(solved, us, limits)
        at = problem.rollout(x0, len(us), lambda _, t: us[t], Data(args))
        return at.xs, us, at.cost

    _, (xs, us, cost) = jax.jvp(outcome, (*primals, us), (*tangents, step.u))
    still = jax.tree.map(_no_tangent, solution)
    return replace(still, states=xs, actions=us, cost=cost, multipliers=step.c)


def _no_tangent(x):
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
