"""What teacher and student of runs of `drawer` do in its test contexts, and how often they see the handle they are for.

Run: python benchmarks/drawer.py RUN ...

Both act by most likely actions. Seen is the share of steps, until the drawer is open by 20 cm, in which the line from
the camera to the middle of the handle's bar meets nothing before it, as MuJoCo casts a ray.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import argparse
from typing import Any

import jax
import mujoco
import numpy as np
from timing import machine

from dynamics.simulator import joints_size
from gps.runs.folder import RunFolder
from gps.runs.replay import policy_acts
from gps.runs.resume import load
from gps.tasks.mujoco.drawer import DRAWERS, SOLVED

EVERY = 3  # of so many steps one is looked at
BAR = np.array([-0.065, 0.0, 0.0])  # m, its middle, in the drawer's frame
NEAR = 0.03  # m: what is nearer to the bar's middle than that is the bar


def seen(model: mujoco.MjModel, states: np.ndarray, drawer: str) -> float:
    """The share of the steps before success in which the camera sees the drawer's handle."""
    data, n, camera = mujoco.MjData(model), joints_size(model), model.camera("shoulder").id
    opening = states[:, 1 + model.joint(drawer).qposadr[0]]
    until = np.argmax(opening >= SOLVED) if (opening >= SOLVED).any() else len(states)
    free, hit = [], np.zeros(1, np.int32)
    for state in states[: max(until, 1) : EVERY]:
        data.qpos[:], data.mocap_pos[:] = state[1 : 1 + model.nq], state[n : n + 3]
        data.mocap_quat[:] = state[n + 3 : n + 7]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        body = data.body(drawer)
        ray = body.xpos + body.xmat.reshape(3, 3) @ BAR - data.cam_xpos[camera]
        length = np.linalg.norm(ray)
        ahead = mujoco.mj_ray(model, data, data.cam_xpos[camera], ray / length, np.ones(6, np.uint8), 1, -1, hit)
        free.append(abs(ahead - length) < NEAR)
    return float(np.mean(free))


def row(name: str, task: Any, policy: Any, privileged: bool) -> str:
    """What one policy does."""
    contexts = np.asarray(task.test_contexts)
    states, actions = policy_acts(task, policy, contexts, jax.random.key(0), privileged)
    xs = jax.jit(jax.vmap(jax.vmap(task.control_state)))(states)
    solved = np.asarray(jax.jit(jax.vmap(task.solved))(xs, actions, contexts))
    which = [DRAWERS[int(context[3]) + 1] for context in contexts]
    shares = np.array([seen(task.simulator.model, *each) for each in zip(states, which, strict=True)])
    by_drawer = [(solved[rows].sum(), shares[rows].mean()) for rows in (np.array(which) == one for one in DRAWERS)]
    parts = "  ".join(f"{one} {won} ({share:.2f})" for one, (won, share) in zip(DRAWERS, by_drawer, strict=True))
    return f"{name:8} solved {solved.sum()} of {len(solved)}  seen {shares.mean():.2f}  {parts}"


def main() -> None:
    """Print two rows for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+")
    print(machine())
    for path in parser.parse_args().runs:
        run = load(RunFolder.open(path))
        guider: Any = run.guider
        print(f"{path}, {int(run.state.updates) * guider.steps_per_iteration // guider.updates:,} steps")
        print(row("teacher", guider.task, guider.guiding(run.state), True))
        print(row("student", guider.task, guider.policy(run.state), False))


if __name__ == "__main__":
    main()
