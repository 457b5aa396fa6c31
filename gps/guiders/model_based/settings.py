"""Tables of settings that model-based guiders share; a guider composes them with those of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from controllers.expand import HESSIANS
from gps.errors import UserError
from gps.guiders.learner import NetworkSettings
from gps.settings import check_at_least, check_one_of, check_positive
from policies import regression

COLLECTORS = ("controllers", "learner", "both")
PRIORS = ("pooled", "window", "mixture", "neural", "identified", "known")
OF_MODEL = ("identified", "known")  # those that take dynamics from a model, and need no second sample
FOR_PLANS = ("known", "identified", "neural")  # those that say what follows anywhere, not around samples alone
LINEARIZATIONS = ("auto", "differentiation", "regression")


@dataclass(frozen=True)
class SamplingSettings:
    """How samples are collected, and how controllers explore."""

    samples: int = 2  # roll-outs per condition and iteration; fitted dynamics need at least 2
    by: str = "both"  # who collects: "controllers", "learner" (from the second iteration on), or "both" in turn
    learner_every: int = 2  # with "both", the learner collects every so many iterations
    smoothing: float = 0.0  # steps, standard deviation of the filter over the exploration noise; 0 is white
    std_floor: float = 0.02  # smallest standard deviation of a controller's action, given its other actions

    def __post_init__(self):
        check_one_of(self, "by", COLLECTORS)
        check_at_least(self, 1, "samples")
        check_at_least(self, 2, "learner_every")
        check_at_least(self, 0, "smoothing")
        check_positive(self, "std_floor")


@dataclass(frozen=True)
class TrustRegionSettings:
    """How far a controller may move in one iteration."""

    kl_step: float = 1.0  # nats per time step, at a step size of 1
    decay: float = 1.0  # the limit is multiplied by this from iteration to iteration; below 1 the controllers settle
    step_min: float = 0.1  # bounds of the step size, which adapts to how well improvements are predicted
    step_max: float = 1.0  # the upper of the two
    tolerance: float = 0.02  # relative, to which the limit is met

    def __post_init__(self):
        check_positive(self, "kl_step", "decay", "step_min", "tolerance")
        if not self.decay <= 1:
            raise ValueError(f"decay must be at most 1, not {self.decay}")
        if not self.tolerance < 1:
            raise ValueError(f"tolerance is relative and must be below 1, not {self.tolerance}")
        if not self.step_min <= 1.0 <= self.step_max:
            raise ValueError(f"step_min and step_max must enclose 1, not {self.step_min} and {self.step_max}")


@dataclass(frozen=True)
class LocalModelSettings:
    """How dynamics are fitted and costs expanded around the samples of a condition."""

    prior: str = "mixture"  # of the dynamics: one of `gps.guiders.model_based.priors`
    # With "identified": parameters of the task's known model, such as "body_mass:forearm" or "dof_damping:*"; see
    # dynamics.parameters. None stands for all masses, dampings and gains.
    identify: tuple[str, ...] = ()
    prior_strength: float = 0.0  # samples that the prior stands for; 0 is by evidence, at each time step
    regularization: float = 1e-5  # of the regression, relative to the prior's variances
    hessian: str = "flip"  # treatment of an indefinite Hessian of the cost; see controllers.expand
    # How far the cost in a model may be from the cost of its samples, in units of how much that varies from step to
    # step and sample to sample. A model that is farther off is not used.
    tolerance: float = 3.0

    def __post_init__(self):
        check_one_of(self, "hessian", HESSIANS)
        check_one_of(self, "prior", PRIORS)
        if self.identify and self.prior != "identified":
            raise ValueError(f"identify goes with prior = 'identified' and with no other, which is {self.prior!r}")
        check_positive(self, "tolerance")
        check_at_least(self, 0, "prior_strength", "regularization")


@dataclass(frozen=True)
class PretrainingSettings:
    """Of a learner's eyes, before it imitates anything; see `gps.guiders.model_based.pretraining`."""

    updates: int = 0  # of the encoder, on 64 images each; 0 for none
    images: int = 2000  # to learn from, one for each random pose
    learning_rate: float = 3e-3  # of Adam, at the start; falls to a tenth by the end

    def __post_init__(self):
        check_at_least(self, 0, "updates")
        check_at_least(self, 1, "images")
        check_positive(self, "learning_rate")


@dataclass(frozen=True)
class TaughtLearnerSettings:
    """The learner's network, and how it imitates controllers."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    training: regression.Settings = field(default_factory=regression.Settings)
    pretraining: PretrainingSettings = field(default_factory=PretrainingSettings)
    linearization: str = "auto"  # "differentiation", "regression" over the samples, or what task and network allow
    # Weight of states around those of the samples, in which the learner imitates the controllers' feedback: it then
    # matches their gains. 0 is none; the samples themselves weigh 1.
    sobolev: float = 0.0
    sobolev_spread: float = 1.0  # how far around, in standard deviations of the samples

    def __post_init__(self):
        check_one_of(self, "linearization", LINEARIZATIONS)
        check_at_least(self, 0, "sobolev")
        check_positive(self, "sobolev_spread")


def check_samples(sampling: SamplingSettings, models: LocalModelSettings) -> None:
    """Raise UserError where dynamics are to be fitted to a single sample."""
    if sampling.samples < 2 and models.prior not in OF_MODEL:
        raise UserError(
            f"guider.sampling.samples = {sampling.samples}: dynamics are fitted to the differences between samples; "
            "take at least 2, or guider.local_model.prior = 'known'"
        )
