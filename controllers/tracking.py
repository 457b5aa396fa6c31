"""Following a reference trajectory with a known model: the time-varying LQR tracker, and what noise costs it.

    minimise   sum_t 1/2 dx[t]'Q[t]dx[t] + 1/2 du[t]'R[t]du[t]  +  1/2 dx[T]'Q_final dx[T]
    over       linear controllers of du,   dx = x - xs, du = u - us
    subject to x[t+1] = dynamics(x[t], u[t], t), to first order around xs, us

with shapes xs (T+1 nx), us (T nu), Q (nx nx) or (T nx nx), R (nu nu) or (T nu nu), Q_final (nx nx).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from . import lqr
from .ilqr.problem import jacobian
from .types import LinearDynamics, LinearGaussian, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tracker:
    """A controller that follows a reference, and the problem in deviations (dx, du) that it solves."""

    controller: LinearGaussian  # of x and u themselves, not of deviations
    V: Float[Array, "T+1 nx nx"]  # cost to go 1/2 dx'V dx + v'dx + const
    v: Float[Array, "T+1 nx"]
    dynamics: LinearDynamics  # c is dynamics(xs[t], us[t], t) - xs[t+1]; without noise
    cost: QuadraticCost
    status: Int[Array, ""]  # an lqr.Status


def track(
    dynamics: Callable[..., Any],
    xs: Float[Array, "T+1 nx"],
    us: Float[Array, "T nu"],
    Q: Float[Array, "*T nx nx"],
    R: Float[Array, "*T nu nu"],
    Q_final: Float[Array, "nx nx"] | None = None,
    temperature: Float[Array, " T"] | float = 1.0,
) -> Tracker:
    """Solve the problem at the top of this file.

    Compiled once for the same function `dynamics` and shapes.

    Args:
        dynamics: next state (nx) from x (nx), u (nu) and the integer t, with forward-mode derivatives; or a
            `Dynamics` with its Jacobian.
        xs: the reference, its end included. Where it is no trajectory of the dynamics, the controller gives
            way: it is optimal for the reference as it is.
        us: actions of the reference.
        Q: weight of the state, symmetric and positive semi-definite; one, or one for each step.
        R: weight of the action, symmetric and positive definite; one, or one for each step.
        Q_final: weight of the last state; None is the last Q.
        temperature: price of entropy in cost units per nat, for each step: the controller's covariance is
            temperature Q_uu^-1.

    Errors:
        ValueError for wrong shapes, before anything is compiled. Raises nothing under jit: INDEFINITE and a
        controller of NaN where some Q_uu is not positive definite or the reference is not finite.

    Source:
        Anderson and Moore, "Optimal control: linear quadratic methods", 1990, chapter 4.
    """
    xs, us, Q, R = (jnp.asarray(a) for a in (xs, us, Q, R))
    Q_final = jnp.asarray(Q_final) if Q_final is not None else Q if Q.ndim == 2 else Q[-1]
    if us.ndim != 2 or us.size == 0:
        raise ValueError(f"us must have shape (T, nu) with T and nu at least 1, not {us.shape}")
    T, nu = us.shape
    if xs.ndim != 2 or len(xs) != T + 1 or xs.size == 0:
        raise ValueError(f"xs must have shape (T+1, nx) = ({T + 1}, nx), not {xs.shape}")
    nx = xs.shape[1]
    for name, weight, n in (("Q", Q, nx), ("R", R, nu)):
        if weight.shape not in ((n, n), (T, n, n)):
            raise ValueError(f"{name} must have shape {(n, n)} or {(T, n, n)}, not {weight.shape}")
    if Q_final.shape != (nx, nx):
        raise ValueError(f"Q_final must have shape {(nx, nx)}, not {Q_final.shape}")
    following = jax.eval_shape(dynamics, xs[0], us[0], jnp.array(0))
    if getattr(following, "shape", None) != (nx,):
        raise ValueError(f"dynamics must return an array of shape {(nx,)}, not {following}")
    return _track(dynamics, xs, us, Q, R, Q_final, temperature)


@functools.partial(jax.jit, static_argnums=0)
def _track(dynamics, xs, us, Q, R, Q_final, temperature) -> Tracker:
    (T, nu), nx = us.shape, xs.shape[1]
    along = xs[:-1], us, jnp.arange(T)
    A, B = jax.vmap(jacobian(dynamics))(*along)
    model = LinearDynamics(A, B, jax.vmap(dynamics)(*along) - xs[1:], jnp.zeros_like(A))
    zeros = jnp.zeros((T, nx + nu), A.dtype)
    H = jnp.zeros((T, nx + nu, nx + nu), A.dtype).at[:, :nx, :nx].set(Q).at[:, nx:, nx:].set(R)
    cost = QuadraticCost(H, zeros, zeros[:, 0], Q_final.astype(A.dtype), zeros[0, :nx], zeros[0, 0])
    solution = lqr.backward_pass(model, cost, temperature)
    controller = solution.controller.recentred(-xs[:-1], -us)
    return Tracker(controller, solution.V, solution.v, model, cost, solution.status)


def noise_cost(V: Float[Array, "T+1 nx nx"], cov: Float[Array, "T nx nx"]) -> Float[Array, " T"]:
    """What each step's noise x[t+1] ~ N(.., cov[t]) adds to the expected cost (LQG): 1/2 tr(V[t+1] cov[t]).

    A start x[0] ~ N(mean, cov0) adds 1/2 tr(V[0] cov0) to the cost from its mean, and the controller's own
    noise, where its covariance is temperature Q_uu^-1, temperature nu / 2 a step. None of it changes the gains.
    `marginals.expected_cost` gives the sum of all for any controller, from the marginals that it propagates.

    Args:
        V: cost to go of the controller, as of a `Tracker` or an `lqr.LqrSolution`.
        cov: covariances of the dynamics' noise.

    Source:
        Åström, "Introduction to stochastic control theory", 1970, chapter 8.
    """
    return 0.5 * jnp.einsum("tij,tij->t", V[1:], cov)
