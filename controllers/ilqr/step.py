"""One step of iLQR: the backward pass, and the line search along what it gives.

With gaps between the states, what has to fall is not J but J + price * sum |gaps|: a step closes the part
alpha of every gap, and the price is high enough for the full step to pay.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .. import lqr, lqr_parallel
from ..linalg import product
from .problem import Data, Expansion, Problem, Trajectory
from .solution import Options

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


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


def sweep(run: Run, at: Trajectory, expansion: Expansion, damping: Damping, curved: Array) -> Sweep:
    """Backward pass with the first regularisation of the schedule that makes every Q_uu positive definite.

    The share of the curvature of the dynamics is halved, at last to nothing, before the regularisation is raised.
    """
    opts, dynamics, cost = run.options, expansion.dynamics, expansion.cost
    bounds = None if run.limits is None else (run.limits[0] - at.us, run.limits[1] - at.us)

    def attempt(damping: Damping, curved) -> Sweep:
        if opts.parallel_in_time:
            return Sweep(damping, curved, lqr_parallel.backward_pass(dynamics, cost, regularization=damping.value))
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
    dx, du = lqr_parallel.full_step(dynamics, last.solution.controller)
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


def search(run: Run, old: Trajectory, back: Sweep, price) -> Step:
    """The first step that is accepted of the lengths 1, decay, decay^2, ..., or the last one tried."""
    line_search = run.options.line_search
    at_once = line_search == "parallel" or (line_search == "auto" and jax.default_backend() != "cpu")
    return (search_at_once if at_once else search_backwards)(run, old, back, price)


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


def finite(tree) -> Bool[Array, ""]:
    """Whether every number is finite."""
    return functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
