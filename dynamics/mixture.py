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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """What a maximisation takes of points w and their shares in K clusters."""

    count: Float[Array, " K"]  # sum of shares
    first: Float[Array, "K nw"]  # of w
    second: Float[Array, "K nw nw"]  # of w w'


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whitening:
    """A mixture as log densities take it: cluster k has maps[k] (w - centre) - means[k] ~ N(0, I)."""

    centre: Float[Array, " nw"]
    maps: Float[Array, "K nw nw"]
    means: Float[Array, "K nw"]
    logs: Float[Array, " K"]  # log density of weight and volume; -inf where a cluster is not in use


def none_yet(clusters: int, nw: int) -> Mixture:
    """A mixture that has seen nothing."""
    covs = jnp.broadcast_to(jnp.eye(nw), (clusters, nw, nw))
    return Mixture(jnp.zeros(clusters), jnp.zeros((clusters, nw)), covs)


def whitening(mixture: Mixture) -> Whitening:
    """Maps after which every cluster is a standard Gaussian."""
    nw = mixture.means.shape[1]
    factors = jnp.linalg.cholesky(mixture.covs)
    eye = jnp.broadcast_to(jnp.eye(nw, dtype=factors.dtype), factors.shape)
    maps = jax.lax.linalg.triangular_solve(factors, eye, left_side=True, lower=True)
    centre = mixture.weights @ mixture.means  # what all points have in common would cost digits in the products
    means = (maps @ (mixture.means - centre)[..., None])[..., 0]
    volumes = jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)).sum(1) + 0.5 * nw * jnp.log(2.0 * jnp.pi)
    logs = jnp.log(jnp.maximum(mixture.weights, 1e-30)) - volumes
    return Whitening(centre, maps, means, jnp.where(mixture.weights > 0, logs, -jnp.inf))


def responsibilities(white: Whitening, points: Float[Array, "P nw"]) -> tuple[Float[Array, "P K"], Float[Array, " P"]]:
    """p(cluster | point), and log p(point)."""
    K, nw = white.means.shape
    # one product for all clusters, points last: that is what a CPU is fast at
    mapped = (white.maps.reshape(K * nw, nw) @ (points - white.centre).T).reshape(K, nw, -1)
    joint = white.logs[:, None] - 0.5 * ((mapped - white.means[..., None]) ** 2).sum(1)
    total = jax.scipy.special.logsumexp(joint, axis=0)
    return jnp.exp(joint - total).T, total


def sums(points: Float[Array, "P nw"], shares: Float[Array, "P K"]) -> Sums:
    """Of points that belong to clusters by these shares."""
    K, nw = shares.shape[1], points.shape[1]
    shared = shares.T[:, None] * points.T
    return Sums(shares.sum(0), shared.sum(-1), (shared.reshape(K * nw, -1) @ points).reshape(K, nw, nw))


def maximise(total: Sums, spread: Float[Array, " nw"], ridge: float) -> Mixture:
    """The mixture under which the points are likeliest.

    Args:
        total: of points whose overall mean is zero, or near enough for w w' to tell a cluster's covariance.
        spread: variances over all points; each cluster counts one observation of them beside its own, and `ridge`
            of them at least.
    """
    count = total.count[:, None]
    means = total.first / jnp.maximum(count, 1e-6)
    own = total.second - total.first[:, :, None] * means[:, None]
    floor = jnp.diag(spread)
    covs = (own + _OVERALL * floor) / (count + _OVERALL)[..., None] + ridge * floor
    return Mixture(total.count / jnp.maximum(total.count.sum(), 1e-6), means, covs)


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
    anew = known * 1.5 < usable  # rarely: what is carried over is worth more than one cluster
    clusters = jnp.arange(len(last.weights)) < usable
    first = jax.lax.cond(
        anew,
        lambda: maximise(sums(points, start(points, weights, clusters, key)), unit, _RIDGE),
        lambda: Mixture(last.weights, (last.means - mean) / std, last.covs / std / std[:, None]),
    )
    blocks = _blocks(points), _blocks(weights)

    def turn(state):
        mixture, i, before, _ = state
        total, likelihood = _expectation(mixture, *blocks)
        now = likelihood / jnp.maximum(count, 1.0)
        return maximise(total, unit, _RIDGE), i + 1, now, now - before

    state = (first, 0, jnp.asarray(-jnp.inf, points.dtype), jnp.asarray(jnp.inf, points.dtype))
    fitted, *_ = jax.lax.while_loop(lambda s: (s[1] < turns) & (s[3] > tolerance), turn, state)
    fitted = Mixture(fitted.weights, fitted.means * std + mean, fitted.covs * std * std[:, None])
    sound = jnp.isfinite(fitted.covs).all() & jnp.isfinite(fitted.weights).all() & (count > 0)
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), fitted, last)


def _expectation(
    mixture: Mixture, points: Float[Array, "B b nw"], weights: Float[Array, "B b"]
) -> tuple[Sums, Float[Array, ""]]:
    """Sums of points that belong to clusters by their responsibilities, and log p(all points)."""
    white = whitening(mixture)

    def add(total, block):
        points, weights = block
        shares, likelihood = responsibilities(white, points)
        return jax.tree.map(jnp.add, total, (sums(points, shares * weights[:, None]), weights @ likelihood)), None

    zero = Sums(*map(jnp.zeros_like, (mixture.weights, mixture.means, mixture.covs))), jnp.zeros((), points.dtype)
    return jax.lax.scan(add, zero, (points, weights))[0]


def moments(mixture: Mixture, shares: Float[Array, " K"]) -> tuple[Float[Array, " nw"], Float[Array, "nw nw"]]:
    """Mean and covariance of the clusters together, weighed by shares that sum to one."""
    mean = shares @ mixture.means
    offset = mixture.means - mean
    return mean, jnp.einsum("k,kvw->vw", shares, mixture.covs) + (offset * shares[:, None]).T @ offset


def _blocks(values: Float[Array, "P *n"]) -> Float[Array, "B b *n"]:
    """Cut into parts that a processor's cache holds, with zeros at the end of the last one."""
    padding = [(0, -len(values) % _BLOCK)] + [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, padding).reshape(-1, _BLOCK, *values.shape[1:])


_RIDGE = 1e-5  # of all points' variances, in those of a cluster at least
_OVERALL = 1.0  # observations of all points' variances beside those of a cluster
_BLOCK = 500  # points that are worked on at a time
