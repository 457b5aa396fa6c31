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
from .step import Damping, Run, Step, Sweep, finite, largest_gap, search, sum_of_gaps, sweep

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class State(NamedTuple):
    """What changes from iteration to iteration."""

    at: Trajectory
    expansion: Expansion  # there
    back: Sweep  # the backward pass there
    price: Array  # of the gaps
    first: Array  # nothing is expanded yet: no step is searched, and no iteration counted
    rejected: Array  # the last iteration found nothing better
    iterations: Array
    status: Array  # ITERATION_LIMIT as long as nothing else ends the solve
    gradient_norm: Array
    trace: Array  # Trace.table


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
    both = jnp.stack([at.xs, jnp.broadcast_to(x0, at.xs.shape)])
    costs = jax.vmap(lambda xs: problem.total(xs, us, data))(both)
    at = at._replace(cost=costs[0])
    floor = jnp.finfo(us.dtype).eps * jnp.fmin(*jnp.abs(costs))
    run = Run(problem, opts, data, limits, xs is not None or opts.parallel_in_time, floor)
    no, yes = jnp.array(False), jnp.array(True)
    start = State(
        at=at,
        expansion=Expansion.zero(at, opts.method == "ddp"),
        back=Sweep.zero(run, at),
        price=jnp.zeros_like(at.cost),
        first=yes,
        rejected=no,
        iterations=jnp.array(0) if before is None else before.iterations,
        status=jnp.array(Status.ITERATION_LIMIT),
        gradient_norm=jnp.zeros_like(at.cost),
        trace=(Trace.empty(opts.max_iterations, us.dtype) if before is None else before.trace).table(),
    )

    def running(state: State):
        return state.first | (state.status == Status.ITERATION_LIMIT) & (state.iterations < opts.max_iterations)

    end = jax.lax.while_loop(running, functools.partial(iterate, run), start)
    return Solution(
        states=end.at.xs,
        actions=end.at.us,
        K=end.back.K,
        chol=lqr.factors(end.back.Q_uu, end.back.free),
        cost=end.at.cost,
        gradient_norm=end.gradient_norm,
        regularization=end.back.damping.value,
        iterations=end.iterations,
        status=end.status,
        gap=largest_gap(run, end.at),
        violation=jnp.zeros_like(at.cost),
        multipliers=None,
        trace=Trace(*end.trace.T),
    )


def iterate(run: Run, state: State) -> State:
    """One line search, what follows from it, and the next backward pass; the first time, without the line search.

    In this order each part is compiled once: where the solve starts is expanded and swept by the same code as where
    its steps lead, and the last sweep, without regularisation, gives the gains of the solution.
    """
    opts, back = run.options, state.back
    price = raised_price(run, state, back)
    step = search(run, state.at, back, price, state.first)
    accepted = step.accepted
    at = jax.tree.map(functools.partial(jnp.where, accepted), step.to, state.at)
    expansion = jax.lax.cond(accepted, lambda: run.expand(at, back.K), lambda: state.expansion)

    # Where regularisation makes steps short, that they gain little shows nothing.
    plain = ~state.first & ~state.rejected & (back.damping.value <= opts.regularization_min)
    promised = back.decrease(1.0) + price * sum_of_gaps(run, state.at)
    gain = jnp.maximum(promised, jnp.where(accepted, step.actual, 0.0))
    stalled = (gain <= tolerance(opts.cost_tolerance, at.cost, run.floor)) & plain
    gradient, sizes = free_gradient(run, at, expansion), jnp.abs(at.us)
    slopes = jnp.abs(gradient), jnp.abs(gradient) * jnp.maximum(sizes, 1.0)
    # one reduction of four arrays compiles in a quarter of the time of four
    gradient_norm, slope, size, change = jnp.stack([*slopes, sizes, jnp.abs(step.to.us - state.at.us)]).max((1, 2))
    short = (change <= relative(opts.step_tolerance, at.us) * size) & accepted & (step.alpha == 1.0) & plain
    flat = slope <= tolerance(opts.gradient_tolerance, at.cost, run.floor)
    status = appraise(run, at, expansion, (flat, stalled, short))
    exhausted = ~accepted & (back.damping.value >= opts.regularization_max) & (status == Status.ITERATION_LIMIT)
    status = jnp.where(exhausted, Status.LINE_SEARCH_FAILED, status)
    status = jnp.where(back.status == lqr.Status.SOLVED, status, Status.REGULARIZATION_LIMIT)
    iterations = jnp.where(state.first, state.iterations, state.iterations + 1)
    ended = (status != Status.ITERATION_LIMIT) | (iterations >= opts.max_iterations)
    return State(
        at=at,
        expansion=expansion,
        back=sweep(run, at, expansion, back, *settings_after(run, state, step, ended)),
        price=price,
        first=jnp.array(False),
        rejected=~accepted,
        iterations=iterations,
        status=status,
        gradient_norm=gradient_norm,
        trace=recorded(run, state, step),
    )


