"""General constraints: an augmented Lagrangian around the iterations of iLQR, and a polish.

Rounds of a solve with fixed multipliers m and penalty rho, then m + rho c (not below zero for inequalities);
rho grows where the violation did not fall to a quarter. Newton steps on the optimality conditions, with the
constraints that are active by then, finish what the rounds would take long for.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from . import optimality
from .loop import descend, finite
from .problem import Data, Multipliers, Problem
from .solution import Options, Solution, Status

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Round(NamedTuple):
    """Where the rounds are."""

    solution: Solution  # with the constraints' violation and multipliers
    penalty: Array
    count: Array


def solve(problem: Problem, opts: Options, x0, us, xs, args: tuple, limits) -> Solution:
    """See `controllers.ilqr.solve`; all arrays are flat.

    Source:
        Howell, Jackson and Manchester, "ALTRO: a fast solver for constrained trajectory optimization", IROS
        2019; the polish there projects onto the constraints, here it is Newton's method on all conditions.
    """
    start = problem.given(_states(problem, x0, us, args), us, Data(args))
    multipliers = jax.tree.map(jnp.zeros_like, optimality.violations(problem, start.xs, us, args))
    equal = optimality.equalities(problem, start.xs, us, args)

    def attempt(us, xs, multipliers, penalty, before) -> Solution:
        data = Data(args, multipliers, penalty)
        found = descend(problem, opts, x0, us, xs, data, limits, before)
        return _judged(problem, found, equal, multipliers, penalty, args)

    def running(at: Round):
        s = at.solution
        going = (at.count < opts.rounds) & (s.iterations < opts.max_iterations) & (s.status != Status.NON_FINITE)
        return (at.count == 0) | (going & ~(s.converged & (s.violation <= opts.constraint_tolerance)))

    def another(at: Round) -> Round:
        old = at.solution
        xs_next = None if xs is None else old.states
        new = attempt(old.actions, xs_next, old.multipliers, at.penalty, old)
        harder = jnp.minimum(at.penalty * opts.penalty_factor, opts.penalty_max)
        penalty = jnp.where(new.violation > 0.25 * old.violation, harder, at.penalty)
        return Round(new, penalty, at.count + 1)

    blank = jax.eval_shape(attempt, us, xs, multipliers, jnp.ones((), us.dtype), None)
    first = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), blank)
    first = dataclasses.replace(
        first,
        states=start.xs if xs is None else xs,
        actions=us,
        violation=jnp.full_like(first.violation, jnp.inf),
        multipliers=multipliers,
        trace=jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), first.trace),
    )
    begin = Round(first, jnp.full((), opts.penalty, us.dtype), jnp.array(0))
    solution, penalty, _ = jax.lax.while_loop(running, another, begin)
    if opts.polish:
        solution = polish(problem, opts, x0, solution, equal, args, limits)
    unmet = solution.converged & (solution.violation > opts.constraint_tolerance)
    ended = jnp.where(penalty >= opts.penalty_max, Status.CONSTRAINTS_VIOLATED, Status.ITERATION_LIMIT)
    return dataclasses.replace(solution, status=jnp.where(unmet, ended, solution.status))


class Polished(NamedTuple):
    """A trajectory of the dynamics with gains and multipliers."""

    xs: Array
    us: Array
    K: Array
    multipliers: Multipliers


def polish(problem: Problem, opts: Options, x0, solution: Solution, equal, args: tuple, limits) -> Solution:
    """Newton steps on the optimality conditions, as long as each brings them closer to zero."""

    def short(at: Polished) -> tuple[Array, Array]:  # what the conditions are short of zero, and the violation
        point, sides = optimality.locate(problem, at.xs, at.us, at.K, at.multipliers, args, limits)
        gap = optimality.conditions(problem, sides, point, x0, args, limits)
        return _largest((gap.us, gap.multipliers)), _violation(problem, at.xs, at.us, equal, args)

    def step(carry):
        at, _, count = carry
        point, sides = optimality.locate(problem, at.xs, at.us, at.K, at.multipliers, args, limits)
        gap = optimality.conditions(problem, sides, point, x0, args, limits)
        move, K = optimality.solve_linear(problem, sides, point, args, jax.tree.map(jnp.negative, gap))

        def act(x, t):
            u = at.us[t] + sides.free[t] * (move.us[t] + K[t] @ (x - at.xs[t] - move.xs[t]))
            return u if limits is None else jnp.clip(u, limits[0][t], limits[1][t])

        to = problem.rollout(x0, len(at.us), act, Data(args))
        m = jax.tree.map(lambda a, on, d: jnp.where(on, a + d, a), at.multipliers, sides.active, move.multipliers)
        m = jax.tree.map(lambda a, eq: jnp.where(eq, a, jnp.maximum(a, 0.0)), m, equal)
        new = Polished(to.xs, to.us, K, m)
        (size, violation), (new_size, new_violation) = short(at), short(new)
        better = (new_size < size) & (new_violation <= violation) & finite(new)
        return jax.tree.map(functools.partial(jnp.where, better), new, at), better, count + better

    start = Polished(solution.states, solution.actions, solution.K, solution.multipliers)
    at, _, steps = jax.lax.while_loop(
        lambda c: c[1] & (c[2] < opts.polish), step, (start, solution.converged, jnp.array(0))
    )
    point, sides = optimality.locate(problem, at.xs, at.us, at.K, at.multipliers, args, limits)
    gap = optimality.conditions(problem, sides, point, x0, args, limits)
    return dataclasses.replace(
        solution,
        states=at.xs,
        actions=at.us,
        multipliers=at.multipliers,
        cost=problem.objective(at.xs, at.us, args),
        violation=_violation(problem, at.xs, at.us, equal, args),
        gradient_norm=jnp.abs(gap.us).max(),
        gap=jnp.where(steps > 0, 0.0, solution.gap),
    )


def _judged(problem: Problem, found: Solution, equal, multipliers: Multipliers, penalty, args: tuple) -> Solution:
    """A solve with fixed multipliers, with J, the violation and the multipliers that follow from it."""
    xs, us = found.states, found.actions
    values = optimality.violations(problem, xs, us, args)

    def follow(m, c, eq):
        return jnp.where(eq, m + penalty * c, jnp.maximum(m + penalty * c, 0.0))

    return dataclasses.replace(
        found,
        cost=problem.objective(xs, us, args),
        violation=_largest_violation(values, equal),
        multipliers=jax.tree.map(follow, multipliers, values, equal),
    )


def _violation(problem: Problem, xs, us, equal: Multipliers, args: tuple) -> Float[Array, ""]:
    """The largest along a trajectory."""
    return _largest_violation(optimality.violations(problem, xs, us, args), equal)


def _largest_violation(values: Multipliers, equal: Multipliers) -> Float[Array, ""]:
    return _largest(jax.tree.map(lambda c, eq: jnp.where(eq, c, jnp.maximum(c, 0.0)), values, equal))


def _largest(tree) -> Float[Array, ""]:
    return functools.reduce(jnp.maximum, [jnp.abs(leaf).max(initial=0.0) for leaf in jax.tree.leaves(tree)])


def _states(problem: Problem, x0, us, args: tuple) -> Float[Array, "T+1 nx"]:
    return problem.rollout(x0, len(us), lambda _, t: us[t], Data(args)).xs
