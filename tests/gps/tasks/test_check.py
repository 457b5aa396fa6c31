"""Tasks that are not what the contract says are refused in words, before anything is compiled."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from support.toys import Clock, Watched

from gps.experiments.lookup import TASKS, find
from gps.guiders.model_free.guider import ModelFree
from gps.guiders.model_free.settings import SETTINGS
from gps.tasks.check import check_environment


class Changed(Clock):
    """The toy with other attributes, and states that `reset` and `step` change."""

    def __init__(self, reset=lambda state: state, step=lambda state: state, **attributes):
        super().__init__()
        self.resets, self.steps = reset, step
        for name, value in attributes.items():
            setattr(self, name, value)

    def reset(self, key):
        return self.resets(super().reset(key))

    def step(self, state, action):
        return self.steps(super().step(state, action))


def changed(**fields):
    return lambda state: dataclasses.replace(state, **{name: f(state) for name, f in fields.items()})


def without(name):
    task = Changed()
    setattr(task, name, None)
    return task


def test_a_task_that_is_what_it_says_passes():
    check_environment(Changed())
    check_environment(Changed(horizon=np.int64(3), observation_size=np.prod((2, 1))))


def test_an_image_is_beside_the_observation_and_counts_with_it():
    check_environment(Watched())


def gray(*shape):
    return lambda state: jnp.zeros(shape)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Changed(image_shape=(6, 6, 1)), r"observation_size = 2 must count the image's 36 numbers"),
        (Changed(image_shape=(6, 6, 1), observation_size=38), r"`image_shape` and no `look`: an image takes both"),
        (Changed(look=gray(6, 6, 1)), r"`look` and no `image_shape`"),
        (Changed(reported=("speed",)), r"`reported` must name metrics of its states, .*: 'speed' is not among \['t'\]"),
        (Changed(reported=("diverged",)), r"other than return, .*: 'diverged' is not among \['t'\]"),
        (
            Changed(look=gray(6, 6), image_shape=(6, 6, 1), observation_size=38),
            r"`look` gives float32\[6, 6\], and it must be float32\[6, 6, 1\], from 0 to 1",
        ),
        (Changed(horizon=None), r"task clock: `horizon` must be Integral, not None"),
        (without("step"), r"`step` must be Callable, not None"),
        (
            Changed(lambda state: (state, 0)),
            r"reset must give a gps.tasks.task.State whose obs are a dict, not \(State",
        ),
        (
            Changed(changed(obs=lambda s: s.obs["state"])),
            r"reset must give a gps.tasks.task.State whose obs are a dict",
        ),
        (Changed(horizon=0), r"`horizon` must be at least 1, not 0"),
        (Changed(actions=2), r"`actions` must be ActionSpace, not 2"),
        (Changed(observation_size=3), r'reset gives obs\["state"\] as float32\[2\], and it must be float32\[3\]'),
        (Changed(privileged_size=1), r'obs\["privileged_state"\] as float32\[2\], and it must be float32\[1\]'),
        (
            Changed(changed(obs=lambda s: {"state": s.obs["state"]})),
            r"reset gives observations \['state'\], and with privileged_size = 2 there must be \['privileged_state'",
        ),
        (Changed(step=changed(reward=lambda s: s.reward[None])), r"step gives reward as float32\[1\], and it must be"),
        (Changed(changed(done=lambda s: s.done > 0)), r"reset gives done as bool\[\], and it must be float32\[\]"),
        (Changed(step=changed(info=lambda s: {})), r'step gives no info\["truncation"\]'),
        (Changed(step=changed(metrics=lambda s: {})), r"same fields; only one of them has \[.*diverged.*\]"),
        (
            Changed(step=changed(data=lambda s: {**s.data, "t": s.data["t"].astype(float)})),
            r"state.data\['t'\] is int32\[\] after reset and float32\[\] after step",
        ),
        (
            Changed(changed(data=lambda s: {**s.data, "number": jnp.zeros(2)})),
            r"state.data\['number'\] is float32\[2\] after reset and float32\[\] after step",
        ),
    ],
)
def test_what_a_task_lacks_is_named(task, message):
    with pytest.raises(ValueError, match=message):
        ModelFree("ppo", task, SETTINGS["ppo"]())


def test_a_guider_of_another_name_or_with_the_settings_of_another_is_refused():
    with pytest.raises(ValueError, match="unknown model-free guider 'gpo-clp'; did you mean 'gpo-clip'"):
        ModelFree("gpo-clp", Clock(), SETTINGS["gpo-clip"]())
    with pytest.raises(ValueError, match="settings of guider 'gpo-clip' must be GpoClipSettings, not PpoSettings"):
        ModelFree("gpo-clip", Clock(), SETTINGS["ppo"]())


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith(("brax", "playground"))])
def test_our_tasks_pass(name):
    task = find("task", name)
    check_environment(task.build(task.settings, *(("auto",) if task.engines else ()), name))


def test_tasks_are_checked_with_actions_of_the_precision_of_policies():
    """Where 64 bit numbers are on, policies act in them, and a task that needs them is sound."""
    code = """
import jax.numpy as jnp
from support.toys import Clock
from gps.tasks.check import check_environment

class Precise(Clock):
    def step(self, state, action):
        assert action.dtype == jnp.float64, action.dtype
        return super().step(state, action)

check_environment(Precise())
"""
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": "tests"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
