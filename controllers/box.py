"""A small quadratic program with bounds, by projected Newton steps: the action step under control limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from controllers.small import product, solve_positive

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


def solve_box(
    Q: Float[Array, "nu nu"],
    right: Float[Array, "nu nx+1"],
    low: Float[Array, " nu"],
    high: Float[Array, " nu"],
) -> tuple[Float[Array, "nu nx+1"], Bool[Array, " nu"]]:
    """Minimise 1/2 u'Qu + (Q_x x + q)'u over low <= u <= high at x = 0, where right = [Q_x q], and differentiate in x.

    Each step solves for the free components with the others held at their bounds, projects, and is halved
    where the objective does not fall; it ends as soon as the projection changes nothing, which for a
    positive definite Q is the solution.

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
        return ((k <= low) & (gradient > 0.0)) | ((k >= high) & (gradient < 0.0))

    def newton(carry: _Newton) -> _Newton:
        k, gradient = carry.k, carry.gradient
        free = ~held(k, gradient)
        masked = right.at[:, -1].set(gradient) * free[:, None]
        solved = -solve_positive(jnp.where(free[:, None] & free, Q, eye), masked)
        aim = k + carry.size * solved[:, -1]
        new = jnp.clip(aim, low, high)
        new_gradient = q + product(Q, new)
        lower = (new_gradient + gradient) @ (new - k) <= 0.0  # twice the change of the objective
        exact = (carry.size == 1.0) & (new == aim).all() & (held(new, new_gradient) == ~free).all()
        return _Newton(
            k=jnp.where(lower, new, k),
            gradient=jnp.where(lower, new_gradient, gradient),
            solved=solved,
            free=free,
            size=jnp.where(lower, 1.0, 0.5 * carry.size),
            tried=carry.tried + 1,
            done=exact | ~jnp.isfinite(solved).all(),
        )

    k = jnp.clip(jnp.zeros_like(q), low, high)
    one, no = jnp.ones((), Q.dtype), jnp.array(False)
    start = _Newton(k, q + product(Q, k), jnp.zeros_like(right), jnp.ones_like(k, bool), one, jnp.array(0), no)
    end = jax.lax.while_loop(lambda c: ~c.done & (c.tried < 8 * nu + 8), newton, newton(start))
    return end.solved.at[:, -1].set(jnp.where(jnp.isfinite(end.solved).all(), end.k, jnp.nan)), end.free


class _Newton(NamedTuple):
    """A point of the iteration."""

    k: Array
    gradient: Array  # there
    solved: Array  # [K step] on the face of the last step
    free: Array  # the components of that face
    size: Array  # of the next step
    tried: Array
    done: Array
