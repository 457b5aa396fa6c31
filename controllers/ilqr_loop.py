"""The iterations of iLQR: backward pass, line search, and what follows from them, as one compiled loop.

With gaps between the states, what has to fall is not J but J + price * sum |gaps|: a step closes the part
alpha of every gap, and the price is high enough for the full step to pay.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from controllers import lqr, optimality, parallel
from controllers.ilqr_problem import Data, Expansion, Problem, Trajectory
from controllers.ilqr_solution import Options, Solution, Status, Trace
from controllers.small import product

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


class Run(NamedTuple):
    """What stays the same during a solve."""

    problem: Problem
    options: Options
    data: Data  # of the problem's functions
    limits: tuple[Array, Array] | None  # T nu each
    gaps: bool  # whether the states may have gaps
    floor: Array  # J may go to zero, and relative tolerances with it

    def expand(self, at: Trajectory, K: Float[Array, "T nu nx"]) -> Expansion:
        """The problem near `at`; K are the gains that led there."""
        o = self.options
        return self.problem.expand(at, K, self.data, o.hessian, o.method == "ddp", o.parallel_in_time)


class Damping(NamedTuple):
    """The regularisation, and the factor of its last change."""

    value: Array
    growth: Array

    def changed(self, up: Array | bool, opts: Options) -> Damping:
        """Raised, or lowered; the factor of changes in a row grows."""
        factor = opts.regularization_factor
        growth = jnp.where(up, jnp.maximum(self.growth, 1.0) * factor, jnp.minimum(self.growth, 1.0) / factor)
        value = jnp.minimum(self.value * growth, opts.regularization_max)
        return Damping(jnp.where(value < opts.regularization_min, up * opts.regularization_min, value), growth)


class Sweep(NamedTuple):
    """A backward pass, and what it was computed with."""

    damping: Damping
    curved: Array  # share of the curvature of the dynamics, between 0 and 1
    solution: lqr.LqrSolution
    dx: Array | None = None  # the full step by the linear model, with parallel_in_time
    du: Array | None = None

    def decrease(self, alpha) -> Float[Array, ""]:
        """Of J, by the quadratic model."""
        return -(alpha * self.solution.slope + 0.5 * alpha**2 * self.solution.curvature)


class Step(NamedTuple):
    """The last step length tried, and where it leads."""

    tried: Array  # how many step lengths so far
    alpha: Array
    to: Trajectory
    expected: Array  # decrease by the model
    actual: Array
    accepted: Array


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
    search = search_at_once if at_once(opts) else search_backwards
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


def sweep(run: Run, at: Trajectory, expansion: Expansion, damping: Damping, curved: Array) -> Sweep:
    """Backward pass with the first regularisation of the schedule that makes every Q_uu positive definite.

    The share of the curvature of the dynamics is halved, at last to nothing, before the regularisation is raised.
    """
    opts, dynamics, cost = run.options, expansion.dynamics, expansion.cost
    bounds = None if run.limits is None else (run.limits[0] - at.us, run.limits[1] - at.us)

    def attempt(damping: Damping, curved) -> Sweep:
        if opts.parallel_in_time:
            return Sweep(damping, curved, parallel.backward_pass(dynamics, cost, regularization=damping.value))
        D = damping_rows(dynamics, damping.value, opts.regularization_type)
        second = None if expansion.second is None else share(curved, expansion.second)
        return Sweep(damping, curved, lqr.backward_pass(dynamics, cost, damping=D, bounds=bounds, second=second))

    def unfinished(carry):
        first, last = carry
        indefinite = last.solution.status != lqr.Status.SOLVED
        return first | (indefinite & (last.damping.value < opts.regularization_max))

    def again(carry):
        first, last = carry
        harder = last.damping.changed(True, opts)
        damping = jax.tree.map(functools.partial(jnp.where, first | (last.curved > 0.0)), last.damping, harder)
        less = 0.5 * last.curved * (last.curved > 0.1)
        return jnp.array(False), attempt(damping, jax.lax.select(first, last.curved, less))

    # starting from nothing, the attempt is compiled once
    blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(attempt, damping, curved))
    first = (jnp.array(True), blank._replace(damping=damping, curved=curved))
    last = jax.lax.while_loop(unfinished, again, first)[1]
    if not opts.parallel_in_time:
        return last
    dx, du = parallel.full_step(dynamics, last.solution.controller)
    return last._replace(dx=dx, du=du)


def share(part: Float[Array, ""], second: Float[Array, "T nx nz nz"]) -> Float[Array, "T nx nz nz"]:
    """A part of the second derivatives; none is zero, also where they are not finite."""
    return jnp.where(part > 0.0, part * second, jnp.zeros_like(second))


def damping_rows(dynamics, value, kind: str) -> Float[Array, "T nu nz"]:
    """What a regularisation adds to the rows of u of Q."""
    T, nx, nu = dynamics.B.shape
    if kind == "state":
        return value * dynamics.B.mT @ jnp.concatenate([dynamics.A, dynamics.B], axis=-1)
    return jnp.broadcast_to(value * jnp.eye(nu, nx + nu, nx, dtype=dynamics.B.dtype), (T, nu, nx + nu))


def raised_price(run: Run, state: State, back: Sweep) -> Float[Array, ""]:
    """Price of the gaps at which the full step pays, even where J has to rise to close them."""
    if not run.gaps:
        return state.price
    gaps = jnp.abs(state.at.gaps).sum()
    needed = jnp.maximum(-back.decrease(1.0), 0.0) / jnp.where(gaps > 0.0, gaps, jnp.inf)
    return jnp.maximum(state.price, 2.0 * needed)


def at_once(opts: Options) -> bool:
    """Whether all step lengths are tried at once."""
    if opts.line_search == "auto":
        return jax.default_backend() != "cpu"
    return opts.line_search == "parallel"


def search_backwards(run: Run, old: Trajectory, back: Sweep, price) -> Step:
    """Shorten the step until it is accepted."""
    opts = run.options

    def attempt(last: Step):
        alpha = jnp.where(last.tried == 0, 1.0, last.alpha * opts.step_decay)
        return tried(run, old, back, price, alpha)._replace(tried=last.tried + 1)

    zero = jnp.zeros_like(old.cost)
    return jax.lax.while_loop(
        lambda last: ~last.accepted & (last.tried < opts.line_search_steps),
        attempt,
        Step(jnp.array(0), zero, old, zero, zero, jnp.array(False)),
    )


def search_at_once(run: Run, old: Trajectory, back: Sweep, price) -> Step:
    """The longest step that is accepted; the shortest where none is."""
    opts = run.options
    alphas = opts.step_decay ** jnp.arange(opts.line_search_steps, dtype=old.cost.dtype)
    steps = jax.vmap(lambda alpha: tried(run, old, back, price, alpha))(alphas)
    chosen = jnp.where(steps.accepted.any(), jnp.argmax(steps.accepted), len(alphas) - 1)
    return jax.tree.map(lambda a: a[chosen], steps)


def tried(run: Run, old: Trajectory, back: Sweep, price, alpha) -> Step:
    """The step of length alpha, accepted where it gains at least the part `acceptance` of what the model expects."""
    to = along(run, old, back, alpha) if run.options.parallel_in_time else rolled(run, old, back.solution, alpha)
    closed = jnp.abs(old.gaps).sum()
    expected = back.decrease(alpha) + price * alpha * closed
    actual = old.cost - to.cost + price * (closed - jnp.abs(to.gaps).sum())
    accepted = finite(to) & (actual > 0.0) & (actual >= run.options.acceptance * expected)
    return Step(jnp.array(0), alpha, to, expected, actual, accepted)


def rolled(run: Run, old: Trajectory, solution: lqr.LqrSolution, alpha) -> Trajectory:
    """The trajectory of u = u_old + alpha k + K (x - x_old), with the part 1 - alpha of every gap."""
    K, k = solution.controller.K, solution.controller.k

    def act(x, t):
        u = old.us[t] + alpha * k[t] + product(K[t], x - old.xs[t])
        return u if run.limits is None else jnp.clip(u, run.limits[0][t], run.limits[1][t])

    gaps = (1.0 - alpha) * old.gaps if run.gaps else None
    return run.problem.rollout(old.xs[0], len(k), act, run.data, gaps)


def along(run: Run, old: Trajectory, back: Sweep, alpha) -> Trajectory:
    """States and actions moved along the step of the linear model: no loop over time, but gaps of second order."""
    return run.problem.given(old.xs + alpha * back.dx, old.us + alpha * back.du, run.data)


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


def finite(tree) -> Bool[Array, ""]:
    """Whether every number is finite."""
    return functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
