"""Path-integral updates of linear-Gaussian controllers: what sampled costs alone say, and what a model adds.

At each time step t on its own, N samples with costs-to-go S_n (from t on) are weighed anew:

    minimise   sum_n w_n S_n
    over       weights w
    subject to KL(w || 1/N) <= limit[t]   (nats)

The minimiser is w_n ~ exp(-S_n / eta), where the temperature eta minimises the dual of relative entropy policy search,

    g(eta) = eta limit + eta log mean_n exp(-S_n / eta),    g'(eta) = limit - KL(w || 1/N).

A controller u ~ N(K x + k, L L') whose samples had the noise xi_n = L^-1 (u_n - K x_n - k) moves to the weighted noise:

    k <- k + L sum_n (w_n - 1/N) xi_n,    L <- sqrt(m) L,    m = weighted variance of xi / its variance

and keeps its feedback K. Equal costs leave it as it is.

Where a linear-quadratic model predicts costs-to-go P_n from the same noise, they split into what it explains and a
residual, S = beta P + R, by least squares at each time step. A model that is exact has beta = 1 and R = 0, one that
explains nothing beta = 0 and R = S.

Sources:
    Theodorou, Buchli, Schaal, "A generalized path integral control approach to reinforcement learning", JMLR 2010;
    Peters, Muelling, Altun, "Relative entropy policy search", AAAI 2010, for the temperature;
    Chebotar et al., "Combining model-based and model-free updates for trajectory-centric reinforcement learning",
    ICML 2017, for the residual. Departures: the mean noise of the samples is taken off, which otherwise moves k by
    chance; one factor m scales the covariance, as few samples tell no more; beta is 1 in the paper.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .marginals import quadratic_mean
from .minimisers import Bisection
from .types import LinearDynamics, LinearGaussian, QuadraticCost, solve_lower

if TYPE_CHECKING:
    from jaxtyping import Array, Float

COLDEST = 1e-3  # temperature, in units of the range of the costs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PathIntegralStep:
    """A controller that was moved towards its cheaper samples."""

    controller: LinearGaussian
    weights: Float[Array, "N T"]  # sum to 1 at each time step
    eta: Float[Array, " T"]  # temperature, task units per nat
    kl: Float[Array, " T"]  # nats, KL(new || old), the same in every state


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Split:
    """Costs-to-go as a model explains them: S = beta P + R."""

    residual: Float[Array, "N T"]  # R, task units
    beta: Float[Array, " T"]  # at least 0
    explained: Float[Array, " T"]  # share of the variance of S over the samples, 0 to 1, less what chance explains


def temperature(costs: Float[Array, " N"], limit: Float[Array, ""], share: Float[Array, " N"]) -> Float[Array, ""]:
    """The minimiser eta of the dual at the top of this file, by bisection of its slope on log eta.

    With r the range of the costs, KL <= (r / eta)^2 / 8 (Hoeffding), so that eta is at most r / sqrt(8 limit). Where
    the limit does not bind, eta is COLDEST r; where all costs are equal, any will do.

    Args:
        costs: task units.
        limit: nats, positive.
        share: weights of the samples before, in place of 1/N; sum to 1, and 0 for one that does not count.
    """
    counts = share > 0
    least = jnp.where(counts, costs, jnp.inf).min()
    spread = jnp.where(counts, costs, -jnp.inf).max() - least
    spread = jnp.where(spread > 0, spread, 1.0)
    scaled = jnp.where(counts, (costs - least) / spread, 0.0)

    def excess(log_eta):
        return _kl(tilted(scaled, jnp.exp(log_eta), share), share) - limit

    coldest = jnp.log(jnp.asarray(COLDEST, costs.dtype))
    warmest = jnp.maximum(-0.5 * jnp.log(8.0 * limit), coldest)

    def between(part):  # jaxopt takes the ends of an interval as numbers
        return coldest + part * (warmest - coldest)

    search = Bisection(lambda part: excess(between(part)), 0.0, 1.0, maxiter=60, tol=0.0, check_bracket=False)
    log_eta = between(jnp.asarray(search.run().params))
    return spread * jnp.exp(jnp.where(excess(coldest) > 0, log_eta, coldest))


def tilted(costs: Float[Array, " N"], eta: Float[Array, ""], share: Float[Array, " N"]) -> Float[Array, " N"]:
    """Weights ~ share exp(-costs / eta), which sum to 1."""
    return jax.nn.softmax(jnp.where(share > 0, jnp.log(share) - costs / eta, -jnp.inf))


def improve(
    controller: LinearGaussian,
    noise: Float[Array, "N T nu"],
    costs_to_go: Float[Array, "N T"],
    limit: Float[Array, " T"],
    share: Float[Array, " N"],
) -> PathIntegralStep:
    """The update at the top of this file.

    Args:
        controller: what moves; the noise need not have been its own.
        noise: of the samples, whitened (`whitened_noise`).
        costs_to_go: task units.
        limit: nats at each time step; where it is 0 nothing moves.
        share: of each sample in a mean; sum to 1.
    """
    moves = limit > 0
    eta = jax.vmap(temperature, (1, 0, None))(costs_to_go, jnp.where(moves, limit, 1.0), share)
    weights = jax.vmap(tilted, (1, 0, None), 1)(costs_to_go, eta, share)
    weights = jnp.where(moves, weights, share[:, None])

    shift = jnp.einsum("nt,ntu->tu", weights - share[:, None], noise)
    even = jnp.broadcast_to(share[:, None], weights.shape)
    # a weighted variance is too small by sum w^2, which is added: then m is 1 in the mean where costs are chance
    variance = _variance(even, noise) / jnp.maximum(1.0 - (share**2).sum(), 1e-6)
    m = _variance(weights, noise) / jnp.maximum(variance, 1e-12) + (weights**2).sum(0)
    moved = dataclasses.replace(
        controller,
        k=controller.k + jnp.einsum("tuv,tv->tu", controller.chol, shift),
        chol=jnp.sqrt(m)[:, None, None] * controller.chol,
    )
    nu = noise.shape[-1]
    kl = 0.5 * ((shift**2).sum(-1) + nu * (m - 1.0 - jnp.log(m)))
    return PathIntegralStep(moved, weights, eta, kl)


def whitened_noise(
    controller: LinearGaussian, xs: Float[Array, "N T nx"], us: Float[Array, "N T nu"]
) -> Float[Array, "N T nu"]:
    """xi with u = K x + k + chol xi: what moved each sample away from the controller's mean."""
    return jax.vmap(lambda xs, us: solve_lower(controller.chol, us - controller.means(xs)))(xs, us)


