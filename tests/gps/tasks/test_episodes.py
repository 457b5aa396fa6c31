"""What the learner acts on, and what an evaluation of it measures."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from gps.guiders.learner import NetworkSettings, start_policy
from gps.runs.evaluate import evaluate
from gps.tasks.episodes import remember, run_episode, stack_frames
from gps.tasks.mujoco.reacher import PARTIAL, Reacher, ReacherSettings
from policies.network import NetworkPolicy

LINKS = (0.1, 0.11)  # m
HORIZON = 12

TASK = Reacher(ReacherSettings(horizon=HORIZON, train_targets=2, test_targets=3), "mujoco")
PARTIAL_TASK = Reacher(dataclasses.replace(PARTIAL, horizon=HORIZON, history=4, test_targets=3), "mujoco")


def policy_for(task: Reacher, seed: int = 3) -> NetworkPolicy:
    """A policy whose actions are not small and change with every input."""
    policy = start_policy(jax.random.key(seed), task, NetworkSettings(hidden=(8,))).with_std(jnp.full(2, 0.5))
    layers = policy.params["params"]
    head = {**layers["head"], "kernel": 20 * layers["head"]["kernel"]}
    return dataclasses.replace(policy, params={"params": {**layers, "head": head}})


def stacked(frames: np.ndarray, history: int) -> np.ndarray:
    """The last `history` frames at each step, the first one standing in for those before it."""
    steps = range(len(frames))
    return np.array([np.concatenate([frames[max(t - back, 0)] for back in reversed(range(history))]) for t in steps])


def fingertip(xs: np.ndarray) -> np.ndarray:
    q1, q2 = xs[..., 0].astype(float), (xs[..., 0] + xs[..., 1]).astype(float)
    x, y = LINKS[0] * np.cos(q1) + LINKS[1] * np.cos(q2), LINKS[0] * np.sin(q1) + LINKS[1] * np.sin(q2)
    return np.stack([x, y], axis=-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Watched:
    """A policy that reports each observation that it acts on."""

    policy: NetworkPolicy
    report: object = dataclasses.field(metadata={"static": True})

    def start_memory(self):
        return self.policy.start_memory()

    def noise(self, key, shape):
        return self.policy.noise(key, shape)

    def act(self, memory, o, noise):
        io_callback(self.report, None, o, ordered=True)
        return self.policy.act(memory, o, noise)


def watched_episode(task: Reacher, policy: NetworkPolicy, key) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, actions and the observations that were acted on, of one noiseless episode."""
    seen = []
    watched = Watched(policy, lambda o: seen.append(np.array(o)))
    trajectory = jax.jit(lambda key: run_episode(task, watched, task.test_contexts[1], key))(key)
    jax.effects_barrier()
    return np.asarray(trajectory.states), np.asarray(trajectory.actions), np.array(seen)


@pytest.mark.parametrize("history", [1, 2, 5])
def test_frames_are_remembered_as_they_are_stacked(history):
    frames = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    memory, remembered = jnp.full((history, 3), jnp.nan), []
    for t, frame in enumerate(frames):
        memory = remember(memory, jnp.asarray(t), jnp.asarray(frame))
        remembered.append(np.asarray(memory).reshape(-1))
    np.testing.assert_array_equal(remembered, stacked(frames, history))
    np.testing.assert_array_equal(stack_frames(jnp.asarray(frames), history), stacked(frames, history))


def test_the_learner_acts_on_the_frames_that_it_has_seen():
    """Each observation ends with a new frame and begins with the frames before; actions follow from it alone."""
    policy = policy_for(PARTIAL_TASK)
    states, actions, seen = watched_episode(PARTIAL_TASK, policy, jax.random.key(5))
    assert seen.shape == (HORIZON, 4 * 6)
    frames = seen[:, -6:]
    np.testing.assert_array_equal(seen, stacked(frames, 4))
    np.testing.assert_allclose(actions, jax.vmap(policy.mean)(jnp.asarray(seen)), rtol=1e-5, atol=1e-6)
    # each frame is of the state in which the action was taken, with 0.01 rad of noise: the elbow's angle tells
    error = np.arctan2(frames[:, 1], frames[:, 0]) - states[:-1, 2]
    assert 0.002 < np.abs(error).max() < 0.05
    assert len(np.unique(error)) == HORIZON


