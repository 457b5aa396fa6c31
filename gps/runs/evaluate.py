"""Evaluation of a learner, the same for every guider; its simulator steps are not counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dynamics.plant import Beginning, Plant
from gps.tasks import episodes
from gps.tasks.control_task import ControlTask, episode_cost
from gps.tasks.images import with_images
from gps.tasks.plant_episodes import LearnerOnPlant
from gps.tasks.task import Environment, diverged, reported
from policies.policy import Policy

STEPS = 2**16  # of an evaluation in short episodes; see `episode_count`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluation:
    """One episode of a `ControlTask` for each of C contexts: those of training, then those of the test."""

    score: Float[Array, " C"]  # in the unit of `ControlTask.score`; NaN where the simulation diverged
    solved: Bool[Array, " C"] | None  # None where the task does not say
    cost: Float[Array, " C"]  # task units
    states: Float[Array, "C T+1 nstate"]  # of the simulator
    us: Float[Array, "C T nu"]

    def scores(self, task: Any) -> dict[str, Any]:
        """The numbers for a row of metrics."""
        count = len(task.train_contexts)
        cost = np.asarray(self.cost)
        numbers: dict[str, Any] = {"learner_return": -cost[count:].mean()}
        for name, part in (("train", slice(count)), ("test", slice(count, None))):
            score = np.asarray(self.score)[part]
            numbers |= {f"{name}_score": score.mean(), f"{name}_cost": cost[part].mean()}
            if name == "test":
                numbers["test_score_worst"] = score.min() if task.score.more_is_better else score.max()
            numbers[f"{name}_episodes"] = len(score)
            if self.solved is not None:
                numbers[f"{name}_solved"] = int(np.asarray(self.solved)[part].sum())
        return numbers


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Episodes:
    """E episodes of an `Environment`, by most likely actions and by actions drawn from the policy."""

    returned: Float[Array, " E"]  # sum of rewards; NaN where the simulation diverged
    returned_sampled: Float[Array, " E"]
    length: Float[Array, " E"]  # steps, by most likely actions
    solved: Bool[Array, " E"] | None  # by most likely actions; None where the task does not say
    # Of the metrics that the task reports, by most likely actions: means over the steps where they are not NaN.
    means: dict[str, Float[Array, " E"]] = field(default_factory=dict)

    def scores(self, _task: Any) -> dict[str, Any]:
        """The numbers for a row of metrics."""
        numbers: dict[str, Any] = {
            "learner_return": np.asarray(self.returned).mean(),
            "learner_return_sampled": np.asarray(self.returned_sampled).mean(),
            "episode_length": np.asarray(self.length).mean(),
        }
        if self.solved is not None:
            numbers |= {"test_episodes": len(self.solved), "test_solved": int(np.asarray(self.solved).sum())}
        return numbers | {f"learner_{name}": mean_of(np.asarray(means)) for name, means in self.means.items()}


def evaluate(
    task: ControlTask,
    policy: Policy,
    contexts: Float[Array, "C nc"],
    key: PRNGKeyArray,
    std: float = 0.0,
) -> Evaluation:
    """Let the learner act, deterministically or with `std` times its own noise, once for each context."""

    def one(context, key):
        trajectory = episodes.run_episode(task, policy, context, key, std)
        return judged(task, trajectory.states, trajectory.actions, context)

    return jax.vmap(one)(contexts, jax.random.split(key, len(contexts)))


def evaluate_on_plant(
    task: ControlTask,
    plant: Plant,
    policy: Policy,
    contexts: Float[Array, "C nc"],
    key: PRNGKeyArray,
    std: float = 0.0,
) -> Evaluation:
    """The same on a plant; `states` are the controllers' there.

    Errors:
        PlantError where the plant stops, is lost, or does what it must not.
    """

    @jax.jit
    def drawn(contexts, keys):
        states, noise, _ = jax.vmap(lambda context, key: episodes.begin(task, policy, context, key, std))(
            contexts, keys
        )
        return jax.vmap(task.control_state)(states), noise

    learner = LearnerOnPlant(task, plant)
    starts, noise = jax.device_get(drawn(contexts, jax.random.split(key, len(contexts))))
    done = []
    for i, context in enumerate(np.asarray(contexts)):
        own = {name: rows[i] for name, rows in noise.items()}
        done.append(learner.run(policy, Beginning(starts[i], context), own)[0])
    xs, us = (jnp.asarray(np.array(part), starts.dtype) for part in zip(*((e.xs, e.us) for e in done), strict=True))
    return jax.jit(jax.vmap(lambda xs, us, context: _judged(task, xs, us, xs, context)))(xs, us, contexts)


def judged(
    task: ControlTask, states: Float[Array, "T+1 nstate"], us: Float[Array, "T nu"], context: Float[Array, " nc"]
) -> Evaluation:
    """What one episode of a simulator is worth."""
    return _judged(task, jax.vmap(task.control_state)(states), us, states, context)


def _judged(task: ControlTask, xs: Array, us: Array, states: Array, context: Array) -> Evaluation:
    """One episode, of controllers' states and of the simulator's."""
    score = task.measure(xs, us, context)
    sound = jnp.isfinite(xs).all() & jnp.isfinite(score)
    solved = getattr(task, "solved", None)
    return Evaluation(
        score=jnp.where(sound, score, jnp.nan),
        solved=None if solved is None else solved(xs, us, context) & sound,
        cost=episode_cost(task, xs, us, context),
        states=states,
        us=us,
    )


def episode_count(task: Environment) -> int:
    """How many episodes an evaluation takes: more where they are short, so that it says as much; 64 to 4096.

    Of what is stepped on the host, 64.
    """
    return 64 if task.calls_host else min(max(STEPS // task.horizon, 64), 4096)


def evaluate_episodes(task: Environment, policy: Policy, key: PRNGKeyArray) -> Episodes:
    """Let the learner act in `episode_count` episodes, once by its most likely actions and once by drawn ones."""
    keys = jax.random.split(key, episode_count(task))
    returned, length, solved, means = returns(task, policy, keys, 0.0)
    sampled, *_ = returns(task, policy, keys, 1.0)
    return Episodes(returned, sampled, length, solved, means)


def returns(
    task: Environment, policy: Policy, keys: PRNGKeyArray, noise: float
) -> tuple[Float[Array, " E"], Float[Array, " E"], Bool[Array, " E"] | None, dict[str, Float[Array, " E"]]]:
    """Sum of rewards, number of steps, success, and means of reported metrics, of one episode for each key.

    The sum is NaN for an episode that diverged; success is None where the task has no such metric.

    Args:
        noise: multiplies the policy's own; 0 takes its most likely actions.
    """
    task = with_images(task)

    def one(key):
        starting, acting = jax.random.split(key)

        def step(carry, noise):
            state, memory, total, steps, solved, alive, sums = carry
            memory, action = policy.act(memory, state.obs["state"], noise)
            state = task.step(state, action)
            reward = jnp.where(diverged(state), jnp.nan, state.reward)
            total = total + jnp.where(alive, reward, 0.0)
            solved = solved | (alive & (state.metrics.get("success", jnp.zeros(())) > 0))
            for name, (total_of, count) in sums.items():
                value = state.metrics[name]
                counts = alive & ~jnp.isnan(value)
                sums = {**sums, name: (total_of + jnp.where(counts, value, 0.0), count + counts)}
            carry = (state, memory, total, steps + alive, solved, alive & (state.done == 0), sums)
            return carry, None

        begun = task.reset(starting)
        lost = jnp.where(diverged(begun), jnp.nan, jnp.zeros(()))  # its very start is no observation
        sums = {name: (jnp.zeros(()), jnp.zeros(())) for name in reported(task)}
        start = (begun, policy.start_memory(), lost, jnp.zeros(()), jnp.zeros((), bool), jnp.ones((), bool), sums)
        noises = noise * policy.noise(acting, (task.horizon,))
        (_, _, total, steps, solved, _, sums), _ = jax.lax.scan(step, start, noises)
        means = {name: total_of / count for name, (total_of, count) in sums.items()}
        return total, steps, solved if "success" in begun.metrics else None, means

    return jax.vmap(one)(keys)


def mean_of(values: np.ndarray) -> float:
    """Of those that are numbers; NaN where none is."""
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else np.nan
