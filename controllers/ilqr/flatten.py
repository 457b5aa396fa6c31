"""States and actions that are pytrees, as flat arrays and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array


@dataclass(frozen=True)
class Structure:
    """How the leaves of a pytree lie in one flat array; hashable, so that it can key what was compiled."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tree, lead: int) -> Structure:
        """Of a tree whose leaves have `lead` leading axes that stay."""
        leaves, treedef = jax.tree.flatten(tree)
        return cls(treedef, tuple(leaf.shape[lead:] for leaf in leaves))

    @property
    def plain(self) -> bool:
        """Whether the tree is one array with one axis already."""
        return jax.tree_util.treedef_is_leaf(self.treedef) and len(self.shapes[0]) == 1

    def flatten(self, tree, lead: int = 0) -> Array:
        """Leaves flattened behind their leading axes, and joined."""
        if self.plain:
            return tree
        return jnp.concatenate([leaf.reshape(*leaf.shape[:lead], -1) for leaf in jax.tree.leaves(tree)], axis=-1)

    def unflatten(self, flat: Array):
        """The tree of a flat array; leading axes stay."""
        if self.plain:
            return flat
        leaves, start = [], 0
        for shape in self.shapes:
            size = math.prod(shape)
            leaves.append(flat[..., start : start + size].reshape(*flat.shape[:-1], *shape))
            start += size
        return jax.tree.unflatten(self.treedef, leaves)


@dataclass(frozen=True)
class OnFlat:
    """A function of x, of (x, u, ...) or of (x, ...) as one of flat arrays; equal where its parts are."""

    function: Callable[..., Any]
    x: Structure
    u: Structure | None  # None for functions of the end state
    returns_state: bool = False

    def __call__(self, x, *rest):
        if self.u is not None:
            rest = (self.u.unflatten(rest[0]), *rest[1:])
        out = self.function(self.x.unflatten(x), *rest)
        return self.x.flatten(out) if self.returns_state else out
