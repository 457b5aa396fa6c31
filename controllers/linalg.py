"""Linear algebra of small matrices, written so that XLA compiles a loop over time into one piece of code.

A product or a factorisation of a few numbers costs less than the call of the library routine that would
compute it, and far less inside a `vmap`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float

SMALL = 16  # largest inner dimension of a product that is written out
FEW = 8  # largest matrix that is factored by elimination, row by row


def product(a: Float[Array, "m n"], b: Float[Array, "n *k"]) -> Float[Array, "m *k"]:
    """a @ b for a matrix a and a matrix or vector b, in full precision also where a GPU would take less by default."""
    if a.shape[1] > SMALL:
        return jnp.matmul(a, b, precision="highest")
    return (a * b).sum(1) if b.ndim == 1 else (a[:, :, None] * b[None]).sum(1)


def solve_positive(a: Float[Array, "n n"], b: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """a^-1 b for symmetric a; NaN where a is not positive definite.

    Small matrices by elimination without pivoting, the square-root-free Cholesky factorisation carried
    through to the right-hand side; its pivots are positive exactly where a is positive definite.
    """
    if len(a) > FEW:
        chol = jnp.linalg.cholesky(a, symmetrize_input=True)
        return jax.scipy.linalg.cho_solve((chol, True), b)
    return _eliminated(jnp.concatenate([a, b], axis=1))[0][:, len(a) :]


def pivots(a: Float[Array, "n n"]) -> Float[Array, " n"]:
    """The pivots of a symmetric matrix: all positive exactly where it is positive definite, else some are NaN."""
    if len(a) > FEW:
        return jnp.diagonal(jnp.linalg.cholesky(a, symmetrize_input=True))
    return _eliminated(a)[1]


def _eliminated(rows: Float[Array, "n m"]) -> tuple[Float[Array, "n m"], Float[Array, " n"]]:
    """Rows after Gauss-Jordan elimination without pivoting, and the pivots; NaN from the first that is not positive."""
    n = len(rows)

    def eliminate(i, carry):
        rows, pivots = carry
        pivot = jnp.where(rows[i, i] > 0.0, rows[i, i], jnp.nan)
        row = rows[i] / pivot
        rows = jnp.where(jnp.arange(n)[:, None] == i, row, rows - rows[:, i][:, None] * row)
        return rows, pivots.at[i].set(pivot)

    return jax.lax.fori_loop(0, n, eliminate, (rows, rows[:, 0]))


def inverse_factor(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Lower triangular S with a^-1 = S S'; NaN where a is not positive definite.

    From the Cholesky factor of `a` with rows and columns in reverse order: a = U U' with U upper
    triangular, so that S = U^-T is lower triangular and no product is factored twice.
    """
    if a.shape[-1] == 1:
        return jnp.where(a > 0.0, 1.0 / jnp.sqrt(a), jnp.nan)
    upper = jnp.linalg.cholesky(a[::-1, ::-1], symmetrize_input=True)[::-1, ::-1]
    identity = jnp.eye(a.shape[-1], dtype=a.dtype)
    return jax.lax.linalg.triangular_solve(upper, identity, left_side=True, lower=False).T
