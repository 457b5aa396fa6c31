"""PIGPS: mirror descent guided policy search whose controllers improve by path integrals.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi. Each iteration draws
N samples of the learner, linearises it around them, pi_i(u | x) = N(K x + k, C), and

    improves p_i (C-step):   min E[cost] over reweightings w of the samples, within KL(w || 1/N) <= limit / T at each
                             time step; p_i is pi_i moved to the reweighted noise (`controllers.path_integral`)
    teaches pi (S-step):     regression on K x + k of p_i, weighted by its precision, over the sampled states

As in `mdgps` the limit that is measured from the learner is all that holds controllers to it; but no model of the
dynamics plays a part, so that contact does not matter. The samples are the learner's own, which is what makes the
weights right: its noise is what moved them from pi_i, and what the linearisation leaves out counts as noise too. The
feedback of p_i is the learner's: what is taught is a motion.

A step of few samples is half chance. The S-step averages that over conditions, as far as it fits what they have in
common and not each of them: it is a short one.

The first controllers explore, and the first step is measured from them. (Public code has the learner imitate them
first.)

Source:
    Chebotar, Kalakrishnan, Yahya, Li, Schaal, Levine, "Path integral guided policy search", ICRA 2017, which also
    draws new conditions in each iteration. Departures are named in `controllers.path_integral`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gps.guiders.model_based.method import Condition, Method
from gps.guiders.model_based.pi2 import improve_by_samples
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.settings import (
    LocalModelSettings,
    SamplingSettings,
    TaughtLearnerSettings,
    TrustRegionSettings,
)
from gps.guiders.model_based.start import StartSettings
from gps.guiders.model_based.trajectory_step import TrajectoryStep
from gps.tasks.control_task import ControlTask


@dataclass(frozen=True)
class PigpsSettings:
    """Settings of PIGPS."""

    start: StartSettings = field(default_factory=lambda: StartSettings(controller="pd"))
    sampling: SamplingSettings = field(
        default_factory=lambda: SamplingSettings(samples=16, by="learner", smoothing=5.0)
    )
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    # of the metrics alone, so the cheapest
    local_model: LocalModelSettings = field(default_factory=lambda: LocalModelSettings(prior="pooled"))
    # Few updates: a longer S-step fits what chance did to each condition, and a new one finds nothing between them.
    learner: TaughtLearnerSettings = field(default_factory=TaughtLearnerSettings)


@dataclass(frozen=True)
class Pigps(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file."""

    settings: PigpsSettings
    name = "pigps"
    columns = ()
    learner_leads = True
    one_step = True
    needs_model = False

    def improve(self, condition: Condition, duals: tuple[()]) -> TrajectoryStep:
        return improve_by_samples(condition)


def pigps(task: ControlTask, settings: PigpsSettings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Pigps(settings))
