"""Samples in deviations from each condition's mean trajectory: what priors of the dynamics are stated in."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynamics import prior
from dynamics.prior import Prior

WIDTH = 2.0  # time steps, standard deviation of the weights of neighbours


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Deviations:
    """The samples of all conditions in deviations from each one's mean trajectory (xs, us)."""

    xs: Float[Array, "M T+1 nx"]
    us: Float[Array, "M T nu"]
    w: Float[Array, "M N T nw"]  # (x, u, x' - x)
    weights: Float[Array, "M N"]

    def pool(self) -> Float[Array, "nw nw"]:
        """Covariance over everything."""
        flat = self.w.reshape(-1, self.w.shape[-1])
        return prior.moments(flat, jnp.repeat(self.weights.reshape(-1), self.w.shape[2]))[1]

    def windows(self) -> Float[Array, "M T nw nw"]:
        """Covariance around each time step, which itself does not count."""
        pool = self.pool()
        return jax.vmap(lambda w, weights: prior.window_scatter(w, weights, pool, WIDTH))(self.w, self.weights)

    def believed(self, slope: Float[Array, "M T nx nz"]) -> Prior:
        """A prior with this slope; what it has seen, and its error, are those of the samples around each time step."""
        nx = slope.shape[-2]
        scatter = self.windows()
        nz = scatter.shape[-1] - nx

        def one(slope, scatter):
            unexplained = jnp.concatenate([-slope, jnp.eye(nx, dtype=slope.dtype)], axis=1)
            noise = unexplained @ scatter @ unexplained.T
            noise = prior.least_noise(0.5 * (noise + noise.T), jnp.diagonal(scatter)[nz:])
            return Prior(slope, scatter[:nz, :nz], noise)

        return jax.vmap(jax.vmap(one))(slope, scatter)
