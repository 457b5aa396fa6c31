"""What a plant is: a robot, a rig or another simulator that runs episodes where a simulator would.

A plant is asked for whole episodes. It either follows a law, which it is given as a table before the episode and
evaluates in its own loop, or it obeys, and asks for each action as it goes. `dynamics.remote_plant` is one in another
process; docs/plant.md has the messages by which the two talk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

LIMIT = 1.0  # of each number of an action; what that is in newtons or volts is the plant's to know

# act(t, x, frame) -> u
Act = Callable[[int, Float[np.ndarray, " nx"], Float[np.ndarray, " nf"]], Float[np.ndarray, " nu"]]


class PlantError(ConnectionError):
    """A plant that stopped, was lost, or did what it must not; the message says which. It has been told to stop."""


@dataclass(frozen=True)
class Beginning:
    """What an episode begins with."""

    start: Float[np.ndarray, " nx"]  # the controllers' state that it should begin in; a robot comes as near as it can
    context: Float[np.ndarray, " nc"]  # its condition, such as a target


@dataclass(frozen=True)
class Episode:
    """What happened on the plant."""

    xs: Float[np.ndarray, "T+1 nx"]  # controllers' states
    us: Float[np.ndarray, "T nu"]  # as applied
    frames: Float[np.ndarray, "T nf"]  # as sensed for the learner before each action; nf = frame_size


class Plant(Protocol):
    """Runs one episode at a time.

    All of it raises PlantError where there is no plant, or no whole episode, and then nothing moves any more.
    """

    @property
    def frame_size(self) -> int:
        """Numbers that it senses for the learner at each step; 0 where the controllers' state says it all."""
        ...

    def follow(self, beginning: Beginning, K: Float[np.ndarray, "T nu nx"], k: Float[np.ndarray, "T nu"]) -> Episode:
        """An episode under u[t] = K[t] x + k[t], clipped to LIMIT."""
        ...

    def obey(self, beginning: Beginning, horizon: int, act: Act) -> Episode:
        """An episode of `horizon` actions under what `act` says at each step, within LIMIT."""
        ...