def settings_after(run: Run, state: State, step: Step, ended: Array) -> tuple[Damping, Array]:
    """Regularisation, and share of the curvature of the dynamics, that the next sweep starts with.

    None and all at the end. The share is nothing while J falls fast, and for one iteration after a step with curvature
    was rejected; all of it at first; then twice what left the problem convex.
    """
    opts, back = run.options, state.back
    # without the curvature once, where a step with it was rejected; and without more damping for that
    given_up = (back.curved > 0.0) & ~step.accepted
    # many short steps cost more than a few that regularisation shortens
    kept = state.first | given_up | (step.accepted & (step.alpha <= opts.long_step) & (step.alpha > opts.short_step))
    damping = back.damping.changed(~step.accepted | (step.alpha <= opts.short_step), opts)
    none = Damping(jnp.zeros_like(step.alpha), jnp.ones_like(step.alpha))
    damping = jax.tree.map(
        lambda last, old, new: jnp.where(ended, last, jnp.where(kept, old, new)), none, back.damping, damping
    )
    if opts.method == "ilqr":
        return damping, back.curved
    slow = step.actual <= opts.ddp_switch * (jnp.abs(step.to.cost) + run.floor)
    share: Array = jnp.clip(jnp.where(back.curved > 0.0, 2.0 * back.curved, 1.0), 0.25, 1.0)
    return damping, jnp.where(ended, 1.0, share * (step.accepted & slow))


def recorded(run: Run, state: State, step: Step) -> Float[Array, "I n"]:
    """The trace with the entry of an iteration."""
    entry = Trace(
        cost=state.at.cost,
        gradient_norm=state.gradient_norm,
        regularization=state.back.damping.value,
        step_size=step.accepted * step.alpha,
        expected_decrease=step.expected,
        actual_decrease=step.actual,
        gap=largest_gap(run, state.at),
    )
    place = jnp.where(state.first, run.options.max_iterations, state.iterations)  # out of bounds: nothing is set
    return state.trace.at[place].set(jnp.stack(jax.tree.leaves(entry)))


def raised_price(run: Run, state: State, back: Sweep) -> Float[Array, ""]:
    """Price of the gaps at which the full step pays, even where J has to rise to close them."""
    if not run.gaps:
        return state.price
    gaps = sum_of_gaps(run, state.at)
    needed = jnp.maximum(-back.decrease(1.0), 0.0) / jnp.where(gaps > 0.0, gaps, jnp.inf)
    return jnp.maximum(state.price, 2.0 * needed)


def free_gradient(run: Run, at: Trajectory, expansion: Expansion) -> Float[Array, "T nu"]:
    """The gradient, but zero where only a limit keeps an action from following it."""
    if run.limits is None:
        return expansion.gradient
    held = optimality.held(at.us, expansion.gradient, run.limits)
    return jnp.where(held, 0.0, expansion.gradient)


def appraise(run: Run, at: Trajectory, expansion: Expansion, ends: tuple[Array, Array, Array]) -> Int[Array, ""]:
    """Status of a trajectory: not finite, converged, or ITERATION_LIMIT for one to be improved.

    `ends` says whether the gradient, the gain and the step are small.
    """
    flat, stalled, short = ends
    closed = True
    if run.gaps:
        closed = largest_gap(run, at) <= relative(run.options.gap_tolerance, at.xs) * jnp.abs(at.xs).max()
    # the rest of the expansion goes into the gradient and the first costate, and so does whatever is not finite in it
    cost = expansion.cost
    broken = ~finite((at.xs, at.cost, cost.H, cost.H_final, expansion.gradient, expansion.first_costate))
    conditions = [broken, flat & closed, stalled & closed, short & closed]
    outcomes = (Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_COST, Status.CONVERGED_STEP)
    return jnp.select(conditions, outcomes, Status.ITERATION_LIMIT)


def relative(part: float, like: Array) -> float:
    """A relative tolerance, no smaller than rounding allows."""
    return max(part, 10.0 * float(jnp.finfo(like.dtype).eps))


def tolerance(part: float, cost, floor) -> Float[Array, ""]:
    """A part of |J|, no smaller than rounding allows."""
    return relative(part, cost) * (jnp.abs(cost) + floor)
