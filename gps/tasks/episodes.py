"""The learner: a policy that acts on what it is shown, one frame at a time, remembering the last few."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dynamics.rollout import Trajectory, rollout
from gps.tasks.control_task import ControlTask
from policies.policy import Policy


def remember(frames: Float[Array, "h nf"], t: Array, frame: Float[Array, " nf"]) -> Float[Array, "h nf"]:
    """The last h frames after seeing another; before the first one, the first one stands in."""
    shifted = jnp.concatenate([frames[1:], frame[None]])
    return jnp.where(t == 0, jnp.broadcast_to(frame, frames.shape), shifted)


def stack_frames(frames: Float[Array, "T nf"], history: int) -> Float[Array, "T h*nf"]:
    """What the learner would have seen at each step of an episode, given its frames."""
    index = jnp.arange(len(frames))[:, None] + jnp.arange(1 - history, 1)
    return frames[jnp.maximum(index, 0)].reshape(len(frames), -1)


def act(task: ControlTask, policy: Policy, context: Float[Array, " nc"], privileged: bool = False):
    """A policy as an actor for `rollout`; noise is {"action": as the policy's, "frame": (noise_size)} a step.

    Args:
        privileged: it is the policy of a model-free guider, which sees what is privileged before the frames.
    """

    def actor(memory, t, state, noise):
        x = task.control_state(state)
        frame = task.observe(x, context, noise["frame"])
        before = task.privileged(x, context) if privileged else None  # pyright: ignore[reportAttributeAccessIssue]
        return answer(policy, memory, t, frame, noise["action"], before)

    return actor


def answer(
    policy: Policy,
    memory: tuple[Array, Array],
    t: Array,
    frame: Float[Array, " nf"],
    noise: Array,
    before: Array | None = None,
) -> tuple[tuple[Array, Array], Array]:
    """What a policy remembers and does after seeing one more frame; it sees `before` in front of the last ones."""
    frames, memory_of_policy = memory
    frames = remember(frames, t, frame)
    seen = frames.reshape(-1) if before is None else jnp.concatenate([before, frames.reshape(-1)])
    memory_of_policy, action = policy.act(memory_of_policy, seen, noise)
    return (frames, memory_of_policy), action


def start_acting(task: ControlTask, policy: Policy) -> tuple[Array, Array]:
    """What the actor of `act` starts with, and `answer`: no frames, and the policy's memory."""
    return jnp.zeros((task.history, task.frame_size)), policy.start_memory()


def begin(
    task: ControlTask, policy: Policy, context: Float[Array, " nc"], key: PRNGKeyArray, std: float = 0.0
) -> tuple[Float[Array, " nstate"], dict[str, Array], tuple[Array, Array]]:
    """An episode's first state, the noise of each of its steps for the actor of `act`, and what that starts with.

    Args:
        std: multiplies the policy's own noise on its actions.
    """
    start, action, frame = jax.random.split(key, 3)
    noise = {
        "action": std * policy.noise(action, (task.horizon,)),
        "frame": jax.random.normal(frame, (task.horizon, task.noise_size)),
    }
    return task.initial_state(start, context), noise, start_acting(task, policy)


def run_episode(
    task: ControlTask, policy: Policy, context: Float[Array, " nc"], key: PRNGKeyArray, std: float = 0.0
) -> Trajectory:
    """One episode of the learner; its actions carry `std` times the policy's own noise."""
    start, noise, memory = begin(task, policy, context, key, std)
    return rollout(task.simulator, act(task, policy, context), start, noise, memory)
