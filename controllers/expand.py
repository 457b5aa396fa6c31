"""Second-order expansion of any differentiable cost along a trajectory, in deviations from it.

With z = (xs[t] + dx, us[t] + du): cost = 1/2 dz'H dz + g'dz + c. Deviations keep the numbers small, which
is what makes the sweeps that follow sound in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from controllers.types import QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float

HESSIANS = ("exact", "clip", "flip")


def quadratize(
    cost: Callable[..., Any],
    final_cost: Callable[..., Any],
    xs: Float[Array, "T+1 nx"],
    us: Float[Array, "T nu"],
    hessian: str = "clip",
) -> QuadraticCost:
    """Expand cost(x, u, t) and final_cost(x) to second order by automatic differentiation.

    Args:
        cost: scalar stage cost of x (nx), u (nu) and the integer t.
        final_cost: scalar terminal cost of x (nx).
        xs: states of the trajectory, its end included.
        us: actions.
        hessian: what happens to an indefinite Hessian. "exact" leaves it; "clip" sets its negative
            eigenvalues to zero (the nearest positive semi-definite matrix); "flip" takes their absolute
            values (keeps a step away from a saddle short).

    Errors:
        ValueError for an unknown `hessian`, before anything is traced.
    """
    if hessian not in HESSIANS:
        raise ValueError(f"hessian={hessian!r} is unknown; choose one of {', '.join(HESSIANS)}")
    nx = xs.shape[-1]

    def stage(z, t):
        return cost(z[:nx], z[nx:], t)

    zs = jnp.concatenate([xs[:-1], us], axis=-1)
    times = jnp.arange(us.shape[0])
    c, g = jax.vmap(jax.value_and_grad(stage))(zs, times)
    H = jax.vmap(jax.hessian(stage))(zs, times)
    c_final, g_final = jax.value_and_grad(final_cost)(xs[-1])
    H_final = jax.hessian(final_cost)(xs[-1])
    return QuadraticCost(treat(H, hessian), g, c, treat(H_final, hessian), g_final, c_final)


def treat(H: Float[Array, "*b n n"], hessian: str) -> Float[Array, "*b n n"]:
    """Apply the chosen treatment of negative eigenvalues to symmetric matrices."""
    if hessian == "exact":
        return H
    values, vectors = jnp.linalg.eigh(0.5 * (H + H.mT))
    values = jnp.maximum(values, 0.0) if hessian == "clip" else jnp.abs(values)
    return (vectors * values[..., None, :]) @ vectors.mT


def recentre(cost: QuadraticCost, dx: Float[Array, "T+1 nx"], du: Float[Array, "T nu"]) -> QuadraticCost:
    """Move the origin of an expansion by (dx, du): the same cost in deviations from the moved trajectory."""
    dz = jnp.concatenate([dx[:-1], du], axis=-1)
    slope = jnp.einsum("tij,tj->ti", cost.H, dz)
    slope_final = cost.H_final @ dx[-1]
    return QuadraticCost(
        H=cost.H,
        g=cost.g + slope,
        c=cost.c + ((cost.g + 0.5 * slope) * dz).sum(-1),
        H_final=cost.H_final,
        g_final=cost.g_final + slope_final,
        c_final=cost.c_final + (cost.g_final + 0.5 * slope_final) @ dx[-1],
    )