def test_without_noise_the_learner_acts_on_what_the_task_shows():
    policy = policy_for(TASK)
    states, actions, seen = watched_episode(TASK, policy, jax.random.key(5))
    context = TASK.test_contexts[1]
    frames = [np.asarray(TASK.observe(jnp.asarray(state[1:5]), context, jnp.zeros(0))) for state in states[:-1]]
    np.testing.assert_allclose(seen, frames, rtol=1e-5, atol=1e-6)
    means = np.asarray(jax.vmap(policy.mean)(jnp.asarray(seen)))
    assert np.abs(means).max() > 1.0  # so that the control range, -1 to 1, matters
    np.testing.assert_allclose(actions, means.clip(-1.0, 1.0), rtol=1e-5, atol=1e-6)


def test_the_policys_noise_is_scaled_by_std():
    """With 0 the actions are the policy's means; with 1 they deviate by its own standard deviation."""
    gentle = jax.tree.map(lambda p: 0.5 * p, policy_for(TASK).params)  # actions inside the control range
    policy = dataclasses.replace(policy_for(TASK), params=gentle).with_std(jnp.array([0.1, 0.02]))
    episodes = jax.jit(
        jax.vmap(lambda key, std: run_episode(TASK, policy, TASK.test_contexts[0], key, std), in_axes=(0, None))
    )
    keys = jax.random.split(jax.random.key(1), 300)
    observe = jax.vmap(jax.vmap(lambda state: TASK.observe(state[1:5], TASK.test_contexts[0], jnp.zeros(0))))

    def deviations(std):
        trajectories = episodes(keys, std)
        return np.asarray(trajectories.actions - policy.mean(observe(trajectories.states[:, :-1])))

    np.testing.assert_allclose(deviations(0.0), 0.0, atol=1e-5)
    noise = deviations(1.0)
    np.testing.assert_allclose(noise.std((0, 1)), [0.1, 0.02], rtol=0.05)
    flat = noise.reshape(300, -1)  # of an episode's steps and joints: all independent
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(300)
    assert abs(np.corrcoef(flat[:-1, 0], flat[1:, 0])[0, 1]) < 4 / np.sqrt(300)


def test_an_evaluation_measures_the_last_ten_steps():
    policy, contexts = policy_for(TASK), TASK.test_contexts
    evaluation = jax.jit(functools.partial(evaluate, TASK))(policy, contexts, jax.random.key(0))
    xs = np.asarray(evaluation.states)[..., 1:]
    assert xs.shape == (3, HORIZON + 1, 4)
    distances = np.linalg.norm(fingertip(xs) - np.asarray(contexts)[:, None], axis=-1)
    np.testing.assert_allclose(evaluation.score, 100 * distances[:, -10:].mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(evaluation.solved, np.asarray(evaluation.score) < 2)
    for i, context in enumerate(contexts):
        observed = jax.vmap(lambda x, context=context: TASK.observe(x, context, jnp.zeros(0)))(xs[i, :-1])
        actions = policy.mean(observed).clip(-1.0, 1.0)
        stage = [TASK.cost(xs[i, t], actions[t], t, context) for t in range(HORIZON)]
        total = sum(map(float, stage)) + float(TASK.final_cost(xs[i, -1], context))
        np.testing.assert_allclose(evaluation.cost[i], total, rtol=1e-4)
    starts = xs[:, 0] - np.array([0.0, 1.6, 0.0, 0.0])
    assert len(np.unique(starts, axis=0)) == 3  # each target has its own start
    assert np.abs(starts).max() < 0.1


def test_an_episode_shorter_than_ten_steps_is_measured_whole():
    """The start, which no policy has a say in, does not count."""
    task = Reacher(ReacherSettings(horizon=4, train_targets=1, test_targets=2), "mujoco")
    evaluation = evaluate(task, policy_for(task), task.test_contexts, jax.random.key(0))
    xs = np.asarray(evaluation.states)[..., 1:]
    distances = np.linalg.norm(fingertip(xs) - np.asarray(task.test_contexts)[:, None], axis=-1)
    np.testing.assert_allclose(evaluation.score, 100 * distances[:, 1:].mean(axis=1), rtol=1e-5)


def test_an_evaluation_is_decided_by_its_key():
    judge = jax.jit(functools.partial(evaluate, PARTIAL_TASK))
    policy, contexts = policy_for(PARTIAL_TASK), PARTIAL_TASK.test_contexts
    one, same, other = (judge(policy, contexts, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.states, same.states)
    assert not np.any(np.asarray(one.score) == np.asarray(other.score))
