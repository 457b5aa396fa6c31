"""Linear-quadratic control of affine time-varying dynamics.

    minimise   E[ sum_t 1/2 z'H[t]z + g[t]'z + c[t] ] + E[terminal cost]
               - sum_t temperature[t] * entropy(p(u[t] | x[t]))
    over       linear-Gaussian controllers p,   z = (x, u)
    subject to x[t+1] ~ N(A[t] x[t] + B[t] u[t] + c[t], cov[t])

with shapes A (T nx nx), B (T nx nu), c (T nx), H (T nz nz), g (T nz), temperature (T).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from controllers.types import LinearDynamics, LinearGaussian, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class Status(enum.IntEnum):
    """How a backward pass ended."""

    SOLVED = 0
    INDEFINITE = 1  # some Q_uu (plus regularisation) is not positive definite, or the input is not finite


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LqrSolution:
    """The optimal controller and value function V(x) = 1/2 x'V[t]x + v[t]'x + const."""

    controller: LinearGaussian
    V: Float[Array, "T+1 nx nx"]
    v: Float[Array, "T+1 nx"]
    # Change of the cost when alpha k is applied: alpha slope + 1/2 alpha^2 curvature. Exact for alpha = 1, and without
    # regularisation for any alpha; with it, q_u holds the full k of later steps, and the true slope differs a little.
    slope: Float[Array, " T"]  # k'Q_u
    curvature: Float[Array, " T"]  # k'Q_uu k
    status: Int[Array, ""]  # a Status


def backward_pass(
    dynamics: LinearDynamics,
    cost: QuadraticCost,
    temperature: Float[Array, " T"] | float = 1.0,
    regularization: Float[Array, ""] | float = 0.0,
) -> LqrSolution:
    """Solve the problem at the top of this file by one Riccati sweep.

    With F = [A B]: Q = H + F'VF, K = -Q_uu^-1 Q_ux, k = -Q_uu^-1 q_u and u ~ N(Kx + k, temperature Q_uu^-1).
    One triangular factor S with Q_uu^-1 = S S' serves the gains and the covariance; V is formed as
    [I;K]'Q[I;K], which holds for a regularised K too.

    Args:
        dynamics: T local models x' = A x + B u + c; the noise does not change the controller.
        cost: in task units, positive definite in u once the cost to go is added.
        temperature: price of entropy in task units per nat, for each step; scales the covariance alone.
        regularization: added to the diagonal of Q_uu where it is factored, and nowhere else
            (then K, k are no longer optimal, and V is the value of the controller that is returned).

    Errors:
        Raises nothing under jit. Where some Q_uu is not positive definite the status is INDEFINITE
        and the controller is NaN from that step back to t = 0.

    Source:
        Levine and Koltun, "Guided Policy Search", ICML 2013, section 3; Tassa et al., "Synthesis and
        stabilization of complex behaviors", IROS 2012, for the value of a regularised controller.
    """
    T, nx, nu = dynamics.B.shape
    damping = regularization * jnp.eye(nu, dtype=dynamics.B.dtype)
    F = jnp.concatenate([dynamics.A, dynamics.B], axis=-1)

    def step(value, inputs):
        V, v = value
        F, Ft, c, H, g = inputs
        Q = H + Ft @ (V @ F)
        q = g + Ft @ (V @ c + v)
        Q_xu, Q_uu, Q_ux, q_u = Q[:nx, nx:], Q[nx:, nx:], Q[nx:, :nx], q[nx:]
        S = inverse_factor(Q_uu + damping)
        K = -S @ (S.T @ Q_ux)
        k = -S @ (S.T @ q_u)
        left = jnp.concatenate([Q_xu, K.T], axis=1)  # V = Q_xx + Q_xu K + K'(Q_ux + Q_uu K)
        V_here = Q[:nx, :nx] + left @ jnp.concatenate([K, Q_ux + Q_uu @ K])
        V_here = 0.5 * (V_here + V_here.T)
        v_here = q[:nx] + left @ jnp.concatenate([k, q_u + Q_uu @ k])
        return (V_here, v_here), (K, k, S, V_here, v_here, k @ q_u, k @ Q_uu @ k)

    final = (cost.H_final, cost.g_final)
    # a product with a transposed factor costs twice as much on a CPU as one with a matrix stored transposed
    inputs = (F, F.mT, dynamics.c, cost.H, cost.g)
    (V_first, v_first), (K, k, S, V, v, slope, curvature) = jax.lax.scan(step, final, inputs, reverse=True)
    chol = jnp.sqrt(jnp.broadcast_to(temperature, (T,)))[:, None, None] * S
    # a value that is not finite makes every earlier gain NaN; so V and v need not be kept where nobody asks for them
    solved = jnp.stack([jnp.isfinite(a).all() for a in (K, k, chol, V_first, v_first)]).all()
    return LqrSolution(
        controller=LinearGaussian(K, k, chol),
        V=jnp.concatenate([V, cost.H_final[None]]),
        v=jnp.concatenate([v, cost.g_final[None]]),
        slope=slope,
        curvature=curvature,
        status=jnp.where(solved, Status.SOLVED, Status.INDEFINITE),
    )


def inverse_factor(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Lower triangular S with a^-1 = S S'; NaN where a is not positive definite.

    From the Cholesky factor of `a` with rows and columns in reverse order: a = U U' with U upper
    triangular, so that S = U^-T is lower triangular and no product is factored twice.
    """
    upper = jnp.linalg.cholesky(a[::-1, ::-1], symmetrize_input=True)[::-1, ::-1]
    identity = jnp.eye(a.shape[-1], dtype=a.dtype)
    return jax.lax.linalg.triangular_solve(upper, identity, left_side=True, lower=False).T
