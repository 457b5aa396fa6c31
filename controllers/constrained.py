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

from controllers import optimality
from controllers.ilqr_loop import descend, finite
from controllers.ilqr_problem import Data, Multipliers, Problem
from controllers.ilqr_solution import Options, Solution, Status

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
    stage, final = optimality.violations(problem, start.xs, us, args)
    multipliers = Multipliers(jnp.zeros_like(stage), jnp.zeros_like(final))
    equal = Multipliers(*optimality.equalities(problem, start, args))

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
    solution = jax.lax.while_loop(running, another, begin).solution
    if opts.polish:
        solution = polish(problem, opts, x0, solution, equal, args, limits)
    unmet = solution.converged & (solution.violation > opts.constraint_tolerance)
    return dataclasses.replace(solution, status=jnp.where(unmet, Status.CONSTRAINTS_VIOLATED, solution.status))


def polish(problem: Problem, opts: Options, x0, solution: Solution, equal, args: tuple, limits) -> Solution:
    """Newton steps on the optimality conditions, as long as each brings them closer to zero."""

    def size(us, m, solved):
        return _largest(optimality.residual(problem, solved, x0, us, m, args, limits))

    def step(carry):
        us, m, _, count = carry
        solved = optimality.classify(problem, x0, us, m, args, limits)
        short = optimality.residual(problem, solved, x0, us, m, args, limits)
        move = optimality.solve_linear(problem, solved, x0, args, jax.tree.map(jnp.negative, short))
        us_new = jnp.where(solved.free, us + move.u, us)
        us_new = us_new if limits is None else jnp.clip(us_new, *limits)
        m_new = jax.tree.map(lambda a, on, d: jnp.where(on, a + d, a), m, solved.active, move.c)
        m_new = jax.tree.map(lambda a, eq: jnp.where(eq, a, jnp.maximum(a, 0.0)), m_new, equal)
        before, after = _largest(short), size(us_new, m_new, solved)
        xs = _states(problem, x0, us_new, args)
        better = (after < before) & (_violation(problem, xs, us_new, equal, args) <= violation(us)) & finite(m_new)
        us, m = jax.tree.map(functools.partial(jnp.where, better), (us_new, m_new), (us, m))
        return us, m, better, count + 1

    def violation(us):
        return _violation(problem, _states(problem, x0, us, args), us, equal, args)

    start = (solution.actions, solution.multipliers, solution.converged, jnp.array(0))
    us, m, _, _ = jax.lax.while_loop(lambda c: c[2] & (c[3] < opts.polish), step, start)
    solved = optimality.classify(problem, x0, us, m, args, limits)
    xs = _states(problem, x0, us, args)
    closed = solution.converged  # the polish starts from, and ends with, a trajectory of the dynamics
    return dataclasses.replace(
        solution,
        states=jnp.where(closed, xs, solution.states),
        actions=us,
        multipliers=m,
        cost=jnp.where(closed, problem.objective(xs, us, args), solution.cost),
        violation=jnp.where(closed, violation(us), solution.violation),
        gap=jnp.where(closed, 0.0, solution.gap),
        gradient_norm=jnp.where(
            closed,
            jnp.abs(optimality.residual(problem, solved, x0, us, m, args, limits).u).max(),
            solution.gradient_norm,
        ),
    )


def _judged(problem: Problem, found: Solution, equal, multipliers: Multipliers, penalty, args: tuple) -> Solution:
    """A solve with fixed multipliers, with J, the violation and the multipliers that follow from it."""
    xs, us = found.states, found.actions
    values = Multipliers(*optimality.violations(problem, xs, us, args))

    def follow(m, c, eq):
        return jnp.where(eq, m + penalty * c, jnp.maximum(m + penalty * c, 0.0))

    return dataclasses.replace(
        found,
        cost=problem.objective(xs, us, args),
        violation=_violation(problem, xs, us, equal, args),
        multipliers=jax.tree.map(follow, multipliers, values, equal),
    )


def _violation(problem: Problem, xs, us, equal: Multipliers, args: tuple) -> Float[Array, ""]:
    """The largest."""
    values = Multipliers(*optimality.violations(problem, xs, us, args))
    return _largest(jax.tree.map(lambda c, eq: jnp.where(eq, c, jnp.maximum(c, 0.0)), values, equal))


def _largest(tree) -> Float[Array, ""]:
    return functools.reduce(jnp.maximum, [jnp.abs(leaf).max(initial=0.0) for leaf in jax.tree.leaves(tree)])


def _states(problem: Problem, x0, us, args: tuple) -> Float[Array, "T+1 nx"]:
    return problem.rollout(x0, len(us), lambda _, t: us[t], Data(args)).xs
