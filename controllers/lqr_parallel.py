"""Linear-quadratic control and linear roll-outs in a number of stages that grows with log T instead of T.

For long horizons on a device with many cores: all of it together is more work than one sweep, so that on a CPU
`controllers.lqr` is several times faster. The problems are those of `controllers.lqr`; shapes as there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from . import lqr
from .linalg import product
from .types import LinearDynamics, LinearGaussian, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float

# The first pass is exact but for rounding, which float32 feels where the guess of the value is far off: V was wrong by
# 1e-3 on an acrobot. The second starts from a guess that is nearly right, and is as good as the sweep from the end.
PASSES = 2


def backward_pass(
    dynamics: LinearDynamics,
    cost: QuadraticCost,
    temperature: Float[Array, " T"] | float = 1.0,
    regularization: Float[Array, ""] | float = 0.0,
    block: int = 4,
) -> lqr.LqrSolution:
    """Solve the problem of `lqr.backward_pass` with all blocks of a few steps side by side.

    Every block is swept backwards from a guess of the value function at its end. The closed loop and the value
    that come of it make the block one piece of a chain, its cost as a function of the states at both its ends;
    joining pieces is associative, and all that follow a block together give the error of its guess. With the
    guess corrected, one more sweep of all blocks is the solution.

    Args:
        dynamics: T local models x' = A x + B u + c; the noise does not change the controller.
        cost: in task units, positive definite in u once the cost to go, or its guess, is added.
        temperature: price of entropy in task units per nat, for each step; scales the covariance alone.
        regularization: added to the diagonal of each H_uu. Controller, V and v are optimal for that cost, whose
            later steps are regularised as well, where damping in `lqr.backward_pass` stays out of V and v: the
            gains of the two differ a little. Slope and curvature predict the cost without it, exactly.
        block: steps that are swept one after the other. More are less work in all, fewer are fewer stages.

    Errors:
        ValueError for a block below 1. Raises nothing under jit. INDEFINITE as in `lqr.backward_pass`, with a
        controller that is NaN from that step back to t = 0. Each Q_uu has to be positive definite with the guess
        of the value in its place too. Where the stage costs are convex it is; where they are not, a problem that
        the sweep from the end solves may be called indefinite here.

    Source:
        Särkkä and García-Fernández, "Temporal parallelization of dynamic programming and linear quadratic
        control", IEEE Transactions on Automatic Control, 2023, for the pieces (A, b, C, J, eta = -j) and how they
        are joined. Unlike there, a piece is a block, its J is measured from a guess, and it is made by a sweep:
        elimination of u by H_uu alone gives a wild A and a large C where actions are cheap, and cost float32 up to
        three digits. Blocks, but between fixed ends: Laine and Tomlin, "Parallelizing LQR computation through
        endpoint-explicit Riccati recursion", CDC 2019.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, not {block}")
    T, nx, nu = dynamics.B.shape
    count = -(-T // block)
    actions = jnp.diag(jnp.arange(nx + nu) >= nx).astype(cost.H.dtype)
    H = cost.H + regularization * actions

    def cut(a, idle: Any = 0.0):
        """In blocks; after the end, steps in which nothing moves and nothing but actions costs anything."""
        tail = jnp.broadcast_to(jnp.asarray(idle, a.dtype), (count * block - T, *a.shape[1:]))
        return jnp.concatenate([a, tail]).reshape(count, block, *a.shape[1:])

    A, B, c = cut(dynamics.A, jnp.eye(nx)), cut(dynamics.B), cut(dynamics.c)
    models, H_blocks, g_blocks = LinearDynamics(A, B, c, jnp.zeros_like(A)), cut(H, actions), cut(cost.g)

    def sweep(inner) -> lqr.LqrSolution:
        """All blocks, from V and v at the ends of all but the last."""
        V = jnp.concatenate([inner[0], cost.H_final[None]])
        v = jnp.concatenate([inner[1], cost.g_final[None]])
        zero = jnp.zeros((count, block), H.dtype)
        return jax.vmap(lqr.backward_pass)(models, QuadraticCost(H_blocks, g_blocks, zero, V, v, zero[:, 0]))

    def corrected(inner, swept):
        V, v = inner
        pieces = _Piece(*jax.vmap(_closed)(models, swept.controller), swept.V[:, 0], swept.v[:, 0])
        pieces = jax.tree.map(lambda a: a[1:], pieces)
        errors = suffixes(_join, pieces._replace(J=pieces.J - V, j=pieces.j - v))
        return V + errors.J, v + errors.j

    def again(i, carry):
        inner = jax.lax.cond(i > 0, corrected, lambda inner, _: inner, *carry)
        return inner, sweep(inner)

    # products at full precision: a GPU would round the factors of a float32 product to 10 bits
    with jax.default_matmul_precision("highest"):
        usual = jnp.diag(jnp.abs(jnp.diagonal(H, axis1=1, axis2=2)[:, :nx]).mean(0))
        guess = tuple(jnp.broadcast_to(a, (count - 1, *a.shape)) for a in (cost.H_final + usual, cost.g_final))
        # starting from nothing, the sweep is compiled once
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(sweep, guess))
        _, swept = jax.lax.fori_loop(0, PASSES + 1, again, (guess, blank)) if count > 1 else (guess, sweep(guess))
        controller, V, v, Q_uu = jax.tree.map(
            lambda a: a[:, :block].reshape(count * block, *a.shape[2:])[:T],
            (swept.controller, swept.V, swept.v, swept.Q_uu),
        )
        slope, curvature = _change(dynamics, cost, controller)
    scale = jnp.sqrt(jnp.broadcast_to(temperature, (T,)))[:, None, None]
    return lqr.LqrSolution(
        controller=dataclasses.replace(controller, chol=scale * controller.chol),
        V=jnp.concatenate([V, cost.H_final[None]]),
        v=jnp.concatenate([v, cost.g_final[None]]),
        slope=slope,
        curvature=curvature,
        status=swept.status.max(),
        Q_uu=Q_uu,
        free=None,
    )


