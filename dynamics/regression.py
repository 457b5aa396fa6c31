"""Local linear-Gaussian dynamics by regression at each time step, under a normal-inverse-Wishart prior.

With z = (x, u) and y = x' - x of the N samples of a time step, in deviations from their mean: y ~ N(slope z, noise). Of
z, y and the prior's inputs S only the eigenvectors of the products of whitened samples are ever needed,

    G = Z S^-1 Z',   slope = slope0 + E' (n + G)^-1 Z S^-1,   E = Y - Z slope0

so that a fit costs little where samples are few, for any number of strengths n of the prior, and stays sound in single
precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from controllers.types import LinearDynamics
from dynamics.prior import Prior, scaled_factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fit:
    """Dynamics of one condition, and how well they predict samples that they have not seen."""

    dynamics: LinearDynamics
    strength: Float[Array, " T"]  # observations that the prior stands for
    errors: Float[Array, "N T nx"]  # of x', for each sample, by the fit to the others


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Step:
    """The samples of one time step beside its prior. Samples that do not count are rows of zeros."""

    mean_z: Float[Array, " nz"]
    mean_y: Float[Array, " nx"]
    whitened: Float[Array, "nz N"]  # deviations of z in units of the prior's inputs
    residual: Float[Array, "N nx"]  # of y from the prior's prediction
    weights: Float[Array, " N"]
    values: Float[Array, " r"]  # eigenvalues of G and its eigenvectors; r = min(N, nz), the others are 0
    vectors: Float[Array, "N r"]


def fit_dynamics(
    xs: Float[Array, "N T+1 nx"],
    us: Float[Array, "N T nu"],
    weights: Float[Array, " N"],
    prior: Prior,
    strengths: tuple[float, ...],
    regularization: float = 1e-5,
    reach: float = 2.0,
) -> Fit:
    """Fit time-varying dynamics to N samples of one condition.

    Where several strengths of the prior are offered, each time step takes the one under which the samples there and
    near it are likeliest, each predicted from the others (`evidence`).

    Args:
        xs: states, best as deviations from a nominal trajectory (then A, B, c hold in deviations).
        us: actions, likewise.
        weights: 1, or 0 for samples that do not count (their values must be finite).
        prior: for all time steps, or with a leading T for each.
        strengths: numbers of observations that the prior may stand for.
        regularization: of the prior's inputs, relative to each variance; keeps a noiseless direction invertible.
        reach: time steps, standard deviation of the Gaussian weights by which neighbours join in the choice.

    Returns:
        Dynamics, strengths and errors; finite for any finite samples. A single sample gives the prior's slope, and
        its errors are zero.

    Source:
        Levine and Abbeel, NIPS 2014, section 3.2; Murphy, "Conjugate Bayesian analysis of the Gaussian
        distribution", 2007, section 9. The public reference code had one strength for all, and a prior on the mean.
    """
    T = us.shape[1]
    zs = jnp.concatenate([xs[:, :-1], us], axis=-1).swapaxes(0, 1)
    ys = (xs[:, 1:] - xs[:, :-1]).swapaxes(0, 1)
    offered = jnp.asarray(strengths, xs.dtype)
    axis = 0 if prior.slope.ndim == 3 else None
    over_time = (lambda f: jax.vmap(f)) if axis == 0 else (lambda f: f)  # one factorisation serves all time steps
    scale, factor = over_time(lambda inputs: scaled_factor(inputs, regularization))(prior.inputs)
    steps = jax.vmap(_beside, in_axes=(0, 0, None, axis, axis, axis))(zs, ys, weights, prior.slope, scale, factor)
    if len(strengths) > 1:
        noise = over_time(lambda noise: scaled_factor(noise, 0.0))(prior.noise)
        each = jax.vmap(lambda step, noise: evidence(step, noise, offered), in_axes=(0, axis))(steps, noise)
        near = jnp.exp(-0.5 * ((jnp.arange(T)[:, None] - jnp.arange(T)) / reach) ** 2)
        # where samples say nothing of it, the prior is strong
        strength = offered[::-1][jnp.argmax((near.astype(each.dtype) @ each)[:, ::-1], axis=1)]
    else:
        strength = jnp.broadcast_to(offered[0], T)
    dynamics, errors = jax.vmap(_posterior, in_axes=(0, 0, axis, axis, axis))(steps, strength, prior, scale, factor)
    return Fit(dynamics, strength, errors.swapaxes(0, 1))


def _beside(z, y, weights, slope, scale, factor) -> _Step:
    """One time step's samples beside its prior."""
    share = weights / jnp.maximum(weights.sum(), 1.0)
    mean_z, mean_y = share @ z, share @ y
    z, y = (z - mean_z) * weights[:, None], (y - mean_y) * weights[:, None]
    whitened = jax.lax.linalg.triangular_solve(factor, scale[:, None] * z.T, left_side=True, lower=True)
    return _Step(mean_z, mean_y, whitened, y - z @ slope.T, weights, *_spectrum(whitened))


