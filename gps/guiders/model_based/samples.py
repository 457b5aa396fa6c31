"""The samples that model-based guiders collect: roll-outs of every condition, by its controller or by the learner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from controllers.types import LinearGaussian
from dynamics.rollout import Trajectory, exploration_noise, rollout
from gps.guiders.guider import DivergedError
from gps.guiders.model_based.settings import SamplingSettings
from gps.tasks import episodes
from gps.tasks.control_task import ControlTask, step_costs
from policies.network import NetworkPolicy
from policies.normalize import plausible

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Samples:
    """M conditions x N samples. A sample that diverged has weight 0 and holds a sound one's numbers instead."""

    xs: Float[Array, "M N T+1 nx"]
    us: Float[Array, "M N T nu"]
    observations: Float[Array, "M N T no"]  # what the learner saw, or would have seen
    costs: Float[Array, "M N T+1"]  # of each step and of the end, in task units
    weights: Float[Array, "M N"]  # 1, or 0 where the simulation diverged

    @property
    def share(self) -> Float[Array, "M N"]:
        """Of each sample in a mean over those of its condition that count."""
        return self.weights / jnp.maximum(self.weights.sum(-1, keepdims=True), 1.0)

    @property
    def cost(self) -> Float[Array, " M"]:
        """Mean cost of an episode."""
        return weighted_mean(self.costs.sum(-1), self.weights)

    @property
    def cost_scale(self) -> Float[Array, " M"]:
        """T + 1 times the standard deviation of the costs over steps and samples: what a difference is large against.

        It does not change with a constant in the cost, and is in its units.
        """
        mean = weighted_mean(self.costs.mean(-1), self.weights)
        variance = weighted_mean(((self.costs - mean[:, None, None]) ** 2).mean(-1), self.weights)
        return self.costs.shape[-1] * jnp.sqrt(variance)


def none_yet(task: ControlTask, samples: int) -> Samples:
    """What stands for the last samples before there are any: zeros with weight 0."""
    M, T = len(task.train_contexts), task.horizon
    return Samples(
        xs=jnp.zeros((M, samples, T + 1, task.nx)),
        us=jnp.zeros((M, samples, T, task.nu)),
        observations=jnp.zeros((M, samples, T, task.observation_size)),
        costs=jnp.zeros((M, samples, T + 1)),
        weights=jnp.zeros((M, samples)),
    )


def collect(
    task: ControlTask,
    controllers: LinearGaussian,
    policy: NetworkPolicy,
    learner_collects: Bool[Array, " M"],
    key: PRNGKeyArray,
    settings: SamplingSettings,
) -> Samples:
    """Roll out every condition, under its controller or where `learner_collects` under the learner.

    The learner's frames are drawn with their noise in both cases: what it sees is what it is taught on.
    """

    def one(controller, context, learner_collects, key):
        start, noise = drawn(task, context, key, settings)
        watch = episodes.act(task, policy, context)

        def act(memory, t, state, noise):
            imitated: Array
            memory, imitated = watch(memory, t, state, noise)
            guided: Array = controller.sample(t, task.control_state(state), noise["action"])
            return memory, jnp.where(learner_collects, imitated, guided)

        memory = episodes.start_acting(task, policy)
        trajectory = rollout(task.simulator, act, start, noise, memory)
        return recorded(task, trajectory, context, noise["frame"])

    many = jax.vmap(jax.vmap(one, in_axes=(None, None, None, 0)))
    collected = many(controllers, task.train_contexts, learner_collects, keys_of(task, key, settings))
    return replace(without_diverged(collected, collected.weights), weights=collected.weights)


def keys_of(task: ControlTask, key: PRNGKeyArray, settings: SamplingSettings) -> PRNGKeyArray:
    """Random keys of all episodes of an iteration (M N)."""
    return jax.random.split(key, (len(task.train_contexts), settings.samples))


def drawn(
    task: ControlTask, context: Float[Array, " nc"], key: PRNGKeyArray, settings: SamplingSettings
) -> tuple[Float[Array, " nstate"], dict[str, Array]]:
    """All that is random in one episode: its first state, and T rows of noise for actions and for frames."""
    start, action, frame = jax.random.split(key, 3)
    noise = {
        "action": exploration_noise(action, task.horizon, task.nu, settings.smoothing),
        "frame": jax.random.normal(frame, (task.horizon, task.noise_size)),
    }
    return task.initial_state(start, context), noise


def recorded(
    task: ControlTask, trajectory: Trajectory, context: Float[Array, " nc"], noise: Float[Array, "T noise"]
) -> Samples:
    """One roll-out as a sample, without M and N.

    Args:
        noise: of the learner's frames.
    """
    xs = jax.vmap(task.control_state)(trajectory.states)
    frames = jax.vmap(task.observe, in_axes=(0, None, 0))(xs[:-1], context, noise)
    return judged(task, xs, trajectory.actions, frames, context, trajectory.sound)


def judged(
    task: ControlTask,
    xs: Float[Array, "T+1 nx"],
    us: Float[Array, "T nu"],
    frames: Float[Array, "T nf"],
    context: Float[Array, " nc"],
    sound: Bool[Array, ""],
) -> Samples:
    """One episode as a sample, without M and N: what it cost, and whether it counts.

    Args:
        frames: what the learner saw, or would have seen, before each action.
        sound: as far as is known already.
    """
    observations = episodes.stack_frames(frames, task.history)
    costs = step_costs(task, xs, us, context)
    sound = sound & jnp.isfinite(costs).all() & plausible(observations).all()
    return Samples(xs, us, observations, costs, sound.astype(xs.dtype))


def without_diverged(episodes: Tree, weights: Float[Array, "M N"]) -> Tree:
    """Episodes (leaves with leading M N), with a sound one's numbers in place of those that diverged.

    A condition without a sound episode has zeros where it has no numbers.
    """
    stand_in = jnp.argmax(weights, axis=1)  # the first sound sample of each condition
    index = jnp.where(weights > 0, jnp.arange(weights.shape[1]), stand_in[:, None])

    def choose(values: Array) -> Array:
        chosen: Array = jax.vmap(lambda v, i: v[i])(values, index)
        return jnp.where(jnp.isfinite(chosen), chosen, 0) if jnp.issubdtype(chosen.dtype, jnp.floating) else chosen

    return jax.tree.map(choose, episodes)


def check(samples: Samples) -> None:
    """Raise `DivergedError` if all samples of some condition diverged."""
    weights = multihost_utils.process_allgather(samples.weights, tiled=True)  # of several processes each has a part
    lost = [i for i, sound in enumerate(weights.sum(axis=1)) if sound == 0]
    if lost:
        raise DivergedError(
            f"all {samples.weights.shape[1]} samples of condition(s) {lost} diverged (a state or an observation was "
            "not finite or beyond 1e6, or a cost not finite): lower the exploration (guider.start.spread or std), "
            "the step (guider.trust_region.kl_step) or the physics timestep"
        )


def score(task: ControlTask, samples: Samples) -> Float[Array, " M"]:
    """The task's own score of the samples of each condition."""
    scores = jax.vmap(jax.vmap(task.measure, in_axes=(0, 0, None)))(samples.xs, samples.us, task.train_contexts)
    return weighted_mean(scores, samples.weights)


def weighted_mean(values: Float[Array, "M N"], weights: Float[Array, "M N"]) -> Float[Array, " M"]:
    """Mean over the samples that count."""
    return (values * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)
