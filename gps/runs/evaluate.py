"""Evaluation of a learner, the same for every guider; its simulator steps are not counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gps.tasks.episodes import Policy, run_episode
from gps.tasks.task import ControlTask, Environment, diverged, episode_cost

LAST_STEPS = 10  # the distance of an episode is the mean over its last steps
STEPS = 2**16  # of an evaluation in short episodes; see `episode_count`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluation:
    """One episode of a `ControlTask` for each of C contexts."""

    distance: Float[Array, " C"]  # m, mean over the last 10 steps; NaN where the simulation diverged
    cost: Float[Array, " C"]  # task units
    xs: Float[Array, "C T+1 nx"]

    def scores(self, task: Any) -> dict[str, Any]:
        """The numbers for a row of metrics; contexts are those of training, then those of the test."""
        count = len(task.train_contexts)
        score, cost = 100 * np.asarray(self.distance), np.asarray(self.cost)
        return {
            "learner_return": -cost[count:].mean(),
            "train_score": score[:count].mean(),
            "test_score": score[count:].mean(),
            "test_score_worst": score[count:].max(),
            "train_episodes": count,
            "test_episodes": len(score) - count,
            "train_cost": cost[:count].mean(),
            "test_cost": cost[count:].mean(),
        }


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Episodes:
    """E episodes of an `Environment`, by most likely actions and by actions drawn from the policy."""

    returned: Float[Array, " E"]  # sum of rewards; NaN where the simulation diverged
    returned_sampled: Float[Array, " E"]
    length: Float[Array, " E"]  # steps, by most likely actions

    def scores(self, _task: Any) -> dict[str, Any]:
        """The numbers for a row of metrics."""
        return {
            "learner_return": np.asarray(self.returned).mean(),
            "learner_return_sampled": np.asarray(self.returned_sampled).mean(),
            "episode_length": np.asarray(self.length).mean(),
        }


def evaluate(
    task: ControlTask,
    policy: Policy,
    contexts: Float[Array, "C nc"],
    key: PRNGKeyArray,
    std: float = 0.0,
) -> Evaluation:
    """Let the learner act, deterministically or with `std` times its own noise, once for each context."""

    def one(context, key):
        trajectory = run_episode(task, policy, context, key, std)
        xs = jax.vmap(task.control_state)(trajectory.states)
        distances = jax.vmap(task.distance, in_axes=(0, None))(xs[1:], context)
        return Evaluation(distances[-LAST_STEPS:].mean(), episode_cost(task, xs, trajectory.actions, context), xs)

    return jax.vmap(one)(contexts, jax.random.split(key, len(contexts)))


def episode_count(task: Environment) -> int:
    """How many episodes an evaluation takes: more where they are short, so that it says as much; 64 to 4096."""
    return min(max(STEPS // task.horizon, 64), 4096)


def evaluate_episodes(task: Environment, policy: Policy, key: PRNGKeyArray) -> Episodes:
    """Let the learner act in `episode_count` episodes, once by its most likely actions and once by drawn ones."""
    keys = jax.random.split(key, episode_count(task))
    returned, length = returns(task, policy, keys, 0.0)
    sampled, _ = returns(task, policy, keys, 1.0)
    return Episodes(returned, sampled, length)


def returns(
    task: Environment, policy: Policy, keys: PRNGKeyArray, noise: float
) -> tuple[Float[Array, " E"], Float[Array, " E"]]:
    """Sum of rewards and number of steps of one episode for each key; NaN for an episode that diverged.

    Args:
        noise: multiplies the policy's own; 0 takes its most likely actions.
    """

    def one(key):
        starting, acting = jax.random.split(key)

        def step(carry, noise):
            state, memory, total, steps, alive = carry
            memory, action = policy.act(memory, state.obs["state"], noise)
            state = task.step(state, action)
            reward = jnp.where(diverged(state), jnp.nan, state.reward)
            total = total + jnp.where(alive, reward, 0.0)
            carry = (state, memory, total, steps + alive, alive & (state.done == 0))
            return carry, None

        start = (task.reset(starting), policy.start_memory(), jnp.zeros(()), jnp.zeros(()), jnp.ones((), bool))
        noises = noise * policy.noise(acting, (task.horizon,))
        (_, _, total, steps, _), _ = jax.lax.scan(step, start, noises)
        return total, steps

    return jax.vmap(one)(keys)
