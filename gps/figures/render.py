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
COLOR = (0.84, 0.37, 0.0, 0.6)  # of targets
# the parts of a physics state, see dynamics.simulator
STATE = (
    mujoco.mjtState.mjSTATE_FULLPHYSICS.value
    | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
)


class RenderError(RuntimeError):
    """There is no picture; the message says why in one line."""


def render(
    model: mujoco.MjModel,
    states: Float[np.ndarray, "C F nstate"],
    targets: Float[np.ndarray, "C 3"] | None,
    size: int,
) -> UInt8[np.ndarray, "C F size size 3"]:
    """Pictures of physics states, from the model's first camera that stands still, or one that sees everything.

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
                raise RenderError(
                    f"it took longer than {PATIENCE:.0f} s: fewer or smaller pictures take less"
                ) from None
            if done.returncode == 0:
                return np.load(Path(folder) / "pictures.npy")
            lines = done.stderr.strip().splitlines()
            why = why or (lines[-1] if lines else f"exit status {done.returncode}")
    raise RenderError(why)


def draw(folder: Path) -> None:
    """The script."""
    model = mujoco.MjModel.from_binary_path(str(folder / "model.mjb"))
    given = np.load(folder / "episodes.npz")
    states, targets, size = given["states"], given["targets"], int(given["size"])
    data = mujoco.MjData(model)
    if not model.nlight:  # the light at the camera alone is dim
        model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.45, 0.6
    buffer = model.vis.global_
    buffer.offwidth, buffer.offheight = max(buffer.offwidth, size), max(buffer.offheight, size)
    camera, extent = _camera(model, data, states, targets)
    sky = (model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX).any()
    pictures = np.empty((*states.shape[:2], size, size, 3), np.uint8)
    with mujoco.Renderer(model, size, size) as renderer:
        for c, episode in enumerate(states):
            for f, state in enumerate(episode):
                put(model, data, state)
                renderer.update_scene(data, camera)
                if len(targets):
                    _mark(renderer.scene, targets[c], 0.04 * extent)
                picture = renderer.render()
                if not sky:
                    picture[~picture.any(-1)] = 255  # where nothing is
                pictures[c, f] = picture
    np.save(folder / "pictures.npy", pictures)


def put(model: mujoco.MjModel, data: mujoco.MjData, state) -> None:
    """Into this physics state, with everything that follows from it."""
    mujoco.mj_setState(model, data, np.asarray(state, float), STATE)
    mujoco.mj_forward(model, data)


def _camera(model, data, states, targets):
    """The model's first camera that stands still, or one that sees all that moves and is to be reached.

    Returns:
        It, and the size of what moves and is to be reached, in m.
    """
    places = [targets.reshape(-1, 3)]
    sizes = model.geom_rbound[:, None] * (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)[:, None]
    for state in states[:, :: max(1, states.shape[1] // 10)].reshape(-1, states.shape[-1]):
        put(model, data, state)
        places += [data.geom_xpos - sizes, data.geom_xpos + sizes]
    low, high = np.concatenate(places).min(0), np.concatenate(places).max(0)
    extent = float(np.linalg.norm(high - low))
    still = np.flatnonzero(model.cam_bodyid == 0)
    if len(still):
        return int(still[0]), extent
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    camera.lookat[:], camera.distance = (low + high) / 2, 1.1 * extent
    return camera, extent


def _mark(scene, place, radius: float) -> None:
    """Add a ball to what is drawn."""
    if scene.ngeom < scene.maxgeom:
        ball, eye, sizes = scene.geoms[scene.ngeom], np.eye(3).ravel(), np.full(3, radius)
        color = np.array(COLOR, np.float32)
        mujoco.mjv_initGeom(ball, mujoco.mjtGeom.mjGEOM_SPHERE, sizes, place, eye, color)
        scene.ngeom += 1


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
