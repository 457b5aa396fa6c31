"""A plant that is the simulator gives the simulator's samples; one that senses for itself is what the learner sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_based import SMALL, changed, small_guider

from dynamics.plant import LIMIT, Episode
from dynamics.simulator import physics_state
from gps.guiders.model_based import samples
from gps.guiders.model_based.on_plant import OnPlant
from gps.tasks.mujoco.reacher import Reacher, ReacherSettings

PARTIAL = ReacherSettings(**SMALL, hide_velocity=True, angle_noise=0.05, history=3)


class Simulated:
    """A plant in this process, on a task's own simulator.

    Args:
        sense: a frame of its own from a state, if it has sensors.
    """

    def __init__(self, task, sense=None):
        self.task, self.sense = task, sense or (lambda x: np.zeros(0))
        self.step = jax.jit(lambda state, u: task.simulator.step(state, u))
        self.frame_size = len(self.sense(np.zeros(task.nx)))
        self.asked = []  # who acts in which condition

    def follow(self, beginning, K, k):
        self.asked.append(("controller", tuple(beginning.context)))
        return self._run(beginning, len(k), lambda t, x, frame: K[t] @ x + k[t])

    def obey(self, beginning, horizon, act):
        self.asked.append(("learner", tuple(beginning.context)))
        return self._run(beginning, horizon, act)

    def _run(self, beginning, horizon, act):
        qpos, qvel = np.split(beginning.start, 2)
        state = physics_state(self.task.simulator.model, jnp.asarray(qpos), jnp.asarray(qvel))
        xs, us, frames = [np.asarray(state)[1:]], [], []
        for t in range(horizon):
            frames.append(self.sense(xs[-1]))
            us.append(np.clip(act(t, xs[-1], frames[-1]), -LIMIT, LIMIT))
            state = self.step(state, us[-1].astype(np.float32))
            xs.append(np.asarray(state)[1:])
        return Episode(np.array(xs), np.array(us), np.array(frames))


@pytest.fixture(scope="module")
def guiders(task):
    """Of the task whose frames are made of the state, and of one whose frames are noisy and several."""
    partial = Reacher(PARTIAL, "mujoco")
    return {"whole": small_guider("badmm", task), "partial": small_guider("badmm", partial)}


@pytest.fixture(scope="module")
def states(guiders):
    """In which the controllers collect, and in which the learner does."""

    def of(guider):
        state = jax.jit(guider.init)(jax.random.key(3))
        K = np.random.default_rng(0).normal(size=state.controllers.K.shape)
        controllers = jax.tree.map(jnp.asarray, state.controllers)
        first = changed(state, controllers=type(controllers)(0.3 * K, controllers.k + 0.2, controllers.chol))
        return {"controllers": first, "learner": changed(first, iteration=1)}

    return {name: of(guider) for name, guider in guiders.items()}


@pytest.mark.parametrize("who", ["controllers", "learner"])
@pytest.mark.parametrize("name", ["whole", "partial"])
def test_the_same_model_gives_the_same_samples(guiders, states, name, who):
    guider, state, key = guiders[name], states[name][who], jax.random.key(5)
    wanted = jax.jit(guider.collect)(state, key)
    plant = Simulated(guider.task)
    wrapped = OnPlant(guider, plant)
    got, noted = wrapped.gather(state, key)
    assert wrapped._learner._step._cache_size() == (who == "learner")  # nothing is compiled while a plant waits
    assert {by for by, _ in plant.asked} == {"learner" if who == "learner" else "controller"}
    contexts = [tuple(np.asarray(context)) for context in guider.task.train_contexts]
    assert [context for _, context in plant.asked] == [context for context in contexts for _ in range(3)]
    assert (np.abs(wanted.us) > 0.05).mean() > 0.5
    for part, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert (part.shape, part.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(part, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())
    assert noted["plant_seconds"] > 0
    assert (noted["answer_ms"] > 0) == (who == "learner")


def test_the_learner_sees_what_the_plant_senses(guiders, states):
    guider, state, key = guiders["partial"], states["partial"]["learner"], jax.random.key(5)
    task, policy, N = guider.task, state.learner.policy, 3
    mixing = np.random.default_rng(1).normal(size=(task.frame_size, task.nx))
    got, _ = OnPlant(guider, Simulated(task, lambda x: mixing @ x)).gather(state, key)

    frames = np.asarray(got.xs)[:, :, :-1] @ mixing.T
    padded = np.concatenate([np.repeat(frames[:, :, :1], 2, axis=2), frames], axis=2)
    T = task.horizon
    stacked = np.concatenate([padded[:, :, i : i + T] for i in range(3)], axis=-1)
    np.testing.assert_allclose(got.observations, stacked, rtol=1e-4, atol=1e-5)

    keys = samples.keys_of(task, key, guider.settings.sampling)
    memory = policy.start_memory()
    for m, n, t in ((0, 0, 0), (1, 2, 3), (2, 1, T - 1)):
        _, noise = samples.drawn(task, task.train_contexts[m], keys[m, n], guider.settings.sampling)
        _, action = policy.act(memory, got.observations[m, n, t], noise["action"][t])
        np.testing.assert_allclose(got.us[m, n, t], np.clip(action, -1, 1), atol=1e-5)
    assert got.weights.shape == (3, N)


def test_an_episode_of_impossible_numbers_does_not_count(guiders, states):
    guider, state = guiders["whole"], states["whole"]["controllers"]
    plant = Simulated(guider.task)
    run = plant._run

    def wild(beginning, horizon, act):
        episode = run(beginning, horizon, act)
        return Episode(episode.xs + 1e7 * (len(plant.asked) == 2), episode.us, episode.frames)

    plant._run = wild
    got, _ = OnPlant(guider, plant).gather(state, jax.random.key(5))
    np.testing.assert_array_equal(got.weights, [[1, 0, 1], [1, 1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(got.xs[0, 1], got.xs[0, 0])


def test_everything_else_is_the_guiders_own(guiders):
    guider = guiders["whole"]
    wrapped = OnPlant(guider, Simulated(guider.task))
    assert wrapped.steps_per_iteration == guider.steps_per_iteration
    assert (wrapped.update, wrapped.collect, wrapped.init) == (guider.update, guider.collect, guider.init)
    assert wrapped.columns[: len(guider.columns)] == guider.columns
    assert [column.title for column in wrapped.columns[len(guider.columns) :]] == ["plant", "on plant"]
