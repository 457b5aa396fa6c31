"""Linear-quadratic control of affine time-varying dynamics.

    minimise   E[ sum_t 1/2 z'H[t]z + g[t]'z + c[t] ] + E[terminal cost]
               - sum_t temperature[t] * entropy(p(u[t] | x[t]))
    over       linear-Gaussian controllers p,   z = (x, u)
    subject to x[t+1] ~ N(A[t] x[t] + B[t] u[t] + c[t], cov[t])
               low[t] <= k[t] <= high[t]   where bounds are given

with shapes A (T nx nx), B (T nx nu), c (T nx), H (T nz nz), g (T nz), temperature (T), low and high (T nu).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .box_qp import solve_box
from .linalg import inverse_factor, product, solve_positive
from .types import LinearDynamics, LinearGaussian, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


class Status(enum.IntEnum):
    """How a backward pass ended."""

    SOLVED = 0
    INDEFINITE = 1  # some Q_uu (plus damping) is not positive definite, or the input is not finite


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LqrSolution:
    """The optimal controller and value function V(x) = 1/2 x'V[t]x + v[t]'x + const."""

    controller: LinearGaussian
    V: Float[Array, "T+1 nx nx"]
    v: Float[Array, "T+1 nx"]
    # Change of the cost from x[0] = 0, when alpha k and alpha c stand for k and c: alpha slope + 1/2 alpha^2 curvature,
    # against alpha = 0. Exact for any alpha and any damping.
    slope: Float[Array, ""]
    curvature: Float[Array, ""]
    status: Int[Array, ""]  # a Status
    Q_uu: Float[Array, "T nu nu"]  # with the damping
    free: Bool[Array, "T nu"] | None  # actions that no bound holds; None where no bounds were given


def backward_pass(
    dynamics: LinearDynamics,
    cost: QuadraticCost,
    temperature: Float[Array, " T"] | float = 1.0,
    damping: Float[Array, "T nu nz"] | None = None,
    bounds: tuple[Float[Array, "T nu"], Float[Array, "T nu"]] | None = None,
    second: Float[Array, "T nx nz nz"] | None = None,
) -> LqrSolution:
    """Solve the problem at the top of this file by one Riccati sweep.

    With F = [A B]: Q = H + F'VF, K = -Q_uu^-1 Q_ux, k = -Q_uu^-1 q_u and u ~ N(Kx + k, temperature Q_uu^-1).
    V is formed as [I;K]'Q[I;K], which holds for any gains K: damped or bounded.

    Args:
        dynamics: T local models x' = A x + B u + c; the noise does not change the controller.
        cost: in task units, positive definite in u once the cost to go is added.
        temperature: price of entropy in task units per nat, for each step; scales the covariance alone.
        damping: added to the rows of u of Q where gains and covariance are computed, and nowhere else
            (then K, k are no longer optimal, and V is the value of the controller that is returned).
        second: second derivatives of the dynamics in z, for a step of differential dynamic programming: Q gets
            sum_i v_i second[i], with v the gradient of the value function where the mean dynamics lead.
        bounds: lowest and highest k. Actions at a bound have no feedback and no noise.

    Errors:
        Raises nothing under jit. Where some Q_uu is not positive definite the status is INDEFINITE
        and the controller is NaN from that step back to t = 0.

    Source:
        Levine and Koltun, "Guided Policy Search", ICML 2013, section 3; Tassa et al., "Synthesis and
        stabilization of complex behaviors", IROS 2012, for the value of a damped controller; Tassa, Mansard
        and Todorov, "Control-limited differential dynamic programming", ICRA 2014, for the bounds.
    """
    T, nx, nu = dynamics.B.shape
    nz = nx + nu
    F = jnp.concatenate([dynamics.A, dynamics.B], axis=-1)

    def step(carry, inputs):
        V, v, p, slope, change = carry
        F, Ft, c, H, g, D, bounds, second = inputs
        VF_Vc = product(V, jnp.concatenate([F, c[:, None]], axis=1))
        if second is not None:
            H = H + ((VF_Vc[:, nz] + v)[:, None, None] * second).sum(0)
        new = product(Ft, VF_Vc.at[:, nz].add(v)) + jnp.concatenate([H, g[:, None]], axis=1)
        Q, q = new[:, :nz], new[:, nz]
        Q_u = jnp.concatenate([Q[nx:, :nx], q[nx:, None]], axis=1)  # of (x, 1)
        Q_uu = Q[nx:, nx:]
        damped_uu = Q_uu if D is None else Q_uu + D[:, nx:]
        damped_u = Q_u if D is None else Q_u.at[:, :nx].add(D[:, :nx])
        if bounds is None:
            free, gains = None, -solve_positive(damped_uu, damped_u)
        else:
            gains, free = solve_box(damped_uu, damped_u, *bounds)
        # V = Q_xx + Q_xu K + K'(Q_ux + Q_uu K), and the same for v and the constant, in coordinates (x, 1)
        added = product(Q_u.T, gains) + product(gains.T, Q_u + product(Q_uu, gains))
        V_here = Q[:nx, :nx] + added[:nx, :nx]
        V_here = 0.5 * (V_here + V_here.T)
        v_here = q[:nx] + added[:nx, nx]
        change = change + (0.5 * VF_Vc[:, nz] + v) @ c + 0.5 * added[nx, nx]
        # the first-order part alone: the adjoint of the closed loop
        w = g + product(Ft, p)
        from_u = product(gains.T, w[nx:])
        slope = slope + c @ p + from_u[nx]
        p = w[:nx] + from_u[:nx]
        return (V_here, v_here, p, slope, change), (gains, damped_uu, free, V_here, v_here)

    zero = jnp.zeros((), F.dtype)
    final = (cost.H_final, cost.g_final, cost.g_final, zero, zero)
    # a product with a transposed factor costs twice as much on a CPU as one with a matrix stored transposed
    inputs = (F, F.mT, dynamics.c, cost.H, cost.g, damping, bounds, second)
    first, (gains, Q_uu, free, V, v) = jax.lax.scan(step, final, inputs, reverse=True)
    V_first, v_first, _, slope, change = first
    K, k = gains[..., :nx], gains[..., nx]
    scale = jnp.sqrt(jnp.broadcast_to(temperature, (T,)))[:, None, None]
    # a value that is not finite makes every earlier gain NaN; so V and v need not be kept where nobody asks for them
    solved = jnp.isfinite(jnp.concatenate([a.ravel() for a in (gains, V_first, v_first)])).all()
    return LqrSolution(
        controller=LinearGaussian(K, k, scale * factors(Q_uu, free)),
        V=jnp.concatenate([V, cost.H_final[None]]),
        v=jnp.concatenate([v, cost.g_final[None]]),
        slope=slope,
        curvature=2.0 * (change - slope),
        status=jnp.where(solved, Status.SOLVED, Status.INDEFINITE),
        Q_uu=Q_uu,
        free=free,
    )


def factors(Q_uu: Float[Array, "T nu nu"], free: Bool[Array, "T nu"] | None) -> Float[Array, "T nu nu"]:
    """Lower triangular S with S S' = Q_uu^-1 on the free actions; rows of zeros for the others."""
    if free is None:
        return jax.vmap(inverse_factor)(Q_uu)
    both = free[:, :, None] & free[:, None]
    return free[..., None] * jax.vmap(inverse_factor)(jnp.where(both, Q_uu, jnp.eye(Q_uu.shape[-1], dtype=Q_uu.dtype)))
