"""BADMM guided policy search: trajectory optimisation that a neural policy can imitate.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi:

    minimise   sum_i E_{p_i}[cost]
    subject to p_i(u | x) = pi(u | o(x)) at every time step

by the Bregman alternating direction method of multipliers. With multipliers lambda[t](x) = Lambda[t] x + l[t] on the
difference of the mean actions and penalty weights rho[t], each round

    improves p_i:    min E_p[cost - u'lambda] + rho KL(p || pi linearised)   within KL(p || p_old) <= limit
    teaches pi:      regression on K x + k - C lambda / rho, weighted by rho C^-1   (C: covariance of p_i)
    pulls p_i back:  lambda <- lambda - rate rho C^-1 E[(K x + k) - pi(o)],   rho adapted

Source:
    Levine, Finn, Darrell, Abbeel, "End-to-end training of deep visuomotor policies", JMLR 2016, section 4 and
    appendices (where rho is nu); Levine, Wagener, Abbeel, ICRA 2015. Departures are named where they are made.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers.kl import add_weighted, negative_log_prob
from controllers.types import LinearGaussian, QuadraticCost
from gps.columns import Column, short
from gps.guiders.guider import Metrics
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.method import Agreement, Condition, Method
from gps.guiders.model_based.penalty import MultiplierSettings, PenaltySettings, adapt_penalty
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
class BadmmSettings:
    """Settings of BADMM."""

    rounds: int = 4  # of improving, teaching and pulling back on one batch of samples
    start: StartSettings = field(default_factory=StartSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    local_model: LocalModelSettings = field(default_factory=LocalModelSettings)
    learner: TaughtLearnerSettings = field(default_factory=TaughtLearnerSettings)
    penalty: PenaltySettings = field(default_factory=PenaltySettings)
    multipliers: MultiplierSettings = field(default_factory=MultiplierSettings)

    def __post_init__(self):
        check_at_least(self, 1, "rounds")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Duals:
    """Of one condition: multipliers in task units per unit of action, in absolute coordinates, and penalty weights."""

    gain: Float[Array, "T nu nx"]  # Lambda; zero without gain multipliers
    offset: Float[Array, "T nu"]  # l
    rho: Float[Array, " T"]  # task units per nat


@dataclass(frozen=True)
class Badmm(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file."""

    settings: BadmmSettings
    name: str = "badmm"
    columns = (Column("lambda_norm", "|lambda|", short), Column("penalty", "penalty", short))
    learner_leads = False
    one_step = False
    needs_model = True

    @property
    def rounds(self) -> int:
        return self.settings.rounds

    def start(self, controller: LinearGaussian) -> Duals:
        rho = jnp.full(len(controller.k), self.settings.penalty.start, float)
        return Duals(jnp.zeros_like(controller.K), jnp.zeros_like(controller.k), rho)

    def restart(self, duals: Duals) -> Duals:
        return Duals(jnp.zeros_like(duals.gain), jnp.zeros_like(duals.offset), duals.rho)

    def improve(self, condition: Condition, duals: Duals) -> TrajectoryStep:
        cost = augmented(condition.model, condition.learner, duals)
        tolerance = self.settings.trust_region.tolerance
        c = condition
        return improve_within(
            c.model,
            cost,
            c.reference,
            c.limit,
            c.eta,
            tolerance,
            entropy_weight=duals.rho,
            std_floor=self.settings.sampling.std_floor,
        )

    def targets(self, controller: LinearGaussian, duals: Duals, xs: Float[Array, "N T nx"]):
        """The multiplier's share is C lambda / rho, which is what the Lagrangian's minimum gives; the public reference
        code has rho C lambda, with multipliers scaled accordingly.
        """
        covariance = controller.chol @ controller.chol.mT / duals.rho[:, None, None]
        push = jnp.einsum("tux,ntx->ntu", duals.gain, xs) + duals.offset
        wanted = jax.vmap(controller.means)(xs) - jnp.einsum("tuv,ntv->ntu", covariance, push)
        return wanted, controller.precision, duals.rho

    def pull_back(self, agreement: Agreement, condition: Condition, duals: Duals, settle: Array):
        s, xs = self.settings.multipliers, condition.model.xs[:-1]
        new, learner = agreement.controller, agreement.learner
        centred = duals.offset + jnp.einsum("tux,tx->tu", duals.gain, xs)
        centred = self._dual_step(new.chol, duals.rho, centred[..., None], (new.k - learner.k)[..., None], s.rate)
        gain = self._dual_step(new.chol, duals.rho, duals.gain, new.K - learner.K, s.gain_rate)
        offset = centred[..., 0] - jnp.einsum("tux,tx->tu", gain, xs)
        rho = jnp.where(settle, adapt_penalty(duals.rho, agreement.kl, self.settings.penalty), duals.rho)
        metrics: Metrics = {"lambda_norm": jnp.sqrt((offset**2).sum(-1).mean()), "penalty": rho.mean()}
        return Duals(gain, offset, rho), metrics

    def _dual_step(self, chol, rho, multiplier, difference, rate):
        """lambda - rate rho C^-1 difference, bounded in units of rho C^-1/2; the last axis is of columns."""
        if rate == 0.0:
            return multiplier
        white = jax.lax.linalg.triangular_solve(chol, difference, left_side=True, lower=True)
        scaled = chol.mT @ multiplier / rho[:, None, None] - rate * white
        norm = jnp.sqrt((scaled**2).sum(-2, keepdims=True))
        scaled = scaled * jnp.minimum(1.0, self.settings.multipliers.bound / jnp.maximum(norm, 1e-12))
        return rho[:, None, None] * jax.lax.linalg.triangular_solve(
            chol, scaled, left_side=True, lower=True, transpose_a=True
        )


def augmented(model: LocalModel, learner: LinearGaussian, duals: Duals) -> QuadraticCost:
    """cost - u'lambda(x) + rho (-log pi), in deviations; the learner in absolute coordinates."""
    nx = model.xs.shape[-1]
    cost = add_weighted(model.cost, duals.rho, negative_log_prob(model.centred(learner)))
    offset = duals.offset + jnp.einsum("tux,tx->tu", duals.gain, model.xs[:-1])
    H = cost.H.at[:, nx:, :nx].add(-duals.gain).at[:, :nx, nx:].add(-duals.gain.mT)
    pull = jnp.einsum("tux,tu->tx", duals.gain, model.us)
    return dataclasses.replace(cost, H=H, g=cost.g - jnp.concatenate([pull, offset], axis=1))


def badmm(task: ControlTask, settings: BadmmSettings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Badmm(settings))
