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
from gps.tasks.partial import Layout, Partial

BACKENDS = ("generalized", "positional", "spring", "mjx")

# From the order in which each environment of Brax 0.14 puts its observation together. Sizes before and after are
# those of the paper. A humanoid's torques (the last 23) are no velocities.
HUMANOID = Layout(244, ((22, 45), (155, 221)))  # joints; then 11 links' linear and angular ones
LAYOUTS = {
    "ant": Layout(27, ((13, 27),)),
    "halfcheetah": Layout(17, ((8, 17),)),
    "humanoid": HUMANOID,
    "humanoidstandup": HUMANOID,
    "inverted_double_pendulum": Layout(8, ((5, 8),)),
    "inverted_pendulum": Layout(4, ((2, 4),)),
    "reacher": Layout(11, ((6, 8),)),  # of the tip
    "swimmer": Layout(8, ((3, 8),)),
    "walker2d": Layout(17, ((8, 17),)),
}


@dataclass(frozen=True)
class BraxSettings:
    """Which environment, and what the learner sees of it."""

    env: str = "ant"  # Brax's name of it
    backend: str = "spring"  # Brax's physics
    horizon: int = 1000  # actions in an episode, each used once
    sigma: float = 0.1  # standard deviation of the noise on what the learner sees; in the paper 0, 0.1, 0.2 and 0.3
    hide_velocity: bool = True  # the learner does not see velocities

    def __post_init__(self):
        check_one_of(self, "env", LAYOUTS)
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
    layout = LAYOUTS[settings.env]
    whole = External(foreign, name, settings.horizon, layout)
    return Partial(whole, layout.visible(settings.hide_velocity), settings.sigma)


def _entry(about: str, env: str, backend: str = "spring"):
    return BraxSettings(env, backend), brax_task, f"Brax: {about}; the learner sees noise and no velocities"


# Name of the task: its defaults, what builds it, and a line about it. The backends are the paper's.
BRAX = {
    "brax-ant": _entry("a four-legged body runs", "ant"),
    "brax-half-cheetah": _entry("a planar body with two legs runs", "halfcheetah"),
    "brax-humanoid": _entry("a humanoid runs", "humanoid"),
    "brax-humanoid-standup": _entry("a humanoid stands up", "humanoidstandup"),
    "brax-inverted-double-pendulum": _entry("a cart balances two poles, one on the other", "inverted_double_pendulum"),
    "brax-swimmer": _entry("three links swim in the plane", "swimmer", "generalized"),
    "brax-walker2d": _entry("a planar biped walks", "walker2d", "mjx"),
    # not among the paper's
    "brax-inverted-pendulum": _entry("a cart balances a pole", "inverted_pendulum"),
    "brax-reacher": _entry("a two-link arm reaches for targets", "reacher"),
}
