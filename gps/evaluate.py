"""Evaluation of a learner, the same for every guider; its simulator steps are not counted."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from gps.learner import run_episode
from gps.tasks.task import ControlTask, episode_cost
from policies.mlp import GaussianPolicy

LAST_STEPS = 10  # the distance of an episode is the mean over its last steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluation:
    """One episode for each of C contexts."""

    distance: Float[Array, " C"]  # m, mean over the last 10 steps; NaN where the simulation diverged
    cost: Float[Array, " C"]  # task units
    xs: Float[Array, "C T+1 nx"]


def evaluate(
    task: ControlTask,
    policy: GaussianPolicy,
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
