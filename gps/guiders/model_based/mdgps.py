"""Mirror descent guided policy search: the learner improves as far as its own linearisation lets a controller go.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi. Each iteration
linearises the learner around the samples, pi_i(u | x) = N(K x + k, C), and

    improves p_i (C-step):   min E_{p_i}[cost]   within KL(p_i || pi_i) <= limit
    teaches pi (S-step):     min sum_i E[KL(pi || p_i)] over the sampled states: regression on K x + k of p_i,
                             weighted by its precision

There are no multipliers and no penalty: what holds the controllers to the learner is that the limit is measured from
it. That makes it mirror descent on the cost of the learner, whose S-step is the projection onto what it can represent.

The S-step is not exact: networks, few samples and noisy gains leave KL(p_i || pi) behind. A step that is not larger
than that is lost in it, and larger steps leave more, so that a learner that had solved its task can lose it again. The
step size is therefore at most the last one times limit / KL, as if the KL had been allowed to be the limit.

The first limit is measured from the controllers that explored, as if the untrained learner imitated them. (Public code
has it imitate them first, which costs a fit and ends nearly there.)

Source:
    Montgomery and Levine, "Guided policy search as approximate mirror descent", NIPS 2016.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gps.guiders.model_based.method import Condition, Method
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.settings import (
    LocalModelSettings,
    SamplingSettings,
    TaughtLearnerSettings,
    TrustRegionSettings,
)
from gps.guiders.model_based.start import StartSettings
from gps.guiders.model_based.trajectory_step import TrajectoryStep, improve_within
from gps.settings import check_one_of
from gps.tasks.control_task import ControlTask
from policies import regression

STEP_RULES = ("classic", "global")


@dataclass(frozen=True)
class MdgpsSettings:
    """Settings of MDGPS."""

    step_rule: str = "classic"  # whose improvement adapts the step: "classic" the controllers', "global" the learner's
    start: StartSettings = field(default_factory=StartSettings)
    # by "controllers" is off-policy, by "learner" on-policy. Nothing but the limit, which is measured from the
    # linearised learner, ties a controller to the last one, so that off-policy steps have to be small (kl_step 0.2).
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(by="learner"))
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    local_model: LocalModelSettings = field(default_factory=LocalModelSettings)
    # There is one S-step in an iteration, so it is a longer one.
    learner: TaughtLearnerSettings = field(
        default_factory=lambda: TaughtLearnerSettings(training=regression.Settings(updates=640))
    )

    def __post_init__(self):
        check_one_of(self, "step_rule", STEP_RULES)


@dataclass(frozen=True)
class Mdgps(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file."""

    settings: MdgpsSettings
    name = "mdgps"
    columns = ()
    learner_leads = True
    one_step = True
    needs_model = True

    @property
    def learner_promises(self) -> bool:
        return self.settings.step_rule == "global"

    def improve(self, condition: Condition, duals: tuple[()]) -> TrajectoryStep:
        c = condition
        tolerance = self.settings.trust_region.tolerance
        return improve_within(c.model, c.model.cost, c.reference, c.limit, c.eta, tolerance)


def mdgps(task: ControlTask, settings: MdgpsSettings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Mdgps(settings))
