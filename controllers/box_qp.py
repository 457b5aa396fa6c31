"""A small quadratic program with bounds, by projected Newton steps: the action step under control limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .linalg import product, solve_positive

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


def solve_box(
    Q: Float[Array, "nu nu"],
    right: Float[Array, "nu nx+1"],
    low: Float[Array, " nu"],
    high: Float[Array, " nu"],
) -> tuple[Float[Array, "nu nx+1"], Bool[Array, " nu"]]:
    """Minimise 1/2 u'Qu + (Q_x x + q)'u over low <= u <= high at x = 0, where right = [Q_x q], and differentiate in x.

    Each step solves for the free components with the others held at their bounds, and projects. Where the
    objective does not fall by that, the step ends at the first bound instead, and what is at a bound stays there
    until a step needs no bound. The end is a step that needs none and leaves nothing held that wants to leave.

    Args:
        low, high: may be infinite.

    Returns:
        [K k]: the solution k and its derivative K, which is zero in the rows of components at a bound;
        and which components are free. All NaN where Q is not positive definite on the free components.

    Source:
        Bertsekas, "Projected Newton methods for optimization problems with simple constraints", 1982;
        Tassa, Mansard and Todorov, "Control-limited differential dynamic programming", ICRA 2014.
    """
    q, nu = right[:, -1], len(right)
    eye = jnp.eye(nu, dtype=Q.dtype)

    def held(k, gradient):
        return (low >= high) | ((k <= low) & (gradient > 0.0)) | ((k >= high) & (gradient < 0.0))

    def newton(carry: _Newton) -> _Newton:
        k, gradient = carry.k, carry.gradient
        free = ~(held(k, gradient) | carry.kept)
        masked = right.at[:, -1].set(gradient) * free[:, None]
        solved = -solve_positive(jnp.where(free[:, None] & free, Q, eye), masked)
        step = solved[:, -1]
        new = jnp.clip(k + step, low, high)
        inside = (new == k + step).all()
        lower = (q + product(Q, new) + gradient) @ (new - k) < 0.0  # twice the change of the objective
        # the part of the step up to the first bound
        bound = jnp.where(step > 0.0, high, low)
        parts = jnp.where(step == 0.0, jnp.inf, (bound - k) / step)
        part = jnp.minimum(parts.min(), 1.0)
        short = jnp.where(parts <= part, bound, jnp.clip(k + part * step, low, high))
        new = jnp.where(inside | lower, new, short)
        new_gradient = q + product(Q, new)
        return _Newton(
            k=new,
            gradient=new_gradient,
            solved=solved,
            free=free,
            kept=(carry.kept | (parts <= part)) & ~(inside | lower),
            tried=carry.tried + 1,
            done=(inside & (held(new, new_gradient) == ~free).all()) | ~jnp.isfinite(solved).all(),
        )

    k = jnp.clip(jnp.zeros_like(q), low, high)
    none = jnp.zeros_like(k, bool)
    start = _Newton(k, q + product(Q, k), jnp.zeros_like(right), ~none, none, jnp.array(0), jnp.array(False))
    end = jax.lax.while_loop(lambda c: ~c.done & (c.tried < 8 * nu + 8), newton, newton(start))
    return end.solved.at[:, -1].set(jnp.where(jnp.isfinite(end.solved).all(), end.k, jnp.nan)), end.free


class _Newton(NamedTuple):
    """A point of the iteration."""

    k: Array
    gradient: Array  # there
    solved: Array  # [K step] on the face of the last step
    free: Array  # the components of that face
    kept: Array  # components that the next step leaves at their bounds, wherever their gradients point
    tried: Array
    done: Array
