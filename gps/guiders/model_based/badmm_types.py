"""What BADMM is told (its settings), what it carries from iteration to iteration, and what one iteration shares."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Bool, Float

from controllers.types import LinearGaussian
from gps.guiders.model_based.samples import LocalModel, Samples
from gps.guiders.model_based.trajectories import TrajectorySettings
from gps.settings import check_at_least, check_one_of, check_positive
from gps.tasks.episodes import Learner

PENALTY_RULES = ("ratio", "spread", "fixed")


@dataclass(frozen=True)
class BadmmSettings(TrajectorySettings):
    """Settings of BADMM besides those of all guiders with trajectories; nats are per time step.

    With sampling = "both" the learner takes over, beyond its turns, where it costs less than what was sampled last.
    """

    rounds: int = 4  # improve-teach-pull rounds on one batch of samples
    penalty: float = 0.3  # nu at the start, task units per nat
    penalty_min: float = 1e-4
    penalty_max: float = 10.0
    penalty_rule: str = "ratio"  # how nu moves; see `_adapt_penalty`
    penalty_target: float = 0.1  # nats, the KL to the learner that the "ratio" rule holds
    dual_rate: float = 0.2  # of the multipliers on the mean action
    dual_rate_gain: float = 0.0  # of the multipliers on the gain matrix; 0 leaves them out
    dual_bound: float = 2.0  # largest multiplier, in standard deviations that it moves the learner's target

    def __post_init__(self):
        super().__post_init__()
        check_one_of(self, "penalty_rule", PENALTY_RULES)
        check_at_least(self, 1, "rounds")
        check_at_least(self, 0, "dual_rate", "dual_rate_gain")
        check_positive(self, "penalty_min", "penalty_target", "dual_bound")
        if not self.penalty_min <= self.penalty <= self.penalty_max:
            raise ValueError(
                f"penalty must be between penalty_min = {self.penalty_min} and penalty_max = {self.penalty_max}, "
                f"not {self.penalty}"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Multipliers:
    """lambda[t](x) = K[t] x + k[t], in task units per unit of action; K is zero without gain multipliers."""

    K: Float[Array, "M T nu nx"]
    k: Float[Array, "M T nu"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BadmmState:
    """What one iteration hands to the next; fields of the controllers have a leading M."""

    learner: Learner
    controllers: LinearGaussian  # in absolute coordinates
    imitated: LinearGaussian  # the learner linearised around the last samples, in absolute coordinates
    multipliers: Multipliers  # in absolute coordinates
    nu: Float[Array, "M T"]  # penalty weights, task units per nat
    eta: Float[Array, " M"]  # trust-region multipliers, the warm start of the next search
    step: Float[Array, " M"]  # step size: multiplies the KL limit
    objective: Float[Array, " M"]  # of the controllers before the last improvement, in their local models
    predicted: Float[Array, " M"]  # of the controllers after it, in the same models
    cost: Float[Array, " M"]  # of `samples`, in task units
    samples: Samples  # the last ones that counted, which the learner is taught on
    iteration: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """What every round of one iteration uses."""

    samples: Samples  # the new ones, or where they do not count the last that did
    models: LocalModel  # of the new ones; leading M
    old: LinearGaussian  # the controllers that the samples came from; the trust region is measured from them
    counts: Bool[Array, " M"]  # the new samples count: not a learner's that did worse than the controller
    trusted: Bool[Array, " M"]  # they do, and the local model reproduces their cost