def costs_to_go(costs: Float[Array, "N T+1"]) -> Float[Array, "N T"]:
    """Cost of each sample from each action on, the final cost included."""
    return jnp.cumsum(costs[:, ::-1], axis=1)[:, :0:-1]


def predicted_costs(
    dynamics: LinearDynamics,
    cost: QuadraticCost,
    controller: LinearGaussian,
    starts: Float[Array, "N nx"],
    noise: Float[Array, "N T nu"],
) -> Float[Array, "N T+1"]:
    """What a model says that each sample costs, given where it starts and the noise of its actions."""

    def step(x, inputs):
        A, B, c, K, k, chol, H, g, constant, xi = inputs
        u = K @ x + k + chol @ xi
        z = jnp.concatenate([x, u])
        return A @ x + B @ u + c, 0.5 * z @ H @ z + g @ z + constant

    def one(start, noise):
        d, p = dynamics, controller
        inputs = (d.A, d.B, d.c, p.K, p.k, p.chol, cost.H, cost.g, cost.c, noise)
        x, stages = jax.lax.scan(step, start, inputs)
        final = quadratic_mean(cost.H_final, cost.g_final, cost.c_final, x, jnp.zeros_like(cost.H_final))
        return jnp.append(stages, final)

    return jax.vmap(one)(starts, noise)


def split(costs_to_go: Float[Array, "N T"], predicted: Float[Array, "N T"], share: Float[Array, " N"]) -> Split:
    """Least squares at each time step, with beta at least 0; a prediction that is not finite explains nothing."""
    usable = jnp.isfinite(predicted).all(0)
    predicted = jnp.where(usable, predicted, 0.0)
    of, given = (values - share @ values for values in (costs_to_go, predicted))
    largest = jnp.maximum(jnp.abs(given).max(0), 1e-20)  # a model that diverges predicts squares beyond float32
    given = given / largest
    cross, square, total = (share @ (a * b) for a, b in ((of, given), (given, given), (of, of)))
    slope = jnp.maximum(cross, 0.0) / jnp.maximum(square, 1e-20)
    residual = costs_to_go - slope * given
    left = (share @ (of - slope * given) ** 2) / jnp.maximum(total, 1e-20)
    # one slope fits 1 / (n - 1) of the variance of n samples by chance
    n = 1.0 / (share**2).sum()
    explained = 1.0 - left * (n - 1.0) / jnp.maximum(n - 2.0, 1.0)
    return Split(residual, slope / largest, jnp.clip(explained, 0.0, 1.0))


def _kl(weights: Array, share: Array) -> Array:
    """KL(weights || share) in nats."""
    ratio = jnp.where(weights > 0, weights / jnp.where(share > 0, share, 1.0), 1.0)
    return (weights * jnp.log(ratio)).sum()


def _variance(weights: Float[Array, "N T"], noise: Float[Array, "N T nu"]) -> Float[Array, " T"]:
    """Weighted variance around the weighted mean; mean over the actions."""
    centred = noise - jnp.einsum("nt,ntu->tu", weights, noise)
    return jnp.einsum("nt,ntu->t", weights, centred**2) / noise.shape[-1]
