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

from controllers import lqr
from controllers.kl import add_weighted, kl_per_step, negative_log_prob
from controllers.marginals import propagate
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost

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

    def __post_init__(self):
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance must be between 0 and 1, not {self.tolerance}")
        if self.max_sweeps < 1:
            raise ValueError(f"max_sweeps must be at least 1, not {self.max_sweeps}")
        if not 0.0 < self.eta_min < self.eta_max:
            raise ValueError(f"eta_min must be positive and below eta_max, not {self.eta_min} and {self.eta_max}")


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
    """Bracket of log eta, the last two points of the secant, and the best controller so far."""

    s: Array  # log eta to try next
    low: Array  # largest log eta known to exceed the limit (or to be indefinite)
    high: Array  # smallest log eta known to be inside the limit
    last_s: Array
    last_f: Array  # log(KL / limit) at last_s; NaN when unknown
    best: TrustRegionSolution
    definite: Array  # some eta had every Q_uu positive definite
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
    """Solve the problem at the top of this file by a safeguarded secant search on log eta.

    log KL is nearly linear in log eta, so that the secant needs three or four sweeps from a good start;
    the bracket makes it converge from any. (jaxopt.Bisection takes about 20 sweeps to the same tolerance.)

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
        inactive, and time-varying entropy weights enter as temperatures rather than by dividing each
        stage cost by its own weight, which mixes units along the horizon.
    """
    opts = options or Options()
    surprise = negative_log_prob(reference)
    s_min, s_max = jnp.log(opts.eta_min), jnp.log(opts.eta_max)
    log_limit = jnp.log(limit)

    def sweep(s):
        eta = jnp.exp(s)
        total = add_weighted(cost, jnp.broadcast_to(eta, cost.c.shape), surprise)
        solution = lqr.backward_pass(dynamics, total, temperature=entropy_weight + eta)
        states = propagate(dynamics, solution.controller, initial)
        # rounding may make a tiny KL negative; it is zero then
        kl = jnp.maximum(kl_per_step(solution.controller, reference, states).sum(), 0.0)
        definite = (solution.status == lqr.Status.SOLVED) & jnp.isfinite(kl)
        return solution.controller, states, kl, definite

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
        low = jnp.where(fits, search.low, jnp.maximum(s, search.low))
        high = jnp.where(fits, jnp.minimum(s, search.high), search.high)
        candidate = TrustRegionSolution(controller, states, jnp.exp(s), kl, search.best.sweeps, status)
        best = _where(fits, candidate, search.best)
        best = _replace_counts(best, search.best.sweeps + 1, status)
        stuck = high - low < 1e-5
        return _Search(
            s=_next(s, f, search.last_s, search.last_f, low, high, s_min, s_max),
            low=low,
            high=high,
            last_s=s,
            last_f=f,
            best=best,
            definite=search.definite | definite,
            done=close | inactive | exhausted | stuck,
        )

    def unfinished(search: _Search):
        return ~search.done & (search.best.sweeps < opts.max_sweeps)

    dtype = reference.k.dtype
    start = jnp.clip(jnp.log(jnp.asarray(eta, dtype)), s_min, s_max)
    nan, inf = jnp.asarray(jnp.nan, dtype), jnp.asarray(jnp.inf, dtype)
    fallback = TrustRegionSolution(
        controller=reference,
        states=propagate(dynamics, reference, initial),
        eta=jnp.exp(start),
        kl=jnp.zeros((), dtype),
        sweeps=jnp.zeros((), jnp.int32),
        status=jnp.asarray(Status.SWEEPS, jnp.int32),
    )
    first = _Search(start, -inf, inf, nan, nan, fallback, jnp.asarray(False), jnp.asarray(False))
    return jax.lax.while_loop(unfinished, body, first).best


def _next(s, f, last_s, last_f, low, high, s_min, s_max) -> Array:
    """Log eta to try next: the secant where it falls inside the bracket, else its middle, else a long step."""
    usable = jnp.isfinite(last_f) & jnp.isfinite(f) & (s != last_s)
    slope = jnp.where(usable, (f - last_f) / jnp.where(usable, s - last_s, 1.0), -1.4)
    slope = jnp.clip(slope, -3.0, -0.2)  # KL ~ eta^-2 for large eta, flatter below
    step = jnp.where(jnp.isfinite(f), -f / slope, jnp.log(10.0))
    candidate = s + jnp.clip(step, -9.0, 9.0)
    bracketed = jnp.isfinite(low) & jnp.isfinite(high)
    outside = (candidate <= low) | (candidate >= high) | ~jnp.isfinite(f)
    candidate = jnp.where(bracketed & outside, 0.5 * (low + high), candidate)
    return jnp.clip(candidate, s_min, s_max)


def _where(condition, yes: TrustRegionSolution, no: TrustRegionSolution) -> TrustRegionSolution:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _replace_counts(solution: TrustRegionSolution, sweeps, status) -> TrustRegionSolution:
    return dataclasses.replace(solution, sweeps=sweeps, status=jnp.asarray(status, jnp.int32))
