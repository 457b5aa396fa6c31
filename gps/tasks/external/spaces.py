"""Gymnasium's spaces as flat arrays: what is observed as numbers, and an action from ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from gps.settings import SettingsError
from gps.tasks.task import ActionSpace

_NUMERIC = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Observations:
    """An observation space as a flat array, as Gymnasium flattens it: a choice is one-hot, a Dict in its keys' order.

    Args:
        space: of boxes, choices and bits, in Dict and Tuple as deep as may be.
        name: the task's.

    Errors:
        SettingsError for another kind of space, and for images.
    """

    def __init__(self, space: spaces.Space, name: str):
        for part in _parts(space):
            if not isinstance(part, _NUMERIC):
                raise SettingsError(
                    f"task {name}: its observation space must be of Box, Discrete, MultiDiscrete or MultiBinary, in "
                    f"Dict and Tuple, and it has {_shown(part)}"
                )
            if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) > 1:
                raise SettingsError(
                    f"task {name}: its observation space has images, {_shown(part)}, and environments of Gymnasium are "
                    "seen as numbers alone; learners that see have tasks of their own, such as reacher-vision"
                )
        self._space = space
        self.size = spaces.flatdim(space)

    def read(self, observation: Any) -> Float[np.ndarray, " no"]:
        """An observation of the environment.

        Errors:
            ValueError where it is not of the space's size.
        """
        flat = np.asarray(spaces.flatten(self._space, observation), np.float32).ravel()
        if flat.size != self.size:
            raise ValueError(f"an observation of {flat.size} numbers, and its observation space has {self.size}")
        return flat


class Actions:
    """An action space for a policy: a choice, or numbers in [-1, 1] that stand for those between the limits.

    Args:
        space: a Discrete, or a Box of floats with limits.
        name: the task's.

    Errors:
        SettingsError for another space.
    """

    def __init__(self, space: spaces.Space, name: str):
        self._space = space
        if isinstance(space, spaces.Discrete):
            self.space = ActionSpace(int(space.n), discrete=True)
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and space.is_bounded():
            self.space = ActionSpace(spaces.flatdim(space))
            self._low, self._high = space.low.astype(float), space.high.astype(float)
        else:
            raise SettingsError(
                f"task {name}: its action space must be Discrete, or a Box of floats with finite limits, not "
                f"{_shown(space)}"
            )

    def write(self, action: np.ndarray) -> Any:
        """An action of a policy, an int32 or float32 in [-1, 1], as the environment takes it."""
        if isinstance(self._space, spaces.Discrete):
            return self._space.dtype.type(self._space.start + int(action[0]))
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        scaled = middle + half * action.reshape(self._space.shape)
        return np.clip(scaled, self._low, self._high).astype(self._space.dtype)


def _parts(space: spaces.Space) -> Iterator[spaces.Space]:
    inside = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else None
    if inside is None:
        yield space
    else:
        for part in inside.values() if isinstance(inside, dict) else inside:
            yield from _parts(part)


def _shown(space: spaces.Space) -> str:
    return " ".join(str(space).split())
