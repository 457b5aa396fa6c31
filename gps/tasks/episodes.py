"""The learner: a policy that acts on what it is shown, one frame at a time, remembering the last few."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dynamics.rollout import Trajectory, rollout
from gps.tasks.control_task import ControlTask
from policies import regression
from policies.mlp import GaussianPolicy


@dataclass(frozen=True)
class LearnerSettings:
    """The learner's network and its training; every guider teaches this same learner."""

    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers
    start_std: float = 1.0  # of the untrained policy's actions
    std_floor: float = 0.02  # smallest standard deviation of an action
    training: regression.Settings = field(default_factory=regression.Settings)

    def __post_init__(self):
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must name at least one positive width, not {self.hidden}")
        if not 0 < self.std_floor <= self.start_std:
            raise ValueError(f"std_floor must be in (0, start_std = {self.start_std}], not {self.std_floor}")


class Policy(Protocol):
    """What acts: `policies.mlp.GaussianPolicy`, `policies.network.NetworkPolicy`."""

    def start_memory(self) -> Array:
        """What it remembers before an episode."""
        ...

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Array:
        """The noise that actions take; zero gives the most likely action."""
        ...

    def act(self, memory: Array, o: Float[Array, " no"], noise: Array) -> tuple[Array, Array]:
        """One step: what it remembers after it, and an action as the environment takes it."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Learner:
    """The policy and the state of its optimiser."""

    policy: GaussianPolicy
    memory: Any


def start_learner(key: PRNGKeyArray, task: ControlTask, settings: LearnerSettings) -> Learner:
    """A fresh learner for a task."""
    size = task.history * task.frame_size
    policy = GaussianPolicy.start(key, size, task.nu, settings.hidden, settings.start_std)
    return Learner(policy, regression.optimizer(settings.training).init(policy.params))


def remember(frames: Float[Array, "h nf"], t: Array, frame: Float[Array, " nf"]) -> Float[Array, "h nf"]:
    """The last h frames after seeing another; before the first one, the first one stands in."""
    shifted = jnp.concatenate([frames[1:], frame[None]])
    return jnp.where(t == 0, jnp.broadcast_to(frame, frames.shape), shifted)


def stack_frames(frames: Float[Array, "T nf"], history: int) -> Float[Array, "T h*nf"]:
    """What the learner would have seen at each step of an episode, given its frames."""
    index = jnp.arange(len(frames))[:, None] + jnp.arange(1 - history, 1)
    return frames[jnp.maximum(index, 0)].reshape(len(frames), -1)


def act(task: ControlTask, policy: Policy, context: Float[Array, " nc"]):
    """A policy as an actor for `rollout`; noise is {"action": as the policy's, "frame": (noise_size)} a step."""

    def actor(memory, t, state, noise):
        frames, memory = memory
        frames = remember(frames, t, task.observe(task.control_state(state), context, noise["frame"]))
        memory, action = policy.act(memory, frames.reshape(-1), noise["action"])
        return (frames, memory), action

    return actor


def start_acting(task: ControlTask, policy: Policy) -> tuple[Array, Array]:
    """What the actor of `act` starts with: no frames, and the policy's memory."""
    return jnp.zeros((task.history, task.frame_size)), policy.start_memory()


def run_episode(
    task: ControlTask, policy: Policy, context: Float[Array, " nc"], key: PRNGKeyArray, std: float = 0.0
) -> Trajectory:
    """One episode of the learner; its actions carry `std` times the policy's own noise."""
    start, action, frame = jax.random.split(key, 3)
    noise = {
        "action": std * policy.noise(action, (task.horizon,)),
        "frame": jax.random.normal(frame, (task.horizon, task.noise_size)),
    }
    actor, memory = act(task, policy, context), start_acting(task, policy)
    return rollout(task.simulator, actor, task.initial_state(start, context), noise, memory)
