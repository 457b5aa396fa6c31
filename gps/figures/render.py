"""MuJoCo's own pictures of episodes, in a process of its own: a missing or broken GL library ends that process alone.

As a script, it reads a folder's model.mjb and episodes.npz and writes pictures.npy there. It imports nothing of this
project, so that it starts fast.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float, UInt8

PATIENCE = 120.0  # s, for all pictures
COLOR = (0.84, 0.37, 0.0, 1.0)  # of targets


class RenderError(RuntimeError):
    """There is no picture; the message says why in one line."""


def render(
    model: mujoco.MjModel,
    states: Float[np.ndarray, "C F nstate"],
    targets: Float[np.ndarray, "C 3"] | None,
    size: int,
) -> UInt8[np.ndarray, "C F size size 3"]:
    """Pictures of physics states, from the model's first camera or, where it has none, from a free one.

    Args:
        targets: m, where a ball marks what is to be reached.

    Errors:
        RenderError where there is no GL library that works. The library is that of the environment variable MUJOCO_GL,
        or without it, on Linux, EGL and then OSMesa.
    """
    headless = sys.platform.startswith("linux") and "MUJOCO_GL" not in os.environ
    with tempfile.TemporaryDirectory() as folder:
        mujoco.mj_saveModel(model, str(Path(folder) / "model.mjb"))
        np.savez(
            Path(folder) / "episodes.npz", states=states, size=size, targets=np.empty(0) if targets is None else targets
        )
        why = ""
        for library in ("egl", "osmesa") if headless else ("",):
            settings = {**os.environ, **({"MUJOCO_GL": library} if library else {})}
            try:
                done = subprocess.run(
                    [sys.executable, __file__, folder],
                    env=settings,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise RenderError(f"it took longer than {PATIENCE:.0f} s") from None
            if done.returncode == 0:
                return np.load(Path(folder) / "pictures.npy")
            lines = done.stderr.strip().splitlines()
            why = why or (lines[-1] if lines else f"exit status {done.returncode}")
    raise RenderError(why)


def draw(folder: Path) -> None:
    """The script."""
    model = mujoco.MjModel.from_binary_path(str(folder / "model.mjb"))
    given = np.load(folder / "episodes.npz")
    states, size = given["states"], int(given["size"])
    targets = given["targets"]
    data, camera = mujoco.MjData(model), 0 if model.ncam else -1
    pictures = np.empty((*states.shape[:2], size, size, 3), np.uint8)
    with mujoco.Renderer(model, size, size) as renderer:
        for c, episode in enumerate(states):
            for f, state in enumerate(episode):
                mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
                mujoco.mj_forward(model, data)
                renderer.update_scene(data, camera)
                if len(targets):
                    _mark(renderer.scene, targets[c], 0.03 * model.stat.extent)
                pictures[c, f] = renderer.render()
    np.save(folder / "pictures.npy", pictures)


def _mark(scene, place, radius: float) -> None:
    """Add a ball to what is drawn."""
    if scene.ngeom < scene.maxgeom:
        ball, eye = scene.geoms[scene.ngeom], np.eye(3).ravel()
        color = np.array(COLOR, np.float32)
        mujoco.mjv_initGeom(ball, mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, radius), place, eye, color)
        scene.ngeom += 1


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
