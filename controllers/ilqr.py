"""Trajectory optimisation with a known model: the iterative linear-quadratic regulator (iLQR).

    minimise   J = sum_{t<T} cost(x[t], u[t], t) + final_cost(x[T])
    over       actions u[0..T-1]
    subject to x[t+1] = dynamics(x[t], u[t], t),   x[0] = x0

with shapes x0 (nx), u (T nu). Every iteration expands the problem around the current trajectory (dynamics
to first order, cost to second), solves the linear-quadratic problem in deviations from it, and rolls
u = u_old + alpha k + K (x - x_old) through the real model for alpha = 1, 1/2, 1/4, ... until J is lower.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from controllers import lqr
from controllers.expand import quadratize
from controllers.ilqr_solution import Options, Solution, Status, Trace
from controllers.types import LinearDynamics, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

__all__ = ["Options", "Solution", "Status", "Trace", "solve"]


def solve(
    dynamics: Callable[..., Any],
    cost: Callable[..., Any],
    x0: Float[Array, " nx"],
    us: Float[Array, "T nu"],
    *,
    final_cost: Callable[..., Any] | None = None,
    options: Options | None = None,
) -> Solution:
    """Solve the problem at the top of this file, starting from the actions `us`.

    Solves one problem; `vmap` over start states or over what the functions close over. A call from outside
    jit compiles anew each time: wrap repeated calls in one `jax.jit`.

    Args:
        dynamics: next state (nx) from x (nx), u (nu) and the integer t; needs forward-mode derivatives only.
        cost: scalar in task units from x, u, t; twice differentiable.
        x0: start state.
        us: initial actions.
        final_cost: scalar in task units from x[T]; None is zero.
        options: tolerances, regularisation and line search.

    Errors:
        ValueError for wrong shapes, before anything is compiled. Raises nothing under jit; see Status.
        K is NaN where the status is NON_FINITE, and where no regularisation makes Q_uu positive definite.
        A start at a saddle or a maximum of J has a zero gradient and counts as converged.

    Source:
        Tassa, Erez and Todorov, "Synthesis and stabilization of complex behaviors through online trajectory
        optimization", IROS 2012. Unlike there, what is regularised is Q_uu, in action space, and a small
        gain ends the solve only where the model expects no more of a full step.
        Gradient test: Dennis and Schnabel, "Numerical methods for unconstrained optimization", section 7.2.
    """
    x0, us = jnp.asarray(x0), jnp.asarray(us)
    dtype = jnp.result_type(x0, us, 0.0)
    problem = Problem(dynamics, cost, final_cost or (lambda x: jnp.zeros((), x.dtype)))
    problem.check(x0.astype(dtype), us.astype(dtype))
    # One program even when called outside jit, instead of hundreds of small ones; inside jit it changes nothing.
    return jax.jit(functools.partial(_solve, problem, options or Options()))(x0.astype(dtype), us.astype(dtype))


@dataclass(frozen=True)
class Problem:
    """The functions of a problem, and what follows from them along a trajectory."""

    dynamics: Callable[..., Any]
    cost: Callable[..., Any]
    final_cost: Callable[..., Any]

    def check(self, x0: Float[Array, " nx"], us: Float[Array, "T nu"]) -> None:
        """Raise ValueError for wrong shapes."""
        if x0.ndim != 1 or x0.size == 0:
            raise ValueError(f"x0 must have shape (nx,), not {x0.shape}; use jax.vmap for several start states")
        if us.ndim != 2 or us.size == 0:
            raise ValueError(f"us must have shape (T, nu) with T and nu at least 1, not {us.shape}")
        zu = (x0, us[0], jnp.array(0))
        scalar = jax.ShapeDtypeStruct((), x0.dtype)
        for name, out, right in (
            ("dynamics", jax.eval_shape(self.dynamics, *zu), x0),
            ("cost", jax.eval_shape(self.cost, *zu), scalar),
            ("final_cost", jax.eval_shape(self.final_cost, x0), scalar),
        ):
            given = f"{out.dtype} of shape {out.shape}" if hasattr(out, "shape") else f"a {type(out).__name__}"
            if given != f"{right.dtype} of shape {right.shape}":
                raise ValueError(f"{name} must return {right.dtype} of shape {right.shape}, not {given}")

    def rollout(self, x0: Float[Array, " nx"], T: int, act: Callable[..., Any]) -> Trajectory:
        """Where the law u = act(x, t) leads."""

        def step(x, t):
            u = act(x, t)
            following = self.dynamics(x, u, t)
            return following, (following, u, self.cost(x, u, t))

        end, (xs, us, costs) = jax.lax.scan(step, x0, jnp.arange(T))
        return Trajectory(jnp.concatenate([x0[None], xs]), us, costs.sum() + self.final_cost(end))

    def expand(self, xs: Float[Array, "T+1 nx"], us: Float[Array, "T nu"], hessian: str) -> Expansion:
        """Local model in deviations from a trajectory of the dynamics."""
        jacobians = jax.vmap(jax.jacfwd(self.dynamics, argnums=(0, 1)))
        A, B = jacobians(xs[:-1], us, jnp.arange(us.shape[0]))
        cost = quadratize(self.cost, self.final_cost, xs, us, hessian)
        nx = xs.shape[1]

        def back(costate, inputs):
            A, B, g = inputs
            return g[:nx] + A.T @ costate, g[nx:] + B.T @ costate

        _, gradient = jax.lax.scan(back, cost.g_final, (A, B, cost.g), reverse=True)
        return Expansion(LinearDynamics(A, B, jnp.zeros_like(xs[1:]), jnp.zeros_like(A)), cost, gradient)


class Trajectory(NamedTuple):
    """States x[0..T], actions u[0..T-1] and what they cost together."""

    xs: Float[Array, "T+1 nx"]
    us: Float[Array, "T nu"]
    cost: Float[Array, ""]  # J


class Expansion(NamedTuple):
    """The problem near a trajectory, in deviations from it."""

    dynamics: LinearDynamics
    cost: QuadraticCost
    gradient: Float[Array, "T nu"]  # dJ/du, through the dynamics


class _Damping(NamedTuple):
    """The regularisation, and the factor of its last change."""

    value: Array
    growth: Array

    def changed(self, up: Array | bool, opts: Options) -> _Damping:
        """Raised, or lowered; the factor of changes in a row grows."""
        factor = opts.regularization_factor
        growth = jnp.where(up, jnp.maximum(self.growth, 1.0) * factor, jnp.minimum(self.growth, 1.0) / factor)
        value = jnp.minimum(self.value * growth, opts.regularization_max)
        return _Damping(jnp.where(value < opts.regularization_min, up * opts.regularization_min, value), growth)


class _Step(NamedTuple):
    """The last step length tried, and where it leads."""

    tried: Array  # how many step lengths so far
    alpha: Array
    to: Trajectory
    expected: Array  # decrease of J by the model
    accepted: Array


class _State(NamedTuple):
    """What changes from iteration to iteration."""

    at: Trajectory
    expansion: Expansion  # there
    damping: _Damping
    rejected: Array  # the last iteration found nothing better
    iterations: Array
    status: Array  # ITERATION_LIMIT as long as nothing else ends the solve
    trace: Trace


def _solve(problem: Problem, opts: Options, x0: Float[Array, " nx"], us: Float[Array, "T nu"]) -> Solution:
    at = problem.rollout(x0, us.shape[0], lambda _, t: us[t])
    expansion = problem.expand(at.xs, us, opts.hessian)
    floor = jnp.finfo(us.dtype).eps * jnp.abs(at.cost)  # J may go to zero, and relative tolerances with it
    undamped = _Damping(jnp.zeros_like(at.cost), jnp.ones_like(at.cost))
    damping = undamped._replace(value=jnp.full_like(at.cost, opts.regularization))
    no = jnp.array(False)
    trace = Trace(*[jnp.full(opts.max_iterations, jnp.nan, us.dtype)] * 6)
    start = _State(at, expansion, damping, no, jnp.array(0), _appraise(at, expansion, no, floor, opts), trace)

    def running(state: _State):
        return (state.status == Status.ITERATION_LIMIT) & (state.iterations < opts.max_iterations)

    end = jax.lax.while_loop(running, functools.partial(_iterate, problem, opts, floor), start)
    damping, sweep = _sweep(end.expansion, undamped, opts)
    return Solution(
        states=end.at.xs,
        actions=end.at.us,
        K=sweep.controller.K,
        chol=sweep.controller.chol,
        cost=end.at.cost,
        gradient_norm=jnp.abs(end.expansion.gradient).max(),
        regularization=damping.value,
        iterations=end.iterations,
        status=end.status,
        trace=end.trace,
    )


def _iterate(problem: Problem, opts: Options, floor: Float[Array, ""], state: _State) -> _State:
    """One backward pass, one line search, and what follows from them."""
    damping, sweep = _sweep(state.expansion, state.damping, opts)
    step = _line_search(problem, opts, state.at, sweep)
    accepted = step.accepted
    at = jax.tree.map(functools.partial(jnp.where, accepted), step.to, state.at)
    expansion = jax.lax.cond(accepted, lambda: problem.expand(at.xs, at.us, opts.hessian), lambda: state.expansion)
    following = damping.changed(~accepted, opts)

    # After a rejection the steps are short because of the regularisation: that they gain little shows nothing.
    gain = jnp.maximum(_expected_decrease(sweep, 1.0), state.at.cost - at.cost)
    stalled = (gain <= _tolerance(opts.cost_tolerance, at.cost, floor)) & ~state.rejected
    status = _appraise(at, expansion, stalled, floor, opts)
    exhausted = ~accepted & (damping.value >= opts.regularization_max) & (status == Status.ITERATION_LIMIT)
    status = jnp.where(exhausted, Status.LINE_SEARCH_FAILED, status)
    status = jnp.where(sweep.status == lqr.Status.SOLVED, status, Status.REGULARIZATION_LIMIT)

    entry = Trace(
        cost=state.at.cost,
        gradient_norm=jnp.abs(state.expansion.gradient).max(),
        regularization=damping.value,
        step_size=accepted * step.alpha,
        expected_decrease=step.expected,
        actual_decrease=state.at.cost - step.to.cost,
    )
    trace = jax.tree.map(lambda values, value: values.at[state.iterations].set(value), state.trace, entry)
    return _State(at, expansion, following, ~accepted, state.iterations + 1, status, trace)


def _sweep(expansion: Expansion, damping: _Damping, opts: Options) -> tuple[_Damping, lqr.LqrSolution]:
    """Backward pass with the first regularisation of the schedule that makes every Q_uu positive definite."""

    def sweep(damping):
        return damping, lqr.backward_pass(expansion.dynamics, expansion.cost, regularization=damping.value)

    def indefinite(carry):
        damping, solution = carry
        return (solution.status != lqr.Status.SOLVED) & (damping.value < opts.regularization_max)

    return jax.lax.while_loop(indefinite, lambda carry: sweep(carry[0].changed(True, opts)), sweep(damping))


def _line_search(problem: Problem, opts: Options, old: Trajectory, sweep: lqr.LqrSolution) -> _Step:
    """Shorten the step until J falls by at least the part `acceptance` of what the model expects."""
    K, k = sweep.controller.K, sweep.controller.k

    def attempt(last: _Step):
        alpha = jnp.where(last.tried == 0, 1.0, last.alpha * opts.step_decay)
        to = problem.rollout(old.xs[0], len(k), lambda x, t: old.us[t] + alpha * k[t] + K[t] @ (x - old.xs[t]))
        expected, actual = _expected_decrease(sweep, alpha), old.cost - to.cost
        accepted = _finite(to) & (actual > 0.0) & (actual >= opts.acceptance * expected)
        return _Step(last.tried + 1, alpha, to, expected, accepted)

    def searching(last: _Step):
        return ~last.accepted & (last.tried < opts.line_search_steps)

    zero = jnp.zeros_like(old.cost)
    return jax.lax.while_loop(searching, attempt, _Step(jnp.array(0), zero, old, zero, jnp.array(False)))


def _expected_decrease(sweep: lqr.LqrSolution, alpha) -> Float[Array, ""]:
    """Decrease of J by the quadratic model; exact for alpha = 1, and for any alpha without regularisation."""
    return -(alpha * sweep.slope + 0.5 * alpha**2 * sweep.curvature).sum()


def _appraise(at: Trajectory, expansion: Expansion, stalled, floor, opts: Options) -> Int[Array, ""]:
    """Status of a trajectory: not finite, converged, or ITERATION_LIMIT for one to be improved."""
    slope = (jnp.abs(expansion.gradient) * jnp.maximum(jnp.abs(at.us), 1.0)).max()
    flat = slope <= _tolerance(opts.gradient_tolerance, at.cost, floor)
    conditions = [~_finite((at, expansion)), flat, stalled]
    outcomes = (Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_COST)
    return jnp.select(conditions, outcomes, Status.ITERATION_LIMIT)


def _tolerance(part: float, cost, floor) -> Float[Array, ""]:
    """A part of |J|, no smaller than rounding allows."""
    return max(part, 10.0 * float(jnp.finfo(cost.dtype).eps)) * (jnp.abs(cost) + floor)


def _finite(tree) -> Bool[Array, ""]:
    """Whether every number is finite."""
    return functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
