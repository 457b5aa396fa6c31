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
    """A backward pass: its settings, and of its result what the iterations need (see `lqr.LqrSolution`)."""

    damping: Damping
    curved: Array  # share of the curvature of the dynamics, between 0 and 1
    K: Array
    k: Array
    Q_uu: Array
    free: Array | None
    slope: Array
    curvature: Array
    status: Array
    full_step: tuple[Array, Array] | None  # dx and du by the linear model, with parallel_in_time

    @classmethod
    def zero(cls, run: Run, at: Trajectory) -> Sweep:
        """Zero gains, before the first backward pass."""
        (T, nu), nx = at.us.shape, at.xs.shape[1]
        zero = jnp.zeros_like(at.cost)
        return cls(
            damping=Damping(jnp.full_like(zero, run.options.regularization), jnp.ones_like(zero)),
            curved=zero,
            K=jnp.zeros((T, nu, nx), at.us.dtype),
            k=jnp.zeros_like(at.us),
            Q_uu=jnp.zeros((T, nu, nu), at.us.dtype),
            free=None if run.limits is None else jnp.ones((T, nu), bool),
            slope=zero,
            curvature=zero,
            status=jnp.array(lqr.Status.SOLVED),
            full_step=(jnp.zeros_like(at.xs), jnp.zeros_like(at.us)) if run.options.parallel_in_time else None,
        )

    def decrease(self, alpha) -> Float[Array, ""]:
        """Of J, by the quadratic model."""
        return -(alpha * self.slope + 0.5 * alpha**2 * self.curvature)


class Step(NamedTuple):
    """The last step length tried, and where it leads."""

    tried: Array  # how many step lengths so far
    alpha: Array
    to: Trajectory
    expected: Array  # decrease by the model
    actual: Array
    accepted: Array


def sweep(run: Run, at: Trajectory, expansion: Expansion, old: Sweep, damping: Damping, curved: Array) -> Sweep:
    """Backward pass with the first regularisation of the schedule that makes every Q_uu positive definite.

    The share of the curvature of the dynamics is halved, at last to nothing, before the regularisation is raised.
    `old` is the sweep before, for the shapes of its arrays: with it in the loop the attempt is compiled once.
    """
    opts, dynamics, cost = run.options, expansion.dynamics, expansion.cost
    bounds = None if run.limits is None else (run.limits[0] - at.us, run.limits[1] - at.us)

    def attempt(damping: Damping, curved) -> Sweep:
        if opts.parallel_in_time:
            new = lqr_parallel.backward_pass(dynamics, cost, regularization=damping.value)
            full_step = lqr_parallel.full_step(dynamics, new.controller)
        else:
            full_step = None
            D = damping_rows(dynamics, damping.value, opts.regularization_type)
            second = None if expansion.second is None else share(curved, expansion.second)
            new = lqr.backward_pass(dynamics, cost, damping=D, bounds=bounds, second=second)
        K, k = new.controller.K, new.controller.k
        return Sweep(damping, curved, K, k, new.Q_uu, new.free, new.slope, new.curvature, new.status, full_step)

    def unfinished(carry):
        first, last = carry
        indefinite = last.status != lqr.Status.SOLVED
        return first | (indefinite & (last.damping.value < opts.regularization_max))

    def again(carry):
        first, last = carry
        harder = last.damping.changed(True, opts)
        damping = jax.tree.map(functools.partial(jnp.where, first | (last.curved > 0.0)), last.damping, harder)
        less = 0.5 * last.curved * (last.curved > 0.1)
        return jnp.array(False), attempt(damping, jax.lax.select(first, last.curved, less))

    return jax.lax.while_loop(unfinished, again, (jnp.array(True), old._replace(damping=damping, curved=curved)))[1]


def share(part: Float[Array, ""], second: Float[Array, "T nx nz nz"]) -> Float[Array, "T nx nz nz"]:
    """A part of the second derivatives; none is zero, also where they are not finite."""
    return jnp.where(part > 0.0, part * second, jnp.zeros_like(second))


