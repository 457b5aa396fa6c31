"""The iterations of iLQR as one compiled loop: what follows from each step, and when to stop."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .. import lqr
from . import optimality
from .problem import Data, Expansion, Problem, Trajectory
from .solution import Options, Solution, Status, Trace
from .step import Damping, Run, Step, Sweep, finite, search, sweep

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class State(NamedTuple):
    """What changes from iteration to iteration."""

    at: Trajectory
    expansion: Expansion  # there
    damping: Damping
    price: Array  # of the gaps
    curved: Array  # share of the curvature of the dynamics that the next sweep starts with
    rejected: Array  # the last iteration found nothing better
    iterations: Array
    status: Array  # ITERATION_LIMIT as long as nothing else ends the solve
    trace: Trace


def descend(
    problem: Problem, opts: Options, x0, us, xs, data: Data, limits, before: Solution | None = None
) -> Solution:
    """Solve from the actions `us` and, unless None, the states `xs`; `limits` are two arrays (T nu), or None.

    `before` is a solve whose iterations count and whose trace is continued.
    """
    if limits is not None:
        us = jnp.clip(us, *limits)
    if xs is None:
        at = problem.rollout(x0, us.shape[0], lambda _, t: us[t], data)
    else:
        at = problem.given(xs.at[0].set(x0), us, data)
    # the cost of staying where one starts is a measure for J even where the first actions lead far astray
    still = jnp.abs(problem.total(jnp.broadcast_to(x0, at.xs.shape), us, data))
    floor = jnp.finfo(us.dtype).eps * jnp.fmin(jnp.abs(at.cost), still)
    run = Run(problem, opts, data, limits, xs is not None or opts.parallel_in_time, floor)
    expansion = run.expand(at, jnp.zeros((*us.shape, len(x0)), us.dtype))
    zero, no = jnp.zeros_like(at.cost), jnp.array(False)
    damping = Damping(jnp.full_like(at.cost, opts.regularization), jnp.ones_like(at.cost))
    trace = Trace.empty(opts.max_iterations, us.dtype) if before is None else before.trace
    iterations = jnp.array(0) if before is None else before.iterations
    status = appraise(run, at, expansion, no, no)
    start = State(at, expansion, damping, zero, zero, no, iterations, status, trace)

    def running(state: State):
        return (state.status == Status.ITERATION_LIMIT) & (state.iterations < opts.max_iterations)

    end = jax.lax.while_loop(running, functools.partial(iterate, run), start)
    undamped = Damping(zero, jnp.ones_like(zero))
    last = sweep(run, end.at, end.expansion, undamped, jnp.full_like(zero, opts.method == "ddp"))
    return Solution(
        states=end.at.xs,
        actions=end.at.us,
        K=last.solution.controller.K,
        chol=last.solution.controller.chol,
        cost=end.at.cost,
        gradient_norm=jnp.abs(free_gradient(run, end.at, end.expansion)).max(),
        regularization=last.damping.value,
        iterations=end.iterations,
        status=end.status,
        gap=jnp.abs(end.at.gaps).max(),
        violation=zero,
        multipliers=None,
        trace=end.trace,
    )


def iterate(run: Run, state: State) -> State:
    """One backward pass, one line search, and what follows from them."""
    opts = run.options
    back = sweep(run, state.at, state.expansion, state.damping, state.curved)
    price = raised_price(run, state, back)
    step = search(run, state.at, back, price)
    accepted = step.accepted
    at = jax.tree.map(functools.partial(jnp.where, accepted), step.to, state.at)
    expansion = jax.lax.cond(accepted, lambda: run.expand(at, back.solution.controller.K), lambda: state.expansion)

    # Where regularisation makes steps short, that they gain little shows nothing.
    plain = ~state.rejected & (back.damping.value <= opts.regularization_min)
    promised = back.decrease(1.0) + price * jnp.abs(state.at.gaps).sum()
    gain = jnp.maximum(promised, jnp.where(accepted, step.actual, 0.0))
    stalled = (gain <= tolerance(opts.cost_tolerance, at.cost, run.floor)) & plain
    change = jnp.abs(step.to.us - state.at.us).max()
    short = change <= relative(opts.step_tolerance, at.us) * jnp.abs(at.us).max()
    short = short & accepted & (step.alpha == 1.0) & plain
    status = appraise(run, at, expansion, stalled, short)
    exhausted = ~accepted & (back.damping.value >= opts.regularization_max) & (status == Status.ITERATION_LIMIT)
    status = jnp.where(exhausted, Status.LINE_SEARCH_FAILED, status)
    status = jnp.where(back.solution.status == lqr.Status.SOLVED, status, Status.REGULARIZATION_LIMIT)

    # without the curvature once, where a step with it was rejected; and without more damping for that
    given_up = (back.curved > 0.0) & ~accepted
    # many short steps cost more than a few that regularisation shortens
    kept = given_up | (accepted & (step.alpha <= opts.long_step) & (step.alpha > opts.short_step))
    damping = back.damping.changed(~accepted | (step.alpha <= opts.short_step), opts)
    damping = jax.tree.map(functools.partial(jnp.where, kept), back.damping, damping)
    entry = Trace(
        cost=state.at.cost,
        gradient_norm=jnp.abs(free_gradient(run, state.at, state.expansion)).max(),
        regularization=back.damping.value,
        step_size=accepted * step.alpha,
        expected_decrease=step.expected,
        actual_decrease=step.actual,
        gap=jnp.abs(state.at.gaps).max(),
    )
    return State(
        at=at,
        expansion=expansion,
        damping=damping,
        price=price,
        curved=next_share(run, state, back, step),
        rejected=~accepted,
        iterations=state.iterations + 1,
        status=status,
        trace=jax.tree.map(lambda values, value: values.at[state.iterations].set(value), state.trace, entry),
    )


def next_share(run: Run, state: State, back: Sweep, step: Step) -> Float[Array, ""]:
    """How much of the curvature of the dynamics the next sweep starts with.

    None while J falls fast, and for one iteration after a step with curvature was rejected; all of it at
    first; then twice what left the problem convex.
    """
    if run.options.method == "ilqr":
        return state.curved
    slow = step.actual <= run.options.ddp_switch * (jnp.abs(step.to.cost) + run.floor)
    found: Array = jnp.clip(jnp.where(state.curved > 0.0, 2.0 * back.curved, 1.0), 0.25, 1.0)
    return found * (step.accepted & slow)


def raised_price(run: Run, state: State, back: Sweep) -> Float[Array, ""]:
    """Price of the gaps at which the full step pays, even where J has to rise to close them."""
    if not run.gaps:
        return state.price
    gaps = jnp.abs(state.at.gaps).sum()
    needed = jnp.maximum(-back.decrease(1.0), 0.0) / jnp.where(gaps > 0.0, gaps, jnp.inf)
    return jnp.maximum(state.price, 2.0 * needed)


def free_gradient(run: Run, at: Trajectory, expansion: Expansion) -> Float[Array, "T nu"]:
    """The gradient, but zero where only a limit keeps an action from following it."""
    if run.limits is None:
        return expansion.gradient
    held = optimality.held(at.us, expansion.gradient, run.limits)
    return jnp.where(held, 0.0, expansion.gradient)


def appraise(run: Run, at: Trajectory, expansion: Expansion, stalled, short) -> Int[Array, ""]:
    """Status of a trajectory: not finite, converged, or ITERATION_LIMIT for one to be improved."""
    opts = run.options
    slope = (jnp.abs(free_gradient(run, at, expansion)) * jnp.maximum(jnp.abs(at.us), 1.0)).max()
    flat = slope <= tolerance(opts.gradient_tolerance, at.cost, run.floor)
    closed = jnp.abs(at.gaps).max() <= relative(opts.gap_tolerance, at.xs) * jnp.abs(at.xs).max() if run.gaps else True
    broken = ~(jnp.isfinite(at.cost) & jnp.isfinite(at.xs).all() & finite(expansion._replace(second=None)))
    conditions = [broken, flat & closed, stalled & closed, short & closed]
    outcomes = (Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_COST, Status.CONVERGED_STEP)
    return jnp.select(conditions, outcomes, Status.ITERATION_LIMIT)


def relative(part: float, like: Array) -> float:
    """A relative tolerance, no smaller than rounding allows."""
    return max(part, 10.0 * float(jnp.finfo(like.dtype).eps))


def tolerance(part: float, cost, floor) -> Float[Array, ""]:
    """A part of |J|, no smaller than rounding allows."""
    return relative(part, cost) * (jnp.abs(cost) + floor)
