"""Any MuJoCo task as one whose learner sees: through a camera, and by the angles and velocities of its own joints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dynamics.camera import Camera, Mark
from gps.settings import check_at_least, check_one_of, check_positive
from gps.tasks.mujoco_task import MujocoTask
from gps.tasks.task import State

CHANNELS = {"rgb": 3, "depth": 1, "rgbd": 4}


@dataclass(frozen=True)
class CameraSettings:
    """What the learner's images are like."""

    height: int = 48  # pixels
    width: int = 48  # pixels
    channels: str = "rgb"  # "rgb" (colours from 0 to 1), "depth" (in shares of `far`) or "rgbd" (both)
    far: float = 3.0  # m; what is deeper is background
    joints: bool = True  # the learner reads angles and velocities of its joints; else it needs a memory to see motion

    def __post_init__(self):
        check_at_least(self, 4, "height", "width")
        check_one_of(self, "channels", CHANNELS)
        check_positive(self, "far")


class Visual:
    """A `ControlTask` that is another one, but for what its learner sees: [joint angles, velocities, image].

    Controllers act on the other task's state, and a model-free guider sees what it sees there beside the image. The
    other task stays within reach as `task`; all else is its own: what this class does not have is looked up there.

    Args:
        task: what to see, without noise in what its own learner sees and without frames of the past.
        camera: the name of a camera in its model.
        joints: names of the joints that the learner may read.
        found: where in the world the thing is that the image is about, in m, given a context.
        mark: a sphere that is drawn there, where the model has nothing.

    Errors:
        ValueError for a task with noise or frames, and for a camera that is not there, as `dynamics.camera.Camera` has
        it; KeyError for a joint.
    """

    history = 1
    noise_size = 0

    def __init__(
        self,
        task: MujocoTask,
        camera: str,
        settings: CameraSettings,
        joints: tuple[str, ...],
        found: Callable[[Array], Float[Array, "3"]],
        name: str,
        mark: Mark | None = None,
    ):
        if task.history > 1 or task.noise_size:
            raise ValueError(
                f"{name}: its learner sees one image and no noise: {task.name} must not stack {task.history} frames "
                f"with {task.noise_size} noise inputs"
            )
        self.task, self.settings, self.found, self.name = task, settings, found, name
        self.camera = Camera(
            task.simulator.model, camera, settings.height, settings.width, settings.far, (mark,) if mark else ()
        )
        self.image_shape = (settings.height, settings.width, CHANNELS[settings.channels])
        x = jnp.arange(task.nx)
        own = [task.joint(x, joint) for joint in joints] if settings.joints else []
        self._seen = np.concatenate([np.zeros(0, int), *(q for q, _ in own), *(v for _, v in own)]).astype(int)

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # not yet set
            raise AttributeError(name)
        return getattr(self.task, name)

    def observe(self, x: Float[Array, " nx"], context: Float[Array, " nc"], noise: Array) -> Float[Array, " frame"]:
        """Angles and velocities in rad or m and per second, and the image, flattened."""
        del noise
        return jnp.concatenate([x[self._seen], self.image(x, context).reshape(-1)])

    def image(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Float[Array, "H W C"]:
        """What the camera shows, from 0 to 1."""
        kind = self.settings.channels
        marks = self.found(context)[None] if self.camera.marks else ()
        scene = self.task.qpos(x), self._mocap(context), marks
        parts = [self.camera.rgb(*scene)] if "rgb" in kind else []
        parts += [] if kind == "rgb" else [self.camera.depth(*scene)[..., None] / self.settings.far]
        return jnp.concatenate(parts, axis=-1)

    def sight(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Float[Array, "3"]:
        """Where the thing is that the image is about, in the camera's frame, in m."""
        return self.camera.seen(self.found(context), self.task.qpos(x), self._mocap(context))

    def _mocap(self, context):
        return self.task.mocap(context), self.task.mocap_turns(context)

    @cached_property
    def frame_size(self) -> int:
        """Size of one observation."""
        return len(self._seen) + int(np.prod(self.image_shape))

    @property
    def observation_size(self) -> int:
        """Size of what the learner sees."""
        return self.frame_size

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode of the task."""
        return self._reading(self.task.reset(key))

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """Act once in the task."""
        return self._reading(self.task.step(state, action))

    def look(self, state: State) -> Float[Array, "H W C"]:
        """The image at a state of an episode."""
        return self.image(self.task.control_state(state.data["state"]), state.data["context"])

    def _reading(self, state: State) -> State:
        own = self.task.control_state(state.data["state"])[self._seen]
        return dataclasses.replace(state, obs={**state.obs, "state": own})
