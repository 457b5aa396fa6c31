"""Second-order expansion of any differentiable cost along a trajectory, in deviations from it.

With z = (xs[t] + dx, us[t] + du): cost = 1/2 dz'H dz + g'dz + c. Deviations keep the numbers small, which
is what makes the sweeps that follow sound in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_jaxpr
from jax.extend.core import Var

from .linalg import pivots
from .types import QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float

HESSIANS = ("exact", "clip", "flip")


@dataclass(frozen=True)
class LeastSquares:
    """The cost 1/2 |residual|^2, expanded by Gauss and Newton: H = J'J, which is never indefinite.

    Stands for a cost function wherever one is asked for, and is one.
    """

    residual: Callable[..., Any]  # nr numbers from the arguments of the cost
    jacobian: Callable[..., Any] | None = None  # of the residual in z = (x, u), or x at the end: nr nz; None: automatic

    def __call__(self, *args):
        r = self.residual(*args)
        return 0.5 * (r * r).sum()


@dataclass(frozen=True)
class Cost:
    """A cost with derivatives of your own: gradient (nz) and Hessian (nz nz) in z = (x, u), or in x at the end."""

    value: Callable[..., Any]
    derivatives: Callable[..., Any]  # (gradient, Hessian) from the arguments of the cost

    def __call__(self, *args):
        return self.value(*args)


def quadratize(
    cost: Callable[..., Any],
    final_cost: Callable[..., Any],
    xs: Float[Array, "T+1 nx"],
    us: Float[Array, "T nu"],
    hessian: str = "clip",
    args: tuple = (),
) -> QuadraticCost:
    """Expand cost(x, u, t, *args) and final_cost(x, *args) to second order by automatic differentiation.

    Args:
        cost: scalar stage cost of x (nx), u (nu) and the integer t; a LeastSquares or a Cost
            is expanded in its own way.
        final_cost: scalar terminal cost of x (nx), or one of these.
        xs: states of the trajectory, its end included.
        us: actions.
        hessian: what happens to an indefinite Hessian. "exact" leaves it; "clip" sets its negative
            eigenvalues to zero (the nearest positive semi-definite matrix); "flip" takes their absolute
            values (keeps a step away from a saddle short). It is not applied to least squares.

    Errors:
        ValueError for an unknown `hessian`, before anything is traced.
    """
    if hessian not in HESSIANS:
        raise ValueError(f"hessian={hessian!r} is unknown; choose one of {', '.join(HESSIANS)}")
    nx = xs.shape[-1]
    zs, ts = jnp.concatenate([xs[:-1], us], axis=-1), jnp.arange(us.shape[0])

    def stage_arguments(z, t, args):
        return z[:nx], z[nx:], t, *args

    def final_arguments(x, args):
        return x, *args

    def treatment(cost, arguments, *given):
        return "exact" if hessian == "exact" or known_convex(cost, arguments, *given) else hessian

    of_stage = treatment(cost, stage_arguments, zs[0], ts[0], args)
    c, g, H = jax.vmap(lambda z, t: expand_at(cost, z, lambda z: stage_arguments(z, t, args), of_stage))(zs, ts)
    of_final = treatment(final_cost, final_arguments, xs[-1], args)
    c_final, g_final, H_final = expand_at(final_cost, xs[-1], lambda x: final_arguments(x, args), of_final)
    return QuadraticCost(H, g, c, H_final, g_final, c_final)


def known_convex(cost: Callable[..., Any], arguments: Callable[..., tuple], *given: Any) -> bool:
    """Whether a cost has the same semidefinite Hessian everywhere, known before anything is compiled.

    So it is for most quadratic costs; the treatment of indefinite ones, a quarter of the compilation of a solve, is
    left out for them. The Hessian is in the first of `given`, of which `arguments` makes those of the cost.
    """
    if isinstance(cost, LeastSquares | Cost):
        return False
    traced = jax.make_jaxpr(jax.hessian(lambda *given: cost(*arguments(*given))))(*given)
    if _varies(traced.jaxpr) or any(isinstance(constant, Tracer) for constant in traced.consts):
        return False
    zeros = [np.zeros(a.shape, a.dtype) for a in traced.in_avals]
    compiled = jax.jit(functools.partial(eval_jaxpr, traced.jaxpr, traced.consts)).lower(*zeros).compile()
    H = np.asarray(compiled(*zeros)[0])
    return bool(np.isfinite(H).all() and np.linalg.eigvalsh(H).min() >= -_slack(H))


def _varies(jaxpr: Any) -> bool:
    """Whether the results of a traced function depend on its arguments; true in case of doubt."""
    varying = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        one = equation.primitive.name == "integer_pow" and equation.params["y"] == 0  # of the second derivative of x^2
        if not one and any(isinstance(v, Var) and v in varying for v in equation.invars):
            varying.update(equation.outvars)
    return any(isinstance(v, Var) and v in varying for v in jaxpr.outvars)


def expand_at(cost, z: Float[Array, " n"], split: Callable[..., tuple], hessian: str) -> tuple[Array, Array, Array]:
    """Value, gradient (n) and Hessian (n n) at z of a cost whose arguments are split(z)."""
    if isinstance(cost, LeastSquares):
        r = cost.residual(*split(z))
        J = cost.jacobian(*split(z)) if cost.jacobian else jax.jacfwd(lambda z: cost.residual(*split(z)))(z)
        return 0.5 * r @ r, r @ J, J.T @ J
    if isinstance(cost, Cost):
        g, H = cost.derivatives(*split(z))
        return cost.value(*split(z)), g, treat(H, hessian)

    def value(z):
        return cost(*split(z))

    c, g = jax.value_and_grad(value)(z)
    return c, g, treat(jax.hessian(value)(z), hessian)


def treat(H: Float[Array, "*b n n"], hessian: str) -> Float[Array, "*b n n"]:
    """Apply the chosen treatment of negative eigenvalues to symmetric matrices.

    Where none of the matrices of a batch has any, no eigenvalues are computed.
    """
    return {"exact": lambda H: H, "clip": _clip, "flip": _flip}[hessian](H)


def _treatment(change: Callable[[Array], Array]):
    def on_eigenvalues(H):
        values, vectors = jnp.linalg.eigh(0.5 * (H + H.mT))
        return (vectors * change(values)[..., None, :]) @ vectors.mT

    @jax.custom_batching.custom_vmap
    def treated(H):
        return jax.lax.cond(_semidefinite(H).all(), lambda H: H, on_eigenvalues, H)

    # one decision for the whole batch: a `cond` under `vmap` would compute both branches
    treated.def_vmap(lambda _size, _batched, H: (treated(H), True))
    return treated


_clip = _treatment(lambda values: jnp.maximum(values, 0.0))
_flip = _treatment(jnp.abs)


def _semidefinite(H: Float[Array, "*b n n"]) -> Array:
    """Whether symmetric matrices have no eigenvalue below zero, to rounding."""
    slack = _slack(H)[..., None, None] * jnp.eye(H.shape[-1], dtype=H.dtype)
    found = jnp.vectorize(pivots, signature="(n,n)->(n)")(H + slack)
    return (found > 0.0).all(-1)


def _slack(H: Any) -> Any:
    """How far below zero rounding may move an eigenvalue of each matrix (n n); for arrays of numpy and of JAX."""
    return 100.0 * H.shape[-1] * jnp.finfo(H.dtype).eps * abs(H).max((-2, -1)) + jnp.finfo(H.dtype).tiny


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
