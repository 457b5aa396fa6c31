"""Kullback-Leibler divergence between two time-varying linear-Gaussian controllers, in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .linalg import product
from .types import LOG_2PI, Gaussian, LinearGaussian, QuadraticCost, half_logdet

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def kl_per_step(p: LinearGaussian, q: LinearGaussian, states: Gaussian) -> Float[Array, " T"]:
    """E[ KL(p(u | x[t]) || q(u | x[t])) ] for each t, x[t] under the given marginals (of p, as a rule).

    1/2 [ tr(Q^-1 P) - nu + log det Q - log det P + E |Q^-1/2 ((K_p - K_q) x + k_p - k_q)|^2 ]

    The first four terms cancel where p is close to q. With D = chol_q^-1 (chol_p - chol_q), lower triangular
    with diagonal d, they are |D|^2 + 2 sum(d - log(1 + d)): sound in float32 for a KL of 1e-7 nats.
    """
    times = jax.vmap(product)
    mean, cov = states.mean[:-1], states.cov[:-1]
    white = inverse_lower(q.chol)
    D, K, k = times(white, p.chol - q.chol), times(white, p.K - q.K), times(white, p.k - q.k)
    offset = times(K, mean) + k
    mismatch = (offset**2).sum(-1) + (times(K.mT, K) * cov).sum((-1, -2))
    d = jnp.diagonal(D, axis1=-2, axis2=-1)
    spread = (D**2).sum((-1, -2)) + 2.0 * (d - jnp.log1p(d)).sum(-1)
    return 0.5 * (spread + mismatch)


def negative_log_prob(controller: LinearGaussian) -> QuadraticCost:
    """-log p(u | x) as a stage cost in nats; the terminal cost is zero."""
    _, nu, nx = controller.K.shape
    times = jax.vmap(product)
    white = inverse_lower(controller.chol)
    R = jnp.concatenate([-times(white, controller.K), white], axis=-1)  # chol^-1 (u - Kx - k) = R z - r
    r = times(white, controller.k)
    zero = jnp.zeros((nx,), controller.K.dtype)
    return QuadraticCost(
        H=times(R.mT, R),
        g=-times(R.mT, r),
        c=0.5 * (r**2).sum(-1) + half_logdet(controller.chol) + 0.5 * nu * LOG_2PI,
        H_final=jnp.zeros((nx, nx), controller.K.dtype),
        g_final=zero,
        c_final=zero.sum(),
    )


def inverse_lower(chol: Float[Array, "T nu nu"]) -> Float[Array, "T nu nu"]:
    """chol^-1. In a search over controllers p that of q is computed once: XLA moves it out of the loop."""
    eye = jnp.broadcast_to(jnp.eye(chol.shape[-1], dtype=chol.dtype), chol.shape)
    return jax.lax.linalg.triangular_solve(chol, eye, left_side=True, lower=True)


def add_weighted(cost: QuadraticCost, weight: Float[Array, " T"], other: QuadraticCost) -> QuadraticCost:
    """cost + weight[t] * other[t]; `other` has no terminal cost (as `negative_log_prob`)."""
    return QuadraticCost(
        H=cost.H + weight[:, None, None] * other.H,
        g=cost.g + weight[:, None] * other.g,
        c=cost.c + weight * other.c,
        H_final=cost.H_final,
        g_final=cost.g_final,
        c_final=cost.c_final,
    )
