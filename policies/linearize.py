"""A policy linearised around trajectories: u[t] ~ N(K[t] x + k[t], ...), as a time-varying controller.

By automatic differentiation where the observation is a function of the state alone; by regression over
samples where the policy remembers, sees images or noise, or for comparison with the literature.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers.types import LinearGaussian


def by_differentiation(
    mean: Callable[[Float[Array, " nx"]], Float[Array, " nu"]],
    xs: Float[Array, "N T nx"],
    weights: Float[Array, " N"],
    std: Float[Array, "#T nu"],
) -> LinearGaussian:
    """Linearise the mean action as a function of the state, averaged over N samples at each time step.

    Args:
        mean: the policy's mean action in a state.
        xs: states of the samples.
        weights: 0 for samples that do not count.
        std: standard deviation of the policy's actions, at each time step or at all of them.
    """
    share = weights / jnp.maximum(weights.sum(), 1e-12)

    def at(x):
        u, pull = jax.vjp(mean, x)
        return u, jax.vmap(lambda row: pull(row)[0])(jnp.eye(len(u), dtype=u.dtype))

    us, slopes = jax.vmap(jax.vmap(at))(xs)
    K = jnp.einsum("n,ntux->tux", share, slopes)
    centre_x = jnp.einsum("n,ntx->tx", share, xs)
    centre_u = jnp.einsum("n,ntu->tu", share, us)
    k = centre_u - jnp.einsum("tux,tx->tu", K, centre_x)
    return LinearGaussian(K, k, _diagonal(jnp.broadcast_to(std, k.shape)))


def by_regression(
    xs: Float[Array, "N T nx"],
    us: Float[Array, "N T nu"],
    weights: Float[Array, " N"],
    std: Float[Array, "#T nu"],
    window: int = 2,
    strength: float = 1.0,
) -> LinearGaussian:
    """Regress mean actions on states at each time step, over the samples of steps t - window .. t + window.

    The slope is held to the slope pooled over the whole horizon by a prior worth `strength` samples; what
    the regression does not explain is added to the covariance, since to a controller it is noise.

    Args:
        xs: states of the samples.
        us: the policy's mean actions there.
        weights: 0 for samples that do not count.
        std: standard deviation of the policy's actions around its mean, at each time step or at all of them.
    """
    T = xs.shape[1]
    total = jnp.maximum(weights.sum(), 1e-12)
    mean_x = jnp.einsum("n,ntx->tx", weights, xs) / total
    mean_u = jnp.einsum("n,ntu->tu", weights, us) / total
    dx, du = xs - mean_x, us - mean_u
    xx = jnp.einsum("n,ntx,nty->txy", weights, dx, dx) / total
    ux = jnp.einsum("n,ntu,ntx->tux", weights, du, dx) / total
    uu = jnp.einsum("n,ntu,ntv->tuv", weights, du, du) / total

    variances = jnp.diagonal(xx.mean(0))
    floor = jnp.diag(1e-4 * variances + 1e-6 * variances.max() + 1e-10)
    prior_xx = xx.mean(0) + floor
    prior = jax.scipy.linalg.solve(prior_xx, ux.mean(0).T, assume_a="pos").T

    near = (jnp.abs(jnp.arange(T)[:, None] - jnp.arange(T)) <= window).astype(xs.dtype)
    near = near / near.sum(1, keepdims=True)
    xx, ux, uu = (jnp.tensordot(near, m, axes=1) for m in (xx, ux, uu))

    def solve(xx, ux, uu, std):
        gram = total * xx + strength * prior_xx
        cross = total * ux + strength * prior @ prior_xx
        K = jax.scipy.linalg.solve(gram, cross.T, assume_a="pos").T
        residual = uu - K @ ux.T - ux @ K.T + K @ xx @ K.T
        cov = 0.5 * (residual + residual.T) + jnp.diag(std**2)
        return K, jnp.linalg.cholesky(cov + 1e-6 * jnp.diag(jnp.diagonal(cov)))

    K, chol = jax.vmap(solve)(xx, ux, uu, jnp.broadcast_to(std, mean_u.shape))
    return LinearGaussian(K, mean_u - jnp.einsum("tux,tx->tu", K, mean_x), chol)


def _diagonal(std: Float[Array, "T nu"]) -> Float[Array, "T nu nu"]:
    return std[..., None] * jnp.eye(std.shape[-1], dtype=std.dtype)
