"""States with every kind of leaf, and their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gps.runs.checkpoints import Checkpoints


class Learner(NamedTuple):
    """A node of a pytree that is no dict and no list."""

    weights: tuple
    count: object


def state_of(step: int) -> dict[str, Any]:
    """A state with every kind of leaf, a function of the step alone."""
    rng = np.random.default_rng(step)
    odd = np.array([0x7FC12345, 0xFF800001, 0x80000000, 0x00000001], np.uint32).view(np.float32)  # NaNs, -0, denormal
    return {
        "learner": Learner(
            (jnp.asarray(rng.normal(size=(3, 5)).astype(np.float32)), jnp.asarray(odd)),
            jnp.int32(step),
        ),
        "key": jax.random.key_data(jax.random.key(step)),
        "mask": jnp.asarray(rng.random(7) < 0.5),
        "half": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "host": {"x": rng.normal(size=(2, 3)), "0-d": np.array(step, np.int64), "scalar": np.float32(0.1) * step},
        "empty": (np.zeros((0, 3), np.float32), None),
        "plain": [step, 0.1 * step, step % 2 == 0],
        "a/b.c['d']": jnp.full(2000, step, jnp.uint32),
    }


def assert_same(left: Any, right: Any) -> None:
    """Equal in structure, in the types of the leaves, in dtype, in shape, and in every bit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert type(a) is type(b)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def saved(folder: Path, steps=(1, 2), keep=3) -> Checkpoints:
    """Checkpoints of the states of these steps."""
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, state_of(step), {"step": step})
    return checkpoints
