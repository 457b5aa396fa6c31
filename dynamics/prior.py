"""What is known of local dynamics before the samples of a time step are heard.

Dynamics are stated for z = (x, u) and the change y = x' - x, both in deviations from a mean trajectory: y = slope z.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """Normal-inverse-Wishart prior of the dynamics; with a leading T, one for each time step.

    At strength n, with a noise covariance S that is inverse-Wishart of mean `noise` and weighs as n observations:
    slope ~ N(`slope`, S x (n `inputs`)^-1). A direction of z in which `inputs` is small is left to the samples. Nothing
    is known of the mean of y.
    """

    slope: Float[Array, "*T nx nz"]
    inputs: Float[Array, "*T nz nz"]  # covariance of z in what the prior has seen
    noise: Float[Array, "*T nx nx"]  # covariance of y - slope z


def transitions(xs: Float[Array, "*b T+1 nx"], us: Float[Array, "*b T nu"]) -> Float[Array, "*b T nw"]:
    """w = (z, y) = (x, u, x' - x) for each time step."""
    return jnp.concatenate([xs[..., :-1, :], us, xs[..., 1:, :] - xs[..., :-1, :]], axis=-1)


def moments(w: Float[Array, "P nw"], weights: Float[Array, " P"]) -> tuple[Array, Array]:
    """Weighted mean (nw) and covariance (nw nw, maximum likelihood) of points."""
    total = jnp.maximum(weights.sum(), 1e-12)
    mean = weights @ w / total
    centred = w - mean
    return mean, (centred * weights[:, None]).T @ centred / total


def scaled_factor(cov: Float[Array, "n n"], regularization: float) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Scales s and Cholesky factor L with L L' = s cov s + regularization I, where s brings every variance to one.

    Units do not matter that way. A variable that never changes has scale 0: nothing is told from it. The
    regularisation is never below what rounding takes.
    """
    variance = jnp.diagonal(cov)
    moves = variance > jnp.finfo(cov.dtype).tiny
    scale = jnp.where(moves, jax.lax.rsqrt(jnp.maximum(variance, jnp.finfo(cov.dtype).tiny)), 0.0)
    least = 2 * len(cov) * jnp.finfo(cov.dtype).eps
    ridge = jnp.maximum(regularization, least)
    return scale, jnp.linalg.cholesky(cov * scale[:, None] * scale + ridge * jnp.eye(len(cov), dtype=cov.dtype))


def conditioned(scatter: Float[Array, "nw nw"], nx: int, regularization: float) -> Prior:
    """The prior that a covariance of w stands for: the regression of y on z in it."""
    nz = scatter.shape[0] - nx
    inputs, cross, changes = scatter[:nz, :nz], scatter[:nz, nz:], scatter[nz:, nz:]
    scale, factor = scaled_factor(inputs, regularization)
    slope = (scale[:, None] * jax.scipy.linalg.cho_solve((factor, True), scale[:, None] * cross)).T
    explained = slope @ cross
    noise = changes - 0.5 * (explained + explained.T)
    return Prior(slope, inputs, least_noise(noise, jnp.diagonal(changes)))


def least_noise(noise: Float[Array, "nx nx"], variance: Float[Array, " nx"]) -> Float[Array, "nx nx"]:
    """A noise covariance with a floor: what rounding leaves of a difference of covariances with these variances."""
    floor = 4 * len(noise) * jnp.finfo(noise.dtype).eps * variance
    return noise + jnp.diag(floor + jnp.maximum(-jnp.diagonal(noise), 0.0))


def pooled(w: Float[Array, "P nw"], weights: Float[Array, " P"], nx: int, regularization: float = 1e-5) -> Prior:
    """One prior for every time step, from all samples of all conditions and times pooled.

    Args:
        w: transitions in deviations from each condition's mean trajectory: the pool then says how (x, u) moves x' on
            average, and differences between conditions do not pass for dynamics.
        weights: 0 for samples that do not count.
    """
    return conditioned(moments(w, weights)[1], nx, regularization)


def window_scatter(
    w: Float[Array, "N T nw"],
    weights: Float[Array, " N"],
    pool: Float[Array, "nw nw"],
    width: float,
    pool_weight: float = 1.0,
) -> Float[Array, "T nw nw"]:
    """Covariance of the deviations at the time steps around each, which itself does not count, and of a pool.

    Args:
        w: deviations from the mean over the samples.
        weights: 0 or 1 for each sample.
        pool: covariance over everything; it fills the directions that neighbours say nothing of.
        width: steps, standard deviation of the Gaussian weights of neighbours.
        pool_weight: observations that the pool counts as.
    """
    steps = jnp.arange(w.shape[1])
    kernel = jnp.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2) * (steps[:, None] != steps)
    each = jnp.einsum("n,ntv,ntw->tvw", weights, w, w)
    free = jnp.maximum(weights.sum() - 1.0, 0.0)  # observations beside the mean of a time step
    total = jnp.einsum("ts,svw->tvw", kernel, each) + pool_weight * pool
    return total / (kernel.sum(1) * free + pool_weight)[:, None, None]
