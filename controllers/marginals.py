"""Where a linear-Gaussian controller takes linear-Gaussian dynamics: state marginals and expected cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .linalg import product
from .types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def propagate(dynamics: LinearDynamics, controller: LinearGaussian, initial: Gaussian) -> Gaussian:
    """State marginals N(mean[t], cov[t]) of x[0..T] (the forward pass of LQR).

    mean' = (A + BK) mean + Bk + c,  cov' = (A + BK) cov (A + BK)' + B C B' + cov_dynamics.
    """
    times = jax.vmap(product)
    closed = dynamics.A + times(dynamics.B, controller.K)
    drift = times(dynamics.B, controller.k) + dynamics.c
    spread = times(dynamics.B, controller.chol)
    noise = times(spread, spread.mT) + dynamics.cov

    def step(state, inputs):
        mean, cov = state
        closed, transposed, drift, noise = inputs
        cov_next = product(closed, product(cov, transposed)) + noise
        following = (product(closed, mean) + drift, 0.5 * (cov_next + cov_next.T))
        return following, following

    first = (initial.mean, initial.cov)
    # a product with a transposed factor costs twice as much on a CPU as one with a matrix stored transposed
    _, (mean, cov) = jax.lax.scan(step, first, (closed, closed.mT, drift, noise))
    return Gaussian(jnp.concatenate([first[0][None], mean]), jnp.concatenate([first[1][None], cov]))


def state_action(states: Gaussian, controller: LinearGaussian) -> Gaussian:
    """Marginals of z[t] = (x[t], u[t]) for t = 0..T-1, from the T+1 state marginals."""
    K, mean, cov = controller.K, states.mean[:-1], states.cov[:-1]
    cross = K @ cov
    u_cov = cross @ K.mT + controller.chol @ controller.chol.mT
    return Gaussian(
        jnp.concatenate([mean, controller.means(mean)], axis=-1),
        jnp.block([[cov, cross.mT], [cross, u_cov]]),
    )


def expected_cost(cost: QuadraticCost, states: Gaussian, controller: LinearGaussian) -> Float[Array, ""]:
    """E[sum of stage costs + terminal cost] in task units, under the marginals of `controller`."""
    z = state_action(states, controller)
    stage = quadratic_mean(cost.H, cost.g, cost.c, z.mean, z.cov).sum()
    return stage + quadratic_mean(cost.H_final, cost.g_final, cost.c_final, states.mean[-1], states.cov[-1])


def quadratic_mean(H, g, c, mean, cov) -> Array:
    """E[1/2 z'Hz + g'z + c] for z ~ N(mean, cov), over any leading axes."""
    second = jnp.einsum("...ij,...ij->...", H, cov + mean[..., :, None] * mean[..., None, :])
    return 0.5 * second + jnp.einsum("...i,...i->...", g, mean) + c
