"""MuJoCo Playground's dm_control suite with hidden velocities and noise. Needs the extra `playground`.

The guider sees Playground's own observation; the learner sees it without its velocities and with Gaussian noise.
Playground's locomotion and manipulation suites are not here: they download their robots when they are first used.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from gps.settings import SettingsError, check_at_least, check_one_of
from gps.tasks.external.adapter import External, missing
from gps.tasks.external.layouts import PLAYGROUND
from gps.tasks.partial import Partial


@dataclass(frozen=True)
class PlaygroundSettings:
    """Which environment, and what the learner sees of it."""

    env: str = "CartpoleBalance"  # Playground's name of it
    horizon: int = 1000  # actions in an episode; Playground's own number for each of these environments
    sigma: float = 0.1  # standard deviation of the noise on what the learner sees
    hide_velocity: bool = True  # the learner does not see velocities

    def __post_init__(self):
        check_one_of(self, "env", PLAYGROUND)
        check_at_least(self, 1, "horizon")
        check_at_least(self, 0, "sigma")


def playground_task(settings: PlaygroundSettings, name: str = "playground-cartpole-balance") -> Partial:
    """The environment, observed in part.

    Args:
        settings: see there.
        name: the task's.

    Errors:
        SettingsError where Playground is not installed or can not build the environment, and for a version of
        Playground whose observation has another size.

    Source:
        Zakka and others, "MuJoCo Playground", 2025, for the environments; `brax_task` for what is hidden.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # where warp is missing it prints so; it is not used
        try:
            from mujoco_playground import dm_control_suite  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise missing(name, "MuJoCo Playground", "playground", error) from error
        try:  # its default is warp, which has no derivatives and needs a GPU
            foreign = dm_control_suite.load(settings.env, config_overrides={"impl": "jax"})
        except (AttributeError, ValueError) as error:  # of another version of mujoco than it was written for
            raise SettingsError(f"task {name}: MuJoCo Playground can not build {settings.env}: {error}") from error
    layout = PLAYGROUND[settings.env]
    whole = External(foreign, name, settings.horizon, layout)
    return Partial(whole, layout.visible(settings.hide_velocity), settings.sigma)
