"""The quantities that every other module passes around.

A problem has T actions u[0..T-1], T+1 states x[0..T], T stage costs and one terminal cost. Everything
time-varying has T as its leading axis; batches of problems are made with `vmap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:  # only the annotations need jaxtyping; nothing here needs it to run
    from jaxtyping import Array, Float

LOG_2PI = 1.8378770664093453


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearGaussian:
    """Time-varying linear-Gaussian controller u[t] ~ N(K[t] x + k[t], chol[t] chol[t]^T)."""

    K: Float[Array, "T nu nx"]
    k: Float[Array, "T nu"]
    chol: Float[Array, "T nu nu"]  # lower triangular; the only form of the covariance that is kept

    def act(self, t, x: Float[Array, " nx"]) -> Float[Array, " nu"]:
        """Mean action at time index t in state x."""
        return self.K[t] @ x + self.k[t]

    def sample(self, t, x: Float[Array, " nx"], noise: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """Action at time index t in state x, for standard normal `noise`."""
        return self.act(t, x) + self.chol[t] @ noise

    def means(self, xs: Float[Array, "T nx"]) -> Float[Array, "T nu"]:
        """Mean actions along states x[0..T-1]."""
        return jnp.einsum("tux,tx->tu", self.K, xs) + self.k

    def log_prob(self, xs: Float[Array, "T nx"], us: Float[Array, "T nu"]) -> Float[Array, " T"]:
        """log p(u[t] | x[t]) in nats along a trajectory of T states and T actions."""
        whitened = solve_lower(self.chol, us - self.means(xs))
        return -0.5 * (whitened**2).sum(-1) - half_logdet(self.chol) - 0.5 * LOG_2PI * us.shape[-1]

    def entropy(self) -> Float[Array, " T"]:
        """Entropy of p(u[t] | x) in nats at each time step."""
        return half_logdet(self.chol) + 0.5 * (1.0 + LOG_2PI) * self.k.shape[-1]

    @property
    def precision(self) -> Float[Array, "T nu nu"]:
        """Inverse covariance of the actions."""
        eye = jnp.broadcast_to(jnp.eye(self.chol.shape[-1], dtype=self.chol.dtype), self.chol.shape)
        inverse = jax.lax.linalg.triangular_solve(self.chol, eye, left_side=True, lower=True)
        return inverse.mT @ inverse

    def recentred(self, xs: Float[Array, "T nx"], us: Float[Array, "T nu"]) -> LinearGaussian:
        """The same controller in deviations: du ~ N(K dx + k', ...), where x = xs + dx and u = us + du.

        Call it with (-xs, -us) for the way back.
        """
        return LinearGaussian(self.K, self.means(xs) - us, self.chol)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearDynamics:
    """Time-varying affine dynamics x[t+1] ~ N(A[t] x + B[t] u + c[t], cov[t])."""

    A: Float[Array, "T nx nx"]
    B: Float[Array, "T nx nu"]
    c: Float[Array, "T nx"]
    cov: Float[Array, "T nx nx"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuadraticCost:
    """Stage costs 1/2 z'Hz + g'z + c of z = (x, u), and a terminal cost of the same form in x[T]."""

    H: Float[Array, "T nz nz"]  # symmetric, nz = nx + nu
    g: Float[Array, "T nz"]
    c: Float[Array, " T"]
    H_final: Float[Array, "nx nx"]
    g_final: Float[Array, " nx"]
    c_final: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """N(mean, cov): of an initial state, or with a leading T+1 the state marginals of a horizon."""

    mean: Float[Array, "*T nx"]
    cov: Float[Array, "*T nx nx"]


def solve_lower(chol: Float[Array, "*b n n"], y: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """chol^-1 y for lower triangular `chol` and a vector y."""
    return jax.lax.linalg.triangular_solve(chol, y[..., None], left_side=True, lower=True)[..., 0]


def half_logdet(chol: Float[Array, "*b n n"]) -> Float[Array, " *b"]:
    """1/2 log det(chol chol^T)."""
    return jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)).sum(-1)
