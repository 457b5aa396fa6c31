"""What distinguishes one model-based method from another; `scaffold` does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers.types import LinearGaussian
from gps.columns import Column
from gps.guiders.guider import Metrics
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.trajectory_step import TrajectoryStep


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Condition:
    """What a method knows of one condition; controllers in absolute coordinates."""

    model: LocalModel
    samples: Samples  # N of them
    learner: LinearGaussian  # the learner, linearised around the samples
    reference: LinearGaussian  # the controller that the trust region is measured from
    limit: Float[Array, ""]  # of the trust region, nats per trajectory
    eta: Float[Array, ""]  # multiplier of the last trust region: where the search for the next one starts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Agreement:
    """How one condition's improved controller and the taught learner agree; both in the model's deviations."""

    controller: LinearGaussian
    learner: LinearGaussian
    kl: Float[Array, " T"]  # nats, KL(controller || learner) under the controller's states


class Method(Protocol):
    """What a method does differently. All functions are of one condition; `duals` are what it keeps of each.

    A method that says no more than how controllers improve keeps no duals, improves once on a batch of samples, and
    has the learner imitate the controllers.
    """

    name: str  # of the guider
    settings: Any  # with the tables of `gps.guiders.model_based.settings`
    columns: tuple[Column, ...]  # of its own metrics, in the progress display
    learner_leads: bool  # the trust region is measured from the learner, not from the controller
    one_step: bool  # one step size for all conditions, not one for each
    needs_model: bool  # improves only where the local model is faithful, and within its limits of the actions

    @property
    def rounds(self) -> int:
        """Of improving, teaching and pulling back on one batch of samples."""
        return 1

    @property
    def learner_promises(self) -> bool:
        """The step size adapts to the learner's improvement, not to the controllers'."""
        return False

    def improve(self, condition: Condition, duals: Any) -> TrajectoryStep:
        """A better controller within the trust region."""
        ...

    def start(self, controller: LinearGaussian) -> Any:
        """The duals before the first iteration."""
        return ()

    def restart(self, duals: Any) -> Any:
        """The duals where the controller starts anew as the learner; takes those of any number of conditions."""
        return duals

    def targets(self, controller: LinearGaussian, duals: Any, xs: Float[Array, "N T nx"]) -> tuple[Array, Array, Array]:
        """What the learner imitates: actions (N T nu), their precisions (T nu nu) and weights (T)."""
        return jax.vmap(controller.means)(xs), controller.precision, jnp.ones(xs.shape[1])

    def pull_back(self, agreement: Agreement, condition: Condition, duals: Any, settle: Array) -> tuple[Any, Metrics]:
        """The next duals, and metrics of them; `settle` is true in the last round, where the model is trusted."""
        return duals, {}
