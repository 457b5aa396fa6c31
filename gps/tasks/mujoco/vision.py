"""`reacher-vision`, `arm-reach-vision`, `peg-vision`, `drawer`: tasks whose learner sees in an image what it is about.

States, actions, contexts, costs and scores are those of `reacher`, `arm-reach`, `peg` and of `drawer.py`. The learner
sees the angles (rad) and velocities (rad/s) of the arm's joints, unless `camera.joints` is false, and an image of 48 x
48 pixels. In the first two tasks a red ball shows the target, and in `drawer` which drawer is to be opened; the peg's
block is there anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dynamics.camera import Mark
from gps.tasks.mujoco.arm_reach import ArmReach, ArmReachSettings
from gps.tasks.mujoco.drawer import JOINTS, Drawer, DrawerSettings
from gps.tasks.mujoco.peg import Peg, PegSettings
from gps.tasks.mujoco.reacher import Reacher, ReacherSettings
from gps.tasks.visual import CameraSettings, Visual

RED = (0.9, 0.1, 0.1)
ARM = ("pan", "lift", "roll", "elbow", "forearm", "wrist", "hand")


@dataclass(frozen=True)
class ReacherVisionSettings:
    """The task and its camera, which looks from above and turns with the upper arm."""

    task: ReacherSettings = field(default_factory=ReacherSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)


@dataclass(frozen=True)
class ArmReachVisionSettings:
    """The task and its camera, which looks from the side: how far the target is can be seen by its depth."""

    task: ArmReachSettings = field(default_factory=ArmReachSettings)
    camera: CameraSettings = field(default_factory=lambda: CameraSettings(channels="rgbd"))


@dataclass(frozen=True)
class PegVisionSettings:
    """The task and its camera, on the hand: it sees the peg, and where the block is from there."""

    task: PegSettings = field(default_factory=PegSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)


@dataclass(frozen=True)
class DrawerVisionSettings:
    """The task and its camera, above the arm's shoulder: the arm can be before what it is to see."""

    task: DrawerSettings = field(default_factory=DrawerSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)


def reacher(settings: ReacherVisionSettings, engine: str, name: str) -> Visual:
    """The task."""
    _seen_otherwise("hide_velocity", settings.task.hide_velocity, False)
    task = Reacher(settings.task, engine, name)
    return Visual(task, "above", settings.camera, ("shoulder", "elbow"), task.target, name, Mark(0.018, RED))


def arm_reach(settings: ArmReachVisionSettings, engine: str, name: str) -> Visual:
    """The task."""
    task = ArmReach(settings.task, engine, name)
    return Visual(task, "side", settings.camera, ARM, task.target, name, Mark(0.03, RED))


def peg(settings: PegVisionSettings, engine: str, name: str) -> Visual:
    """The task."""
    _seen_otherwise("see_hole", settings.task.see_hole, True)
    _seen_otherwise("see_velocity", settings.task.see_velocity, True)
    task = Peg(settings.task, engine, name)
    return Visual(task, "hand", settings.camera, ARM, lambda context: task.mocap(context)[0], name)


def drawer(settings: DrawerVisionSettings, engine: str, name: str) -> Visual:
    """The task. The lamp on the chest is behind the drawer that is to be opened."""
    task = Drawer(settings.task, engine, name)
    return Visual(task, "shoulder", settings.camera, JOINTS, task.lamp, name, Mark(0.03, RED))


def _seen_otherwise(name: str, value: bool, default: bool) -> None:
    """Raise ValueError for a setting of what a learner without a camera sees."""
    if value != default:
        raise ValueError(
            f"task.task.{name} = {str(value).lower()} is about a learner without a camera: leave it out, and say by "
            "task.camera.joints whether the learner reads its joints"
        )
