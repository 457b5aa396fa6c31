"""Evaluations in episodes of an environment's own: what counts in a return, and what an episode that diverges gives."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.carts import Cart
from support.toys import Clock, Found

from gps.runs.evaluate import Episodes, Evaluation, evaluate, evaluate_episodes, returns
from gps.tasks.doors.tiger import LISTEN, TigerDoor, TigerDoorSettings
from gps.tasks.task import Score
from policies.distributions import Categorical
from policies.network import Network, NetworkPolicy
from policies.normalize import Normalizer


class Still:
    """A policy that does nothing."""

    def start_memory(self):
        return jnp.zeros(0)

    def noise(self, key, shape):
        return jnp.zeros((*shape, 2))

    def act(self, memory, o, noise):
        return memory, jnp.zeros(2)


@pytest.mark.parametrize("how", ["", "dark", "told"])
def test_an_episode_that_diverges_has_no_return(how):
    """Whether its reward or its observation is NaN, or it ends with a reward of zero and says what happened."""
    task, keys = Clock(ends=(0, 1, 2), how=how), jax.random.split(jax.random.key(2), 64)
    found, steps, solved, means = jax.jit(lambda keys: returns(task, Still(), keys, 1.0))(keys)
    start = jax.vmap(lambda key: task.reset(jax.random.split(key)[0]))(keys).data
    length, end = np.asarray(start["length"]), np.asarray(start["end"])
    assert set(end) == {0, 1, 2}
    np.testing.assert_allclose(found, np.where(end == 2, np.nan, length * (length + 1) / 2))  # 1 + 2 + .. + length
    np.testing.assert_array_equal(np.asarray(steps)[end != 2], length[end != 2])
    assert solved is None  # it does not say
    assert means == {}


def test_successes_are_counted_where_the_task_tells_them():
    task, keys = Found(), jax.random.split(jax.random.key(2), 64)
    solved = np.asarray(jax.jit(lambda keys: returns(task, Still(), keys, 1.0))(keys)[2])
    ended = np.asarray(jax.vmap(lambda key: task.reset(jax.random.split(key)[0]))(keys).data["end"])
    np.testing.assert_array_equal(solved, ended == 0)
    numbers = Episodes(np.zeros(64), np.zeros(64), np.ones(64), solved).scores(task)
    assert (numbers["test_solved"], numbers["test_episodes"]) == (int((ended == 0).sum()), 64)


class Reporting(Clock):
    """Wants the mean of the time, where it is above 1."""

    reported = ("t",)

    def step(self, state, action):
        after = super().step(state, action)
        t = after.metrics["t"]
        return dataclasses.replace(after, metrics={**after.metrics, "t": jnp.where(t > 1, t, jnp.nan)})


def test_metrics_that_a_task_reports_are_averaged_over_the_steps_of_an_episode_where_there_is_one():
    task, keys = Reporting(ends=(0,)), jax.random.split(jax.random.key(2), 64)
    means = np.asarray(jax.jit(lambda keys: returns(task, Still(), keys, 1.0))(keys)[3]["t"])
    length = np.asarray(jax.vmap(lambda key: task.reset(jax.random.split(key)[0]))(keys).data["length"])
    np.testing.assert_allclose(means, np.array([np.nan, np.nan, 2.0, 2.5])[length])
    numbers = Episodes(np.zeros(64), np.zeros(64), np.ones(64), None, {"t": means}).scores(task)
    assert numbers["learner_t"] == pytest.approx(np.nanmean(means))
    assert np.isnan(
        Episodes(np.zeros(1), np.zeros(1), np.ones(1), None, {"t": means[length == 1]}).scores(0)["learner_t"]
    )


def test_an_evaluation_plays_whole_episodes_and_counts_nothing_after_their_end():
    """At the tiger's doors every return and length is known: a policy that listens first, for certain or mostly."""
    network = Network(hidden=(4,), outputs=3)
    params = jax.tree.map(jnp.zeros_like, network.start(jax.random.key(0), 3))
    layers = params["params"]
    # hidden units 1 and 2 light up where the tiger was heard on the left and on the right
    layers["input"]["kernel"] = jnp.asarray([[0.0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0]])
    layers["head"]["kernel"] = jnp.asarray([[0.0, 0, 0], [0, 9, -3], [9, 0, -3], [0, 0, 0]])
    layers["head"]["bias"] = jnp.asarray([0.0, 0.0, 1.0])
    policy = NetworkPolicy(network, Categorical(3), params, Normalizer.start(3))
    task = TigerDoor(TigerDoorSettings(listen_cost=0.2))
    episodes = jax.jit(lambda key: evaluate_episodes(task, policy, key))(jax.random.key(1))
    np.testing.assert_allclose(episodes.returned, 0.8, rtol=1e-6)
    np.testing.assert_array_equal(episodes.length, 2.0)
    p = np.exp([0.0, 0.0, 1.0]) / np.exp([0.0, 0.0, 1.0]).sum()
    # once heard, the logits of the right door, the wrong one and listening again are 9, 0 and -2
    right, _, again = np.exp([9.0, 0.0, -2.0]) / np.exp([9.0, 0.0, -2.0]).sum()
    expected = (p[0] + p[1]) * 0.5 + p[LISTEN] * (-0.2 + right - 0.2 * again)
    assert float(episodes.returned_sampled.mean()) == pytest.approx(expected, abs=4 * 0.5 / 64)
    scores = episodes.scores(task)
    assert scores["learner_return"] == pytest.approx(0.8, rel=1e-6)
    assert scores["learner_return_sampled"] == pytest.approx(expected, abs=4 * 0.5 / 64)
    assert scores["episode_length"] == 2.0


