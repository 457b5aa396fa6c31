"""Local linear-Gaussian dynamics by regression at each time step, under a normal-inverse-Wishart prior.

At each t the vectors w = (x, u, x') of the samples are taken as draws of one Gaussian. Its posterior mean
and covariance under the prior are conditioned on (x, u), which gives x' ~ N(Ax + Bu + c, cov).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers.types import LinearDynamics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormalInverseWishart:
    """Prior over the mean and covariance of w; with a leading T, one for each time step.

    It weighs as much as `mean_strength` observations of the mean and `scatter_strength` of the covariance.
    """

    mean: Float[Array, "*T nw"]
    scatter: Float[Array, "*T nw nw"]  # a covariance: the inverse-Wishart matrix over scatter_strength
    mean_strength: Float[Array, " *T"]
    scatter_strength: Float[Array, " *T"]


def transitions(xs: Float[Array, "*b T+1 nx"], us: Float[Array, "*b T nu"]) -> Float[Array, "*b T nw"]:
    """w = (x, u, x') for each time step."""
    return jnp.concatenate([xs[..., :-1, :], us, xs[..., 1:, :]], axis=-1)


def moments(w: Float[Array, "P nw"], weights: Float[Array, " P"]) -> tuple[Array, Array]:
    """Weighted mean (nw) and covariance (nw nw, maximum likelihood) of points."""
    total = jnp.maximum(weights.sum(), 1e-12)
    mean = weights @ w / total
    centred = w - mean
    return mean, (centred * weights[:, None]).T @ centred / total


def pooled_prior(w: Float[Array, "P nw"], weights: Float[Array, " P"], strength: float = 1.0) -> NormalInverseWishart:
    """One prior for every time step, from all samples of all conditions and times pooled.

    Args:
        w: transitions, best in deviations from each condition's mean trajectory: then the pool says how
            (x, u) moves x' on average, and differences between conditions do not pass for dynamics.
        weights: 0 for samples that do not count.
        strength: the number of observations that the prior stands for.
    """
    mean, scatter = moments(w, weights)
    return NormalInverseWishart(mean, scatter, jnp.asarray(strength), jnp.asarray(strength))


def fit_dynamics(
    xs: Float[Array, "N T+1 nx"],
    us: Float[Array, "N T nu"],
    weights: Float[Array, " N"],
    prior: NormalInverseWishart,
    regularization: float = 1e-6,
) -> LinearDynamics:
    """Fit time-varying dynamics to N samples of one condition.

    Posterior covariance: (N E + n0 S0 + N m/(N+m) (mean - mean0)(mean - mean0)') / (N + n0), with sample mean
    and covariance (mean, E), prior (mean0, S0, m, n0). The diagonal of the (x, u) block is then
    regularised relative to the prior's own variances, so that units do not matter.

    Args:
        xs: states, best as deviations from a nominal trajectory (then A, B, c hold in deviations).
        us: actions, likewise.
        weights: 0 for samples that do not count (their values must be finite).
        prior: for all time steps, or with a leading T for each.
        regularization: relative to each prior variance; keeps a noiseless direction invertible.

    Source:
        Levine and Abbeel, NIPS 2014, section 3.2; Murphy, "Conjugate Bayesian analysis of the Gaussian
        distribution", 2007, section 9. The public reference code added its regularisation to every entry
        of the matrix; here it is on the diagonal alone.
    """
    T, nx = us.shape[1], xs.shape[-1]
    inputs = nx + us.shape[-1]
    count = weights.sum()
    prior = jax.tree.map(lambda a, n: jnp.broadcast_to(a, (T, *a.shape[a.ndim - n :])), prior, _CORE_AXES)

    def fit(w, prior):
        mean, scatter = moments(w, weights)
        total, n0, m = count + prior.scatter_strength, prior.scatter_strength, prior.mean_strength
        offset = mean - prior.mean
        shrink = count * m / (count + m)
        joint = (count * scatter + n0 * prior.scatter + shrink * jnp.outer(offset, offset)) / total
        centre = (count * mean + m * prior.mean) / (count + m)
        variances = jnp.diagonal(prior.scatter)[:inputs]
        floor = regularization * (variances + 1e-3 * variances.max() + 1e-12)
        gram = joint[:inputs, :inputs] + jnp.diag(floor)
        # weigh every variable by its standard deviation first: positions and torques differ by orders of magnitude
        scale = 1.0 / jnp.sqrt(jnp.diagonal(gram))
        factor = jax.scipy.linalg.cho_factor(gram * scale[:, None] * scale, lower=True)
        slope = (scale[:, None] * jax.scipy.linalg.cho_solve(factor, scale[:, None] * joint[:inputs, inputs:])).T
        residual = joint[inputs:, inputs:] - slope @ joint[:inputs, inputs:]
        residual = 0.5 * (residual + residual.T)
        noise = residual + jnp.diag(jnp.maximum(-jnp.diagonal(residual), 0.0))  # rounding may leave a negative variance
        return LinearDynamics(slope[:, :nx], slope[:, nx:], centre[inputs:] - slope @ centre[:inputs], noise)

    return jax.vmap(fit)(jnp.swapaxes(transitions(xs, us), 0, 1), prior)


_CORE_AXES = NormalInverseWishart(1, 2, 0, 0)  # type: ignore[arg-type]  # axes of each field for one time step
