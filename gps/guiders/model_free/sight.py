"""A task as unrolls step it: images are made only where somebody sees them.

A task may offer `blind`, which is the task without images, and `look`, the image of a state; see
`gps.tasks.task.Environment`. Any other task is stepped as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gps.tasks.task import Environment, State

Observations = dict[str, Array]


@dataclass(frozen=True)
class Sight:
    """Of N environments side by side."""

    task: Environment
    shown: int  # environments in which images are seen: the first ones; in the others zeros stand in their place
    after: bool = True  # somebody sees the images after steps too, before any reset

    @property
    def stepped(self) -> Environment:
        """What is reset and stepped."""
        return getattr(self.task, "blind", self.task)

    def before_steps(self, states: State) -> Observations:
        """What is seen in states."""
        return self._with_images(states, self.shown)

    def after_steps(self, states: State) -> Observations:
        """What is seen after steps, before any reset."""
        return self._with_images(states, self.shown if self.after else 0)

    def _with_images(self, states: State, shown: int) -> Observations:
        task: Any = self.task
        if self.stepped is task:
            return states.obs
        own = states.obs["state"]
        images = jnp.zeros((len(own), math.prod(task.image_shape)), own.dtype)
        if shown:
            some = jax.vmap(task.look)(jax.tree.map(lambda x: x[:shown], states))
            images = images.at[:shown].set(some.reshape(shown, -1))
        return {**states.obs, "state": jnp.concatenate([own, images], axis=-1)}
