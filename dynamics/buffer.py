"""The last transitions of a run, in a buffer of fixed size: what priors learn from that outlives an iteration."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Buffer:
    """Transitions w = (x, u, x' - x) in absolute coordinates; the oldest give way."""

    points: Float[Array, "P nw"]
    weights: Float[Array, " P"]  # 0 for places that are empty yet, and for samples that do not count
    added: Int[Array, ""]  # points so far, those that gave way included

    @property
    def count(self) -> Float[Array, ""]:
        """Points that count."""
        return self.weights.sum()

    def scales(self) -> tuple[Float[Array, " nw"], Float[Array, " nw"]]:
        """Mean and standard deviation of the points; 1 for what never changes."""
        mean = self.weights @ self.points / jnp.maximum(self.count, 1.0)
        std = jnp.sqrt(self.weights @ (self.points - mean) ** 2 / jnp.maximum(self.count, 1.0))
        rounding = 8 * jnp.finfo(std.dtype).eps * jnp.abs(mean)
        return mean, jnp.where(std > rounding + jnp.finfo(std.dtype).tiny, std, 1.0)


def empty(size: int, nw: int) -> Buffer:
    """A buffer for so many transitions."""
    return Buffer(jnp.zeros((size, nw)), jnp.zeros(size), jnp.zeros((), jnp.int32))


def add(buffer: Buffer, points: Float[Array, "Q nw"], weights: Float[Array, " Q"], most: int) -> Buffer:
    """The buffer with these points in place of the oldest: all of them, or `most` that are evenly spread over them.

    Which ones of every few are taken shifts from call to call.
    """
    taken = min(len(points), most, len(buffer.points))
    first = buffer.added % max(1, len(points) // taken)
    chosen = jnp.minimum(first + (jnp.arange(taken) * len(points)) // taken, len(points) - 1)
    places = (buffer.added + jnp.arange(taken)) % len(buffer.points)
    return Buffer(
        buffer.points.at[places].set(points[chosen]),
        buffer.weights.at[places].set(weights[chosen]),
        buffer.added + taken,
    )
