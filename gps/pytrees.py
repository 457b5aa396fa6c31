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


def bare(tree: Tree) -> Tree:
    """Random keys as plain arrays, which is how a state that is saved holds them."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def keyed(tree: Tree, like: Tree) -> Tree:
    """What `bare` made plain arrays as random keys again (of JAX's default kind), where `like` has them."""

    def wrap(leaf, known):
        return jax.random.wrap_key_data(leaf) if _is_key(known) else leaf

    return jax.tree.map(wrap, tree, like)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