def test_the_numbers_of_a_control_task_are_its_own():
    """Means, the worst in the score's direction, what was solved of how many; a simulation that diverged has none."""

    class Task:
        score = Score("height", "m", more_is_better=True)
        train_contexts = np.zeros((2, 1))

    evaluation = Evaluation(
        score=jnp.array([1.0, 3.0, 5.0, 2.0, 8.0]),
        solved=jnp.array([True, False, True, False, True]),
        cost=jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        states=jnp.zeros((5, 1, 1)),
        us=jnp.zeros((5, 0, 1)),
    )
    expected = {
        "learner_return": -4.0,
        "train_score": 2.0,
        "train_cost": 1.5,
        "train_episodes": 2,
        "train_solved": 1,
        "test_score": 5.0,
        "test_cost": 4.0,
        "test_score_worst": 2.0,
        "test_episodes": 3,
        "test_solved": 2,
    }
    assert evaluation.scores(Task()) == expected
    silent = dataclasses.replace(evaluation, solved=None).scores(Task())
    assert silent == {name: value for name, value in expected.items() if not name.endswith("_solved")}
    Task.score = Score("distance", "cm")
    assert evaluation.scores(Task())["test_score_worst"] == 8.0


def test_a_simulation_that_diverges_has_no_score_and_solved_nothing():
    task = Cart(solved=lambda xs, us, context: jnp.ones((), bool), measure=lambda xs, us, context: jnp.zeros(()))
    start = task.initial_state

    def broken(key, context):
        return start(key, context) * jnp.where(context[0] > 0, jnp.nan, 1.0)

    task.initial_state = broken
    evaluation = jax.jit(lambda key: evaluate(task, Idle(), task.test_contexts, key))(jax.random.key(0))
    np.testing.assert_array_equal(evaluation.score, [0.0, np.nan])
    np.testing.assert_array_equal(evaluation.solved, [True, False])


class Idle(Still):
    """The same for a cart."""

    def noise(self, key, shape):
        return jnp.zeros((*shape, 1))

    def act(self, memory, o, noise):
        return memory, noise
