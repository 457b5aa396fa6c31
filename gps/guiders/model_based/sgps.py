"""Stochastic guided policy search: dual gradient ascent with the divergence as the constraint.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi:

    minimise   sum_i E_{p_i}[cost]
    subject to KL(p_i(u | x) || pi(u | o(x))) = 0 at every time step, in the mean over the states of p_i

With multipliers lambda[t], the prices of a nat, the Lagrangian of one condition is

    L = E_p[cost] + sum_t lambda_t E_p[KL(p(u | x_t) || pi(u | x_t))]

and each round

    improves p:    min L over p, with pi linearised, within KL(p || p_old) <= limit
    teaches pi:    regression on the mean of p, weighted by lambda C^-1   (C: covariance of p)
    pulls p back:  lambda <- lambda + rate KL, up the slope of L in lambda

A divergence is never negative, so that lambda only grows; `badmm` has a second multiplier, on the means, and comes to
agree at a finite price.

Source:
    Levine and Abbeel, "Learning neural network policies with guided policy search under unknown dynamics", NIPS 2014,
    section 4, whose learner minimises the same divergence; here its mean does, weighted by the controllers' precision
    in place of its own, as in `badmm`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers.kl import add_weighted, negative_log_prob
from controllers.types import LinearGaussian
from gps.columns import Column, short
from gps.guiders.guider import Metrics
from gps.guiders.model_based.method import Agreement, Condition, Method
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.settings import (
    LocalModelSettings,
    SamplingSettings,
    TaughtLearnerSettings,
    TrustRegionSettings,
)
from gps.guiders.model_based.start import StartSettings
from gps.guiders.model_based.trajectory_step import TrajectoryStep, improve_within
from gps.settings import check_at_least
from gps.tasks.control_task import ControlTask


@dataclass(frozen=True)
class PriceSettings:
    """The multiplier lambda of KL(controller || learner), one for each condition and time step; task units per nat."""

    start: float = 0.1  # of the first iteration
    rate: float = 0.1  # task units per squared nat
    largest: float = 10.0  # it never rises above

    def __post_init__(self):
        check_at_least(self, 0, "rate")
        if not 0.0 < self.start <= self.largest:
            raise ValueError(f"start must be above 0 and at most largest = {self.largest}, not {self.start}")


@dataclass(frozen=True)
class SgpsSettings:
    """Settings of stochastic guided policy search."""

    rounds: int = 4  # of improving, teaching and pulling back on one batch of samples
    start: StartSettings = field(default_factory=StartSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    local_model: LocalModelSettings = field(default_factory=LocalModelSettings)
    learner: TaughtLearnerSettings = field(default_factory=TaughtLearnerSettings)
    price: PriceSettings = field(default_factory=PriceSettings)

    def __post_init__(self):
        check_at_least(self, 1, "rounds")


@dataclass(frozen=True)
class Sgps(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file; the duals are lambda (T)."""

    settings: SgpsSettings
    name = "sgps"
    columns = (Column("price", "lambda", short), Column("violation", "KL", short))
    learner_leads = False
    one_step = False
    needs_model = True

    @property
    def rounds(self) -> int:
        return self.settings.rounds

    def start(self, controller: LinearGaussian) -> Float[Array, " T"]:
        return jnp.full(len(controller.k), self.settings.price.start, float)

    def restart(self, duals: Array) -> Array:
        return duals

    def improve(self, condition: Condition, duals: Float[Array, " T"]) -> TrajectoryStep:
        c, s = condition, self.settings
        cost = add_weighted(c.model.cost, duals, negative_log_prob(c.model.centred(c.learner)))
        floor, tolerance = s.sampling.std_floor, s.trust_region.tolerance
        return improve_within(c.model, cost, c.reference, c.limit, c.eta, tolerance, duals, floor)

    def targets(self, controller: LinearGaussian, duals: Float[Array, " T"], xs: Float[Array, "N T nx"]):
        return jax.vmap(controller.means)(xs), controller.precision, duals

    def pull_back(self, agreement: Agreement, condition: Condition, duals: Float[Array, " T"], settle: Array):
        price = self.settings.price
        duals = jnp.minimum(duals + price.rate * agreement.kl, price.largest)
        metrics: Metrics = {"price": duals.mean(), "violation": agreement.kl.mean()}
        return duals, metrics


def sgps(task: ControlTask, settings: SgpsSettings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Sgps(settings))
