"""Environments whose learner sees an image: `reset` and `step` make none, and whoever wants one asks for it.

Beside what `Environment` has, there are

    image_shape    (H, W, C), fixed
    look(state)    the image at a state of an episode, Float[H W C], from 0 to 1

What the learner sees is then [obs["state"], the image, flattened], of size `observation_size`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, cast

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gps.tasks.task import Environment, State
from policies.vision import Shape


class Seeing(Environment, Protocol):
    """An environment that can be looked at."""

    image_shape: Shape

    def look(self, state: State) -> Float[Array, "H W C"]:
        """The image at a state, from 0 to 1."""
        ...


def image_shape(task: Environment) -> Shape | None:
    """The shape of the image that ends what the learner of a task sees, if it ends with one."""
    return getattr(task, "image_shape", None)


def image_size(task: Environment) -> int:
    """How many numbers of what the learner sees are the image."""
    return math.prod(image_shape(task) or (0,))


def image(task: Environment, state: State) -> Float[Array, " pixels"]:
    """What `look` gives at a state, flattened."""
    return cast(Seeing, task).look(state).reshape(-1)


class WithImages:
    """The environment that looks after `reset` and after each `step`: its obs["state"] ends with the image."""

    def __init__(self, task: Environment):
        self.task = task

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # not yet set
            raise AttributeError(name)
        return getattr(self.task, name)

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode."""
        return self._seen(self.task.reset(key))

    def step(self, state: State, action: Array) -> State:
        """Act for one step."""
        return self._seen(self.task.step(state, action))

    def _seen(self, state: State) -> State:
        seen = jnp.concatenate([state.obs["state"], image(self.task, state)])
        return dataclasses.replace(state, obs={**state.obs, "state": seen})


def with_images(task: Environment) -> Environment:
    """An environment whose obs["state"] is all that the learner sees: the task itself where there is no image."""
    return cast(Environment, WithImages(task)) if image_shape(task) else task
