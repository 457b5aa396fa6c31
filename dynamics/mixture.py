"""A Gaussian mixture over transitions, fitted by expectation maximisation: a prior of dynamics that differ by region.

    w = (x, u, x' - x) ~ sum_k weight_k N(mean_k, cov_k)

All arrays have the shape of the largest number of clusters; those that are not in use have weight zero.

Source:
    Levine and Abbeel, NIPS 2014, section 3.2; the numbers (40 points a cluster, 20 clusters) are those of the public
    guided-policy-search code. That code started from random responsibilities; here clusters start by k-means++.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """K clusters in absolute coordinates."""

    weights: Float[Array, " K"]  # sum to one; 0 where a cluster is not in use
    means: Float[Array, "K nw"]
    covs: Float[Array, "K nw nw"]


def none_yet(clusters: int, nw: int) -> Mixture:
    """A mixture that has seen nothing."""
    covs = jnp.broadcast_to(jnp.eye(nw), (clusters, nw, nw))
    return Mixture(jnp.zeros(clusters), jnp.zeros((clusters, nw)), covs)


def responsibilities(mixture: Mixture, points: Float[Array, "P nw"]) -> tuple[Float[Array, "P K"], Float[Array, " P"]]:
    """p(cluster | point), and log p(point)."""
    factors = jnp.linalg.cholesky(mixture.covs)
    eye = jnp.broadcast_to(jnp.eye(points.shape[1]), factors.shape)
    whitening = jax.lax.linalg.triangular_solve(factors, eye, left_side=True, lower=True)

    def log_density(cluster):
        mean, factor, whiten = cluster
        white = (points - mean) @ whiten.T
        return -0.5 * (white**2).sum(1) - jnp.log(jnp.diagonal(factor)).sum()

    # one product of matrices after the other: on a CPU the solves and products of all at once take three times as long
    densities: Array = jax.lax.map(log_density, (mixture.means, factors, whitening)).T
    densities = densities - 0.5 * points.shape[1] * jnp.log(2.0 * jnp.pi)
    joint = jnp.where(mixture.weights > 0, densities + jnp.log(jnp.maximum(mixture.weights, 1e-30)), -jnp.inf)
    total = jax.scipy.special.logsumexp(joint, axis=1)
    return jnp.exp(joint - total[:, None]), total


def maximise(
    points: Float[Array, "P nw"], shares: Float[Array, "P K"], spread: Float[Array, " nw"], ridge: float
) -> Mixture:
    """The mixture under which points that belong to clusters by these shares are likeliest.

    Args:
        spread: variances over all points; each cluster counts one observation of them beside its own, and `ridge`
            of them at least.
    """
    counts = shares.sum(0)
    means = shares.T @ points / jnp.maximum(counts, 1e-6)[:, None]
    floor = jnp.diag(spread)

    def cov(cluster):
        share, mean, count = cluster
        centred = (points - mean) * jnp.sqrt(share)[:, None]
        own = centred.T @ centred
        return (own + _OVERALL * floor) / (count + _OVERALL) + ridge * floor

    covs = jax.lax.map(cov, (shares.T, means, counts))
    return Mixture(counts / jnp.maximum(counts.sum(), 1e-6), means, covs)


def start(
    points: Float[Array, "P nw"],
    weights: Float[Array, " P"],
    clusters: Bool[Array, " K"],
    key: PRNGKeyArray,
) -> Float[Array, "P K"]:
    """Shares by the nearest of centres that k-means++ draws: each in proportion to its squared distance.

    Args:
        points: in units in which distances mean something.
        clusters: which are in use.
    """

    def draw(carry, inputs):
        nearest, key_of = carry, inputs
        chosen = points[jax.random.categorical(key_of, jnp.log(jnp.maximum(weights * nearest, 1e-30)))]
        distance = ((points - chosen) ** 2).sum(1)
        return jnp.minimum(nearest, distance), distance

    keys = jax.random.split(key, len(clusters))
    _, distances = jax.lax.scan(draw, jnp.ones(len(points)), keys)
    distances = jnp.where(clusters[:, None], distances, jnp.inf)
    return jax.nn.one_hot(jnp.argmin(distances, axis=0), len(clusters)) * weights[:, None]


def fit(
    points: Float[Array, "P nw"],
    weights: Float[Array, " P"],
    last: Mixture,
    key: PRNGKeyArray,
    turns: int = 30,
    points_each: int = 40,
    ridge: float = 1e-5,
    tolerance: float = 1e-3,
) -> Mixture:
    """Fit a mixture by expectation maximisation, from the last one, or anew where more clusters can be told apart.

    Args:
        weights: 0 for points that do not count.
        last: where to start; it has as many clusters as the data then allowed.
        turns: at most, of expectation and maximisation.
        points_each: points for each cluster, at least.
        tolerance: gain in mean log likelihood, in nats a point, below which it ends.
    """
    count = weights.sum()
    mean = weights @ points / jnp.maximum(count, 1.0)
    spread = weights @ (points - mean) ** 2 / jnp.maximum(count, 1.0)
    std = jnp.where(spread > 0, jnp.sqrt(spread), 1.0)
    points, unit = (points - mean) / std, jnp.ones(points.shape[1])
    usable = jnp.clip(count // points_each, 1, len(last.weights))
    known = (last.weights > 0).sum()
    carried = Mixture(last.weights, (last.means - mean) / std, last.covs / std / std[:, None])
    clusters = jnp.arange(len(last.weights)) < usable
    anew = known * 1.5 < usable  # rarely: what is carried over is worth more than one cluster
    first = jax.lax.cond(
        anew,
        lambda: maximise(points, start(points, weights, clusters, key), unit, ridge),
        lambda: carried,
    )

    def turn(state):
        mixture, i, before, _ = state
        shares, likelihood = responsibilities(mixture, points)
        now = weights @ likelihood / jnp.maximum(count, 1.0)
        return maximise(points, shares * weights[:, None], unit, ridge), i + 1, now, now - before

    state = (first, 0, jnp.asarray(-jnp.inf, points.dtype), jnp.asarray(jnp.inf, points.dtype))
    fitted, *_ = jax.lax.while_loop(lambda s: (s[1] < turns) & (s[3] > tolerance), turn, state)
    fitted = Mixture(fitted.weights, fitted.means * std + mean, fitted.covs * std * std[:, None])
    sound = jnp.isfinite(fitted.covs).all() & jnp.isfinite(fitted.weights).all() & (count > 0)
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), fitted, last)


def moments(mixture: Mixture, shares: Float[Array, " K"]) -> tuple[Float[Array, " nw"], Float[Array, "nw nw"]]:
    """Mean and covariance of the clusters together, weighed by shares that sum to one."""
    mean = shares @ mixture.means
    offset = mixture.means - mean
    return mean, jnp.einsum("k,kvw->vw", shares, mixture.covs) + (offset * shares[:, None]).T @ offset


_OVERALL = 1.0  # observations of all points' variances beside those of a cluster
