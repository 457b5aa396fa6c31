"""One controller update inside a trust region.

    minimise   E_p[cost] - sum_t entropy_weight[t] * entropy(p(u[t] | x[t]))
    over       linear-Gaussian controllers p
    subject to sum_t E_p[ KL(p(u | x[t]) || reference(u | x[t])) ] <= limit   (nats per trajectory)

For a multiplier eta of the constraint the minimiser is one Riccati sweep with the cost
`cost + eta * (-log reference)` at temperature `entropy_weight + eta`; the KL falls as eta grows.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from . import lqr
from .kl import add_weighted, kl_per_step, negative_log_prob
from .marginals import propagate
from .types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class Status(enum.IntEnum):
    """How the search for eta ended."""

    CONVERGED = 0  # the KL is at the limit, to the tolerance
    INACTIVE = 1  # the KL is below the limit at the smallest eta: the constraint does not bind
    UNREACHABLE = 2  # even the largest eta exceeds the limit; the reference is returned
    INDEFINITE = 3  # no eta made every Q_uu positive definite; the reference is returned
    SWEEPS = 4  # out of sweeps; the best controller inside the limit is returned


@dataclass(frozen=True)
class Options:
    """Settings of the search."""

    tolerance: float = 0.01  # relative distance of the KL from its limit that counts as converged
    max_sweeps: int = 30
    eta_min: float = 1e-8  # task units per nat
    eta_max: float = 1e12  # task units per nat
    # Smallest standard deviation of an action, given those before it. Exploration that is added to a controller after
    # the search would undo a part of the step that the limit was spent on.
    std_floor: float = 0.0

    def __post_init__(self):
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance must be between 0 and 1, not {self.tolerance}")
        if self.max_sweeps < 1:
            raise ValueError(f"max_sweeps must be at least 1, not {self.max_sweeps}")
        if not 0.0 < self.eta_min < self.eta_max:
            raise ValueError(f"eta_min must be positive and below eta_max, not {self.eta_min} and {self.eta_max}")
        if not self.std_floor >= 0.0:
            raise ValueError(f"std_floor must be at least 0, not {self.std_floor}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrustRegionSolution:
    """The new controller (always finite, always inside the limit) and how it was found."""

    controller: LinearGaussian
    states: Gaussian  # its state marginals, T+1
    eta: Float[Array, ""]  # multiplier of the KL limit, task units per nat; warm start of the next solve
    kl: Float[Array, ""]  # nats per trajectory
    sweeps: Int[Array, ""]  # Riccati sweeps used
    status: Int[Array, ""]  # a Status


class _Search(NamedTuple):
    """Bracket of log eta with f = log(KL / limit) at its ends, and the best controller so far."""

    s: Array  # log eta to try next
    step: Array  # the step that led to s
    low: Array  # largest log eta known to exceed the limit (or to be indefinite); -inf when none is
    high: Array  # smallest log eta known to be inside the limit; inf when none is
    f_low: Array  # NaN where indefinite; shrunk while the other end alone moves (Anderson and Bjorck)
    f_high: Array
    last_f: Array  # f of the previous sweep; NaN when unknown
    best: TrustRegionSolution
    done: Array


def solve(
    dynamics: LinearDynamics,
    cost: QuadraticCost,
    reference: LinearGaussian,
    limit: Float[Array, ""] | float,
    initial: Gaussian,
    *,
    entropy_weight: Float[Array, " T"] | float = 0.0,
    eta: Float[Array, ""] | float = 1.0,
    options: Options | None = None,
) -> TrustRegionSolution:
    """Solve the problem at the top of this file by a safeguarded secant search on log(eta + mean entropy weight).

    log KL is nearly linear in it, so that the secant needs three or four sweeps from a good start;
    the bracket makes it converge from any. (jaxopt's root finders do not serve: its bisection halves the whole
    range of log eta and knows neither of the slope nor of an indefinite Q_uu, which has no KL.)

    Args:
        dynamics: T local models.
        cost: in task units.
        reference: the controller that the limit is measured from.
        limit: nats per trajectory, positive.
        initial: distribution of x[0].
        entropy_weight: task units per nat and step; the weight nu of a further term nu KL(p || q) whose
            -log q part is already in `cost`.
        eta: where the search starts.
        options: tolerance, sweeps and bounds of eta.

    Errors:
        Raises nothing under jit; see Status. The controller is never NaN as long as the reference is not.

    Source:
        Levine and Abbeel, "Learning neural network policies with guided policy search under unknown
        dynamics", NIPS 2014, section 3.1. Unlike its public code, eta may go to zero where the limit is
        inactive. Entropy weights that vary in time enter as temperatures here; the public code divides each stage
        cost by its own weight and rescales the value function between steps, which gives the same controller.
    """
    opts = options or Options()
    surprise = negative_log_prob(reference)
    # the KL does not change with an eta far below the entropy weight: their sum is what log KL is linear in
    shift = jnp.mean(entropy_weight)
    s_min, s_max = jnp.log(opts.eta_min + shift), jnp.log(opts.eta_max + shift)
    log_limit = jnp.log(limit)

    def eta_of(s):
        return jnp.maximum(jnp.exp(s) - shift, opts.eta_min)

    def sweep(s):
        eta = eta_of(s)
        total = add_weighted(cost, jnp.broadcast_to(eta, cost.c.shape), surprise)
        solution = lqr.backward_pass(dynamics, total, temperature=entropy_weight + eta)
        controller = with_std_floor(solution.controller, opts.std_floor)
        states = propagate(dynamics, controller, initial)
        # rounding may make a tiny KL negative; it is zero then
        kl = jnp.maximum(kl_per_step(controller, reference, states).sum(), 0.0)
        definite = (solution.status == lqr.Status.SOLVED) & jnp.isfinite(kl)
        return controller, states, kl, definite

    def body(search: _Search) -> _Search:
        s = search.s
        controller, states, kl, definite = sweep(s)
        f = jnp.where(definite, jnp.log(jnp.maximum(kl, 1e-30)) - log_limit, jnp.nan)
        fits = definite & (f <= jnp.log1p(opts.tolerance))
        close = fits & (f >= jnp.log1p(-opts.tolerance))
        inactive = fits & ~close & (s <= s_min)
        exhausted = ~fits & (s >= s_max)
        status = jnp.select(
            [close, inactive, exhausted & definite, exhausted],
            [Status.CONVERGED, Status.INACTIVE, Status.UNREACHABLE, Status.INDEFINITE],
            Status.SWEEPS,
        )
        low, high, f_low, f_high = _tighten(search, f, fits)
        candidate = TrustRegionSolution(controller, states, eta_of(s), kl, search.best.sweeps, status)
        best = _where(fits, candidate, search.best)
        best = _replace_counts(best, search.best.sweeps + 1, status)
        stuck = high - low < 8.0 * jnp.finfo(s.dtype).eps * (1.0 + jnp.abs(s))
        following = _next(s, f, search.step, search.last_f, (low, high, f_low, f_high))
        following = jnp.clip(following, s_min, s_max)
        return _Search(
            s=following,
            step=following - s,
            low=low,
            high=high,
            f_low=f_low,
            f_high=f_high,
            last_f=f,
            best=best,
            done=close | inactive | exhausted | stuck,
        )

    def unfinished(search: _Search):
        return ~search.done & (search.best.sweeps < opts.max_sweeps)

    dtype = reference.k.dtype
    start = jnp.clip(jnp.log(jnp.asarray(eta, dtype) + shift), s_min, s_max)
    nan, inf = jnp.asarray(jnp.nan, dtype), jnp.asarray(jnp.inf, dtype)
    fallback = TrustRegionSolution(
        controller=reference,
        states=_blank(initial, len(reference.k)),
        eta=eta_of(start),
        kl=jnp.zeros((), dtype),
        sweeps=jnp.zeros((), jnp.int32),
        status=jnp.asarray(Status.SWEEPS, jnp.int32),
    )
    first = _Search(start, jnp.zeros_like(start), -inf, inf, nan, nan, nan, fallback, jnp.asarray(False))
    end = jax.lax.while_loop(unfinished, body, first)
    # a loop, because under vmap a `cond` would always compute the marginals of the reference
    nothing_fits = jnp.isinf(end.high)
    states = jax.lax.while_loop(
        lambda carry: carry[0],
        lambda _: (jnp.asarray(False), propagate(dynamics, reference, initial)),
        (nothing_fits, end.best.states),
    )[1]
    return dataclasses.replace(end.best, states=states)


def with_std_floor(controller: LinearGaussian, std: float) -> LinearGaussian:
    """A controller none of whose actions is more certain than `std`, given those before it; the means are the same.

    The diagonal of a Cholesky factor holds the standard deviation of each action given those before it.
    """
    if std == 0.0:
        return controller
    diagonal = jnp.diagonal(controller.chol, axis1=-2, axis2=-1)
    missing = jnp.maximum(std - diagonal, 0.0)
    return dataclasses.replace(controller, chol=controller.chol + missing[..., None] * jnp.eye(diagonal.shape[-1]))


def _tighten(search: _Search, f: Array, fits: Array) -> tuple[Array, Array, Array, Array]:
    """The bracket after a sweep at search.s: (low, high, f_low, f_high)."""
    low, f_low = jnp.where(fits, search.low, search.s), jnp.where(fits, search.f_low, f)
    high, f_high = jnp.where(fits, search.s, search.high), jnp.where(fits, f, search.f_high)
    again_high, again_low = fits & (search.last_f <= 0.0), ~fits & (search.last_f > 0.0)
    ratio = 1.0 - f / search.last_f
    shrink = jnp.where(ratio > 0.0, ratio, 0.5)
    f_low = jnp.where(again_high, shrink * f_low, f_low)
    f_high = jnp.where(again_low, shrink * f_high, f_high)
    return low, high, f_low, f_high


def _next(s: Array, f: Array, step: Array, last_f: Array, bracket: tuple[Array, Array, Array, Array]) -> Array:
    """Log eta to try next: inside a bracket the chord of its ends, else the secant, longer where KL is flat."""
    low, high, f_low, f_high = bracket
    weight = f_low / (f_low - f_high)
    chord = jnp.where(jnp.isfinite(weight), low + weight * (high - low), 0.5 * (low + high))
    margin = 0.01 * (high - low)
    chord = jnp.clip(chord, low + margin, high - margin)

    usable = jnp.isfinite(last_f) & jnp.isfinite(f) & (step != 0.0)
    slope = jnp.where(usable, (f - last_f) / jnp.where(usable, step, 1.0), -1.4)
    secant = -f / jnp.clip(slope, -3.0, -0.2)  # KL ~ eta^-2 for large eta, flatter below
    up = ~(f < 0.0)
    longer = jnp.where(up, 1.0, -1.0) * jnp.maximum(jnp.abs(secant), 3.0 * jnp.abs(step))
    longer = jnp.where(jnp.isfinite(f), longer, jnp.maximum(2.3, 2.0 * jnp.abs(step)))
    secant = jnp.where((slope > -0.2) | ~jnp.isfinite(f), longer, secant)
    alone = s + jnp.clip(secant, -9.0, 9.0)
    return jnp.where(jnp.isfinite(low) & jnp.isfinite(high), chord, alone)


def _blank(initial: Gaussian, T: int) -> Gaussian:
    """Zeros in the place of T+1 state marginals."""
    return jax.tree.map(lambda a: jnp.zeros((T + 1, *a.shape), a.dtype), initial)


def _where(condition, yes: TrustRegionSolution, no: TrustRegionSolution) -> TrustRegionSolution:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _replace_counts(solution: TrustRegionSolution, sweeps, status) -> TrustRegionSolution:
    return dataclasses.replace(solution, sweeps=sweeps, status=jnp.asarray(status, jnp.int32))