def damping_rows(dynamics, value, kind: str) -> Float[Array, "T nu nz"]:
    """What a regularisation adds to the rows of u of Q."""
    T, nx, nu = dynamics.B.shape
    if kind == "state":
        return value * dynamics.B.mT @ jnp.concatenate([dynamics.A, dynamics.B], axis=-1)
    return jnp.broadcast_to(value * jnp.eye(nu, nx + nu, nx, dtype=dynamics.B.dtype), (T, nu, nx + nu))


def search(run: Run, old: Trajectory, back: Sweep, price, skip: Array) -> Step:
    """The first step that is accepted of the lengths 1, decay, decay^2, ..., or the last one tried.

    With `skip` none is tried, and staying counts as an accepted step that gained infinitely much.
    """
    line_search = run.options.line_search
    at_once = line_search == "parallel" or (line_search == "auto" and jax.default_backend() != "cpu")
    zero = jnp.zeros_like(old.cost)
    stay = Step(jnp.array(0), zero, old, zero, jnp.full_like(zero, jnp.inf), skip)
    return (search_at_once if at_once else search_backwards)(run, old, back, price, stay)


def search_backwards(run: Run, old: Trajectory, back: Sweep, price, stay: Step) -> Step:
    """Shorten the step until it is accepted; from `stay` on."""
    opts = run.options

    def attempt(last: Step):
        alpha = jnp.where(last.tried == 0, 1.0, last.alpha * opts.step_decay)
        return tried(run, old, back, price, alpha)._replace(tried=last.tried + 1)

    return jax.lax.while_loop(lambda last: ~last.accepted & (last.tried < opts.line_search_steps), attempt, stay)


def search_at_once(run: Run, old: Trajectory, back: Sweep, price, stay: Step) -> Step:
    """`stay` where it counts as accepted, else the longest step that does; the shortest where none does."""
    opts = run.options
    alphas = opts.step_decay ** jnp.arange(opts.line_search_steps, dtype=old.cost.dtype)
    steps = jax.vmap(lambda alpha: tried(run, old, back, price, alpha))(alphas)
    chosen = jnp.where(steps.accepted.any(), jnp.argmax(steps.accepted), len(alphas) - 1)
    return jax.tree.map(lambda alone, a: jnp.where(stay.accepted, alone, a[chosen]), stay, steps)


def tried(run: Run, old: Trajectory, back: Sweep, price, alpha) -> Step:
    """The step of length alpha, accepted where it gains at least the part `acceptance` of what the model expects."""
    to = along(run, old, back, alpha) if run.options.parallel_in_time else rolled(run, old, back, alpha)
    closed = sum_of_gaps(run, old)
    expected = back.decrease(alpha) + price * alpha * closed
    actual = old.cost - to.cost + price * (closed - sum_of_gaps(run, to))
    accepted = finite(to) & (actual > 0.0) & (actual >= run.options.acceptance * expected)
    return Step(jnp.array(0), alpha, to, expected, actual, accepted)


def rolled(run: Run, old: Trajectory, back: Sweep, alpha) -> Trajectory:
    """The trajectory of u = u_old + alpha k + K (x - x_old), with the part 1 - alpha of every gap."""

    def act(x, t):
        u = old.us[t] + alpha * back.k[t] + product(back.K[t], x - old.xs[t])
        return u if run.limits is None else jnp.clip(u, run.limits[0][t], run.limits[1][t])

    gaps = (1.0 - alpha) * old.gaps if run.gaps else None
    return run.problem.rollout(old.xs[0], len(old.us), act, run.data, gaps)


def along(run: Run, old: Trajectory, back: Sweep, alpha) -> Trajectory:
    """States and actions moved along the step of the linear model: no loop over time, but gaps of second order."""
    assert back.full_step is not None
    dx, du = back.full_step
    return run.problem.given(old.xs + alpha * dx, old.us + alpha * du, run.data)


def sum_of_gaps(run: Run, at: Trajectory) -> Float[Array, ""]:
    """sum |gaps|."""
    return jnp.abs(at.gaps).sum() if run.gaps else jnp.zeros_like(at.cost)


def largest_gap(run: Run, at: Trajectory) -> Float[Array, ""]:
    """max |gap|."""
    return jnp.abs(at.gaps).max() if run.gaps else jnp.zeros_like(at.cost)


def finite(tree) -> Bool[Array, ""]:
    """Whether every number is finite; one reduction, which compiles faster than one for each array."""
    return jnp.isfinite(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])).all()