def _spectrum(whitened: Float[Array, "n N"]) -> tuple[Float[Array, " r"], Float[Array, "N r"]]:
    """Eigenvalues of whitened' whitened and its eigenvectors: r = min(n, N) of them, the other eigenvalues are 0."""
    n, N = whitened.shape
    if n >= N:
        values, vectors = jnp.linalg.eigh(whitened.T @ whitened, symmetrize_input=False)
        return jnp.maximum(values, 0.0), vectors
    values, turned = jnp.linalg.eigh(whitened @ whitened.T, symmetrize_input=False)
    least = n * jnp.finfo(values.dtype).eps * values[-1]
    roots = jax.lax.rsqrt(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    return values * (values > least), whitened.T @ (turned * roots * (values > least))


def _left_out(values, vectors, weights, strengths) -> Float[Array, "S N"]:
    """v = 1 - the leverage of each sample, over what it is without a slope: 1 where the others do not need it.

    A sample's deviation from the prediction by the others is its residual over v. Only ratios of positive numbers
    are taken, so that a leverage close to one loses no digits to a difference from one.
    """
    count = jnp.maximum(weights.sum(), 2.0)
    inverse = jnp.einsum("nk,sk->sn", vectors**2, 1.0 / (1.0 + values / strengths[:, None]))
    if vectors.shape[1] < len(weights):  # the directions in which the eigenvalue is 0
        inverse = inverse + 1.0 - (vectors**2).sum(1)
    v = (inverse - 1.0 / count) * count / (count - 1.0)
    return jnp.clip(jnp.where(weights > 0, v, 1.0), 1e-6, 1.0)


def evidence(step: _Step, noise: tuple[Array, Array], strengths: Float[Array, " S"]) -> Float[Array, " S"]:
    """sum over samples of log p(y | z, the other samples, the prior), up to a constant, for each strength of the prior.

    The joint density of a sample w = (z, y) given the others is Student's t. Divided by that of z it is a t again, of
    which with the v of `_left_out` for w and for z, d the sizes of w and z, and f = n + N + 1,

        2 log p = sum_w - sum_z of (2 log Gamma((f + d) / 2) - log det(1 + G / n) + (f + d - 1) log v) - nx log n
    """
    scale, factor = noise
    whitened = jax.lax.linalg.triangular_solve(factor, scale[:, None] * step.residual.T, left_side=True, lower=True)
    values, vectors = _spectrum(jnp.concatenate([step.whitened, whitened]))
    count, counts = step.weights.sum(), step.weights > 0
    nz, nx = step.whitened.shape[0], step.residual.shape[1]
    f = strengths + count + 1.0

    def part(values, vectors, size):
        v = _left_out(values, vectors, step.weights, strengths)
        log_v = jnp.where(counts, jnp.log(v), 0.0).sum(1)
        volume = jnp.log1p(values / strengths[:, None]).sum(1)
        return count * (2.0 * gammaln(0.5 * (f + size)) - volume) + (f + size - 1.0) * log_v

    w = part(values, vectors, nz + nx)
    score = w - part(step.values, step.vectors, nz) - count * nx * jnp.log(strengths)
    return jnp.where(count > 1.5, 0.5 * score, 0.0)  # of one sample nothing can be left out


def _posterior(step: _Step, n, prior: Prior, scale, factor) -> tuple[LinearDynamics, Float[Array, "N nx"]]:
    """One time step's dynamics at strength n, and each sample's error by those of the others."""
    nx, count = step.residual.shape[1], step.weights.sum()
    turned = step.vectors.T @ step.residual
    along = scale[:, None] * jax.lax.linalg.triangular_solve(
        factor, step.whitened @ step.vectors, left_side=True, lower=True, transpose_a=True
    )
    slope = prior.slope + (turned / (n + step.values)[:, None]).T @ along.T
    kept = 1.0 / (1.0 + step.values / n)
    left = step.residual - step.vectors @ turned  # what no slope explains
    noise = (n * prior.noise + (turned * kept[:, None]).T @ turned + left.T @ left) / (n + count)
    v = _left_out(step.values, step.vectors, step.weights, n[None])[0]
    errors = ((step.vectors * kept) @ turned + left) / v[:, None] * (count / jnp.maximum(count - 1.0, 1.0))
    offset = step.mean_y - slope @ step.mean_z
    noise = 0.5 * (noise + noise.T)
    return LinearDynamics(slope[:, :nx] + jnp.eye(nx), slope[:, nx:], offset, noise), errors
