"""Small things that safeguards do to pytrees of arrays."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Tree = TypeVar("Tree")


def all_finite(tree: Any, batched: bool = True) -> Bool[Array, "*M"]:
    """Whether all numbers of a tree are finite; by default for each entry of the leading axis of its leaves."""
    axes = (lambda leaf: tuple(range(1, leaf.ndim))) if batched else (lambda _: None)
    leaves = [jnp.isfinite(leaf).all(axes(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all(0)


def select(keep: Bool[Array, "*M"], new: Tree, old: Tree) -> Tree:
    """`new` where `keep`, `old` elsewhere; `keep` is a scalar, or has the leading axis of every leaf."""

    def choose(a, b):
        return jnp.where(keep.reshape(keep.shape + (1,) * (jnp.ndim(a) - keep.ndim)), a, b)

    return jax.tree.map(choose, new, old)
