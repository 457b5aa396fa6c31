"""What model-based guiders hand from one iteration to the next, and from one part of an iteration to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from controllers.types import LinearGaussian
from gps.guiders.model_based.evidence import Evidence
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.teaching import Learner


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelBasedState:
    """What one iteration hands to the next; all but the learner, the prior and the counter with a leading M."""

    learner: Learner
    controllers: LinearGaussian  # in absolute coordinates
    duals: Any  # of the method
    eta: Float[Array, " M"]  # trust-region multipliers, the warm start of the next search
    step: Float[Array, " M"]  # step size: multiplies the KL limit
    objective: Float[Array, " M"]  # E[cost] in the local models before the last improvement
    promised: Float[Array, " M"]  # E[cost] after it, in the same models; equal to `objective` where nothing is promised
    cost: Float[Array, " M"]  # of `samples`, in task units
    samples: Samples  # the last ones that counted, which the learner is taught on
    prior: Any  # what the prior of the dynamics has learned, of all conditions together
    sound: LinearGaussian  # the last controllers that a faithful model was fitted to; at first those of the start
    untrusted: Int[Array, " M"]  # how many of the last local models in a row were not faithful
    strayed: Float[Array, " M"]  # KL of the last controllers to the learner that was taught them, over their limit
    iteration: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prepared:
    """What all rounds of one iteration share; leading M."""

    samples: Samples  # that count
    models: LocalModel  # of the new samples
    learner: LinearGaussian  # linearised around the new samples, in absolute coordinates
    reference: LinearGaussian  # in absolute coordinates
    evidence: Evidence
