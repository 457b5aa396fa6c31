"""Brax's locomotion tasks with hidden velocities and noise: `brax-ant` and its like. Needs the extra `brax`.

The guider sees Brax's own observation; the learner sees it without its velocities and with Gaussian noise.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass

from gps.settings import check_at_least, check_one_of
from gps.tasks.external.adapter import External, missing
from gps.tasks.external.layouts import BRAX
from gps.tasks.partial import Partial

BACKENDS = ("generalized", "positional", "spring", "mjx")


@dataclass(frozen=True)
class BraxSettings:
    """Which environment, and what the learner sees of it."""

    env: str = "ant"  # Brax's name of it
    backend: str = "spring"  # Brax's physics
    horizon: int = 1000  # actions in an episode, each used once
    sigma: float = 0.1  # standard deviation of the noise on what the learner sees; in the paper 0, 0.1, 0.2 and 0.3
    hide_velocity: bool = True  # the learner does not see velocities

    def __post_init__(self):
        check_one_of(self, "env", BRAX)
        check_one_of(self, "backend", BACKENDS)
        check_at_least(self, 1, "horizon")
        check_at_least(self, 0, "sigma")
        if self.env == "swimmer" and self.backend != "generalized":
            raise ValueError(f"backend must be 'generalized' for swimmer, not '{self.backend}': Brax has no other")


def brax_task(settings: BraxSettings, name: str = "brax-ant") -> Partial:
    """The environment, observed in part.

    Args:
        settings: see there.
        name: the task's.

    Errors:
        SettingsError where Brax is not installed, and for a version of Brax whose observation has another size.

    Source:
        Freeman and others, "Brax", NeurIPS 2021, for the environments; Li, Xie and Lu, "Guided Policy Optimization
        under Partial Observability", ICLR 2026, for hidden velocities, noise and the choice of backends. There the
        noise is on the learner's observation too, and the guider sees both observations.
    """
    # It prints that warp is missing, which is not used, and warns that it is not maintained, which is in the docs.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from brax import envs  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise missing(name, "brax", "brax", error) from error
        foreign = envs.get_environment(settings.env, backend=settings.backend)
    layout = BRAX[settings.env]
    whole = External(foreign, name, settings.horizon, layout)
    return Partial(whole, layout.visible(settings.hide_velocity), settings.sigma)
