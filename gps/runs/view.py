"""MuJoCo's own viewer with a learner in the loop: `gps view`.

The learner acts on what MuJoCo simulates in the viewer, so that who pushes a body with the mouse sees how it answers.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Protocol

import jax
import mujoco
import numpy as np
from jaxtyping import Float

from gps.errors import UserError
from gps.figures.render import STATE, put
from gps.tasks.control_task import ControlTask
from gps.tasks.episodes import act, begin
from policies.policy import Policy

_OPEN = "import glfw, sys; sys.exit(not glfw.init())"


class Viewer(Protocol):
    """What is asked of `mujoco.viewer`."""

    def is_running(self) -> bool: ...
    def sync(self) -> None: ...


def require_display() -> None:
    """Raise UserError where no window can be opened, for which MuJoCo's viewer would wait for ever."""
    if not sys.platform.startswith("linux"):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("there is no display (DISPLAY is not set): gps render writes a video instead")
    opened = subprocess.run([sys.executable, "-W", "ignore", "-c", _OPEN], capture_output=True, text=True, check=False)
    if opened.returncode:
        lines = opened.stderr.strip().splitlines()
        why = lines[-1] if lines else "GLFW can not use it"
        raise UserError(f"no window opens on the display ({why}): gps render writes a video instead")


def view(task: ControlTask, policy: Policy, contexts: Float[np.ndarray, "C nc"]) -> None:
    """Show episodes in these contexts, one after the other and again, until the window is closed.

    Errors:
        UserError where the viewer can not be opened.
    """
    require_display()
    import mujoco.viewer

    data = mujoco.MjData(task.simulator.model)
    try:
        viewer = mujoco.viewer.launch_passive(task.simulator.model, data, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:  # such as of a Python on a Mac that is not mjpython
        raise UserError(f"MuJoCo's viewer does not open: {error}") from error
    with viewer:
        drive(task, policy, contexts, data, viewer)


def drive(
    task: ControlTask,
    policy: Policy,
    contexts: Float[np.ndarray, "C nc"],
    data: mujoco.MjData,
    viewer: Viewer,
    pace: Callable[[float], None] = time.sleep,
) -> None:
    """Let the learner act on `data` as long as the viewer runs, in real time: each episode as in an evaluation.

    Args:
        pace: waits for so many seconds.
    """
    model, simulator = task.simulator.model, task.simulator

    start = jax.jit(lambda context, key: begin(task, policy, context, key))

    @jax.jit
    def step(memory, t, state, noise, context):
        memory, action = act(task, policy, context)(memory, t, state, jax.tree.map(lambda values: values[t], noise))
        return memory, simulator.clip(action)

    keys, episode = jax.random.split(jax.random.key(0), len(contexts)), 0
    while viewer.is_running():
        context = contexts[episode % len(contexts)]
        state, noise, memory = start(context, keys[episode % len(contexts)])
        mujoco.mj_resetData(model, data)
        put(model, data, state)
        for t in range(task.horizon):
            began = time.perf_counter()
            memory, data.ctrl[:] = step(memory, t, _state(model, data), noise, context)
            for _ in range(simulator.substeps):
                mujoco.mj_step(model, data)
            viewer.sync()
            if not viewer.is_running():
                return
            pace(max(0.0, task.dt - (time.perf_counter() - began)))
        episode += 1


def _state(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return state.astype(np.float32)
