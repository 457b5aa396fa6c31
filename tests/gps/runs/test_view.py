"""The learner in the viewer's loop acts as in an evaluation, and answers who pushes it."""

from __future__ import annotations

import jax
import mujoco
import numpy as np
import pytest
from support.tiny import SETTINGS

from gps.experiments.experiment import Experiment
from gps.figures.render import STATE
from gps.runs.evaluate import evaluate
from gps.runs.view import drive
from gps.settings import override


class Window:
    """Records what it is shown, and closes after so many steps."""

    def __init__(self, model, data, steps, push=None):
        self.model, self.data, self.left, self.push = model, data, steps, push
        self.states = []

    def is_running(self):
        return self.left > 0

    def sync(self):
        state = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, state, STATE)
        self.states.append(state)
        self.left -= 1
        if self.push and len(self.states) == 2:
            self.data.xfrc_applied[-1, :2] = self.push


@pytest.fixture(scope="module")
def acting():
    """A task of eight steps and a fresh learner."""
    settings = override({"run": {"task": "reacher", "guider": "badmm", "engine": "mujoco"}}, SETTINGS)
    guider = Experiment.resolve(settings).build()
    return guider.task, guider.policy(guider.init(jax.random.key(3)))


def seen(task, policy, steps, push=None):
    data = mujoco.MjData(task.simulator.model)
    window, waits = Window(task.simulator.model, data, steps, push), []
    drive(task, policy, task.test_contexts, data, window, waits.append)
    assert all(0 <= wait <= task.dt for wait in waits)
    return np.stack(window.states)


def test_episodes_are_those_of_an_evaluation_one_after_the_other_and_again(acting):
    task, policy = acting
    count, horizon = len(task.test_contexts), task.horizon
    wanted = np.asarray(evaluate(task, policy, task.test_contexts, jax.random.key(0)).states)
    shown = seen(task, policy, (count + 1) * horizon).reshape(count + 1, horizon, -1)
    np.testing.assert_allclose(shown[:count], wanted[:, 1:], atol=1e-5)
    np.testing.assert_array_equal(shown[count], shown[0])
    assert len(seen(task, policy, 3)) == 3  # closed in the middle of an episode


def test_the_learner_feels_a_push(acting):
    task, policy = acting
    still, pushed = seen(task, policy, task.horizon), seen(task, policy, task.horizon, push=(0.5, 0.0))
    np.testing.assert_array_equal(still[:2], pushed[:2])
    assert np.abs(still[3:] - pushed[3:]).max() > 0.01