def rollout(A: Float[Array, "T nx nx"], b: Float[Array, "T nx"], x0: Float[Array, " nx"]) -> Float[Array, "T+1 nx"]:
    """States x[t+1] = A[t] x[t] + b[t] from x[0] = x0, by joining affine maps."""
    # time runs backwards, so that what follows in the array comes before; x0 is the constant map
    maps = jnp.concatenate([A[::-1], jnp.zeros_like(A[:1])]), jnp.concatenate([b[::-1], x0[None]])
    with jax.default_matmul_precision("highest"):
        joined = suffixes(lambda late, early: (product(late[0], early[0]), _affine(*late, x=early[1])), maps)
    return joined[1][::-1]


def suffixes(join: Callable[[Any, Any], Any], pieces: Any) -> Any:
    """What each piece makes when all pieces after it are joined to it, `join` being associative.

    By recursive doubling: each round joins to a piece what the piece at the end of its reach has made. All rounds
    are one compiled loop. `jax.lax.associative_scan` joins fewer pieces in twice as many rounds, each compiled by
    itself: for nx = 26 and 512 pieces that takes 8 s instead of 1.

    Source:
        Hillis and Steele, "Data parallel algorithms", Communications of the ACM, 1986.
    """
    places = jnp.arange(len(jax.tree.leaves(pieces)[0]))

    def double(i, pieces):
        after = places + (1 << i)
        inside = after < len(places)
        following = jax.tree.map(lambda a: a[jnp.where(inside, after, 0)], pieces)
        choose = jax.vmap(lambda inside, joined, alone: jax.tree.map(lambda *ab: jnp.where(inside, *ab), joined, alone))
        return choose(inside, jax.vmap(join)(pieces, following), pieces)

    return jax.lax.fori_loop(0, (len(places) - 1).bit_length(), double, pieces)


class _Piece(NamedTuple):
    """Least cost from a state x at the start of a stretch of time to a state y at its end, but for a constant.

    max over p of 1/2 x'Jx + j'x + p'(Ax + b - y) - 1/2 p'Cp.
    """

    A: Float[Array, "nx nx"]
    b: Float[Array, " nx"]
    C: Float[Array, "nx nx"]
    J: Float[Array, "nx nx"]
    j: Float[Array, " nx"]


def _join(first: _Piece, second: _Piece) -> _Piece:
    """Both stretches together, with the best state in between.

    With the price p of the end that state is (I + C1 J2)^-1 (A1 x + b1 - C1 (j2 + A2'p)).
    """
    n = len(first.b)
    missed = first.b - product(first.C, second.j)
    mixed = jnp.eye(n, dtype=first.A.dtype) + product(first.C, second.J)
    solved = jnp.linalg.solve(mixed, jnp.concatenate([first.A, first.C, missed[:, None]], axis=1))
    A, C, b = solved[:, :n], solved[:, n : 2 * n], solved[:, 2 * n]
    return _Piece(
        A=product(second.A, A),
        b=_affine(second.A, second.b, b),
        C=_symmetric(product(second.A, product(C, second.A.T))) + second.C,
        J=first.J + _symmetric(product(first.A.T, product(second.J, A))),
        j=first.j + product(A.T, second.j + product(second.J, first.b)),
    )


def _closed(dynamics: LinearDynamics, controller: LinearGaussian) -> tuple[Array, Array, Array]:
    """A, b and C of a block under its optimal controller, chol chol' being Q_uu^-1."""

    def step(before, inputs):
        A, b, C = before
        A_step, b_step, spread = inputs
        C = _symmetric(product(A_step, product(C, A_step.T))) + product(spread, spread.T)
        return (product(A_step, A), _affine(A_step, b_step, b), C), None

    drift = jnp.einsum("txu,tu->tx", dynamics.B, controller.k) + dynamics.c
    start = jnp.eye(drift.shape[1], dtype=drift.dtype), jnp.zeros_like(drift[0]), jnp.zeros_like(dynamics.A[0])
    closed = dynamics.A + dynamics.B @ controller.K
    return jax.lax.scan(step, start, (closed, drift, dynamics.B @ controller.chol))[0]


def full_step(dynamics: LinearDynamics, controller: LinearGaussian) -> tuple[Array, Array]:
    """States (T+1 nx) and actions (T nu) of the controller's mean on the linear model, from x[0] = 0."""
    drift = jnp.einsum("txu,tu->tx", dynamics.B, controller.k) + dynamics.c
    xs = rollout(dynamics.A + dynamics.B @ controller.K, drift, jnp.zeros_like(drift[0]))
    return xs, controller.means(xs[:-1])


def _change(dynamics: LinearDynamics, cost: QuadraticCost, controller: LinearGaussian) -> tuple[Array, Array]:
    """Slope and curvature of `lqr.LqrSolution`: the cost along the whole step, from x[0] = 0."""
    xs, us = full_step(dynamics, controller)
    z, end = jnp.concatenate([xs[:-1], us], axis=1), xs[-1]
    slope = (cost.g * z).sum() + cost.g_final @ end
    return slope, jnp.einsum("ti,tij,tj->", z, cost.H, z) + end @ cost.H_final @ end


def _affine(A: Float[Array, "nx nx"], b: Float[Array, " nx"], x: Float[Array, " nx"]) -> Float[Array, " nx"]:
    return product(A, x) + b


def _symmetric(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    return 0.5 * (a + a.T)
