"""Deterministic guided policy search: dual gradient ascent on one Lagrangian.

For each condition i a trajectory (x_i, u_i), for all of them one learner pi:

    minimise   sum_i sum_t cost(x_it, u_it)
    subject to u_it = pi(o(x_it)) at every time step

With multipliers lambda[t] and a quadratic penalty the Lagrangian of one condition is

    L = sum_t cost(x_t, u_t) + lambda_t' (u_t - pi(x_t)) + 1/2 rho |u_t - pi(x_t)|^2

and each round

    improves the trajectory:  a step of iLQR on L, with pi linearised, within KL(p || p_old) <= limit
    teaches pi:               regression on u + lambda / rho, where L is least
    pulls back:               lambda <- lambda + rate rho (u - pi(x)), up the slope of L in lambda

A trajectory is the mean of a linear-Gaussian controller p, whose feedback and noise are there to sample with: they are
not held to the learner's, which is what `sgps` and `badmm` do.

Source:
    Dual gradient ascent for guided policy search as in Levine, CS 294-112 lectures ("Guided policy search"). The
    penalty makes it the method of multipliers; the trust region keeps a step inside its local model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers.types import LinearGaussian, QuadraticCost
from gps.columns import Column, short
from gps.guiders.guider import Metrics
from gps.guiders.model_based.local_model import LocalModel
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
from gps.settings import check_at_least, check_positive
from gps.tasks.control_task import ControlTask


@dataclass(frozen=True)
class DgpsSettings:
    """Settings of deterministic guided policy search."""

    rounds: int = 4  # of improving, teaching and pulling back on one batch of samples
    penalty: float = 3.0  # rho, of 1/2 |action of the trajectory - action of the learner|^2; task units
    rate: float = 0.5  # of the step of the multipliers; at 1 it is that of the method of multipliers
    start: StartSettings = field(default_factory=StartSettings)
    # Nothing here prices certainty, and what does not explore has no model: the floor is what it explores with.
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(std_floor=0.1))
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    local_model: LocalModelSettings = field(default_factory=LocalModelSettings)
    learner: TaughtLearnerSettings = field(default_factory=TaughtLearnerSettings)

    def __post_init__(self):
        check_at_least(self, 1, "rounds")
        check_at_least(self, 0, "rate")
        check_positive(self, "penalty")


@dataclass(frozen=True)
class Dgps(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file; the duals are lambda (T nu), task units."""

    settings: DgpsSettings
    name = "dgps"
    columns = (Column("lambda_norm", "|lambda|", short), Column("violation", "|u - pi|", ".3f"))
    learner_leads = False
    one_step = False
    needs_model = True

    @property
    def rounds(self) -> int:
        return self.settings.rounds

    def start(self, controller: LinearGaussian) -> Float[Array, "T nu"]:
        return jnp.zeros_like(controller.k)

    def restart(self, duals: Array) -> Array:
        return jnp.zeros_like(duals)

    def improve(self, condition: Condition, duals: Float[Array, "T nu"]) -> TrajectoryStep:
        c, s = condition, self.settings
        cost = augmented(c.model, c.learner, duals, s.penalty)
        floor = s.sampling.std_floor
        return improve_within(c.model, cost, c.reference, c.limit, c.eta, s.trust_region.tolerance, std_floor=floor)

    def targets(self, controller: LinearGaussian, duals: Float[Array, "T nu"], xs: Float[Array, "N T nx"]):
        """All actions weigh the same; their precision is what the learner explores with: as the trajectories do."""
        T, nu = duals.shape
        wanted = jax.vmap(controller.means)(xs) + duals / self.settings.penalty
        precision = self.settings.sampling.std_floor**-2 * jnp.eye(nu)
        return wanted, jnp.broadcast_to(precision, (T, nu, nu)), jnp.ones(T)

    def pull_back(self, agreement: Agreement, condition: Condition, duals: Float[Array, "T nu"], settle: Array):
        new, learner = agreement.controller, agreement.learner
        xs = condition.model.marginals(new).mean[:-1]
        violation = new.means(xs) - learner.means(xs)
        duals = duals + self.settings.rate * self.settings.penalty * violation
        metrics: Metrics = {
            "lambda_norm": jnp.sqrt((duals**2).sum(-1).mean()),
            "violation": jnp.sqrt((violation**2).sum(-1).mean()),
        }
        return duals, metrics


def augmented(
    model: LocalModel, learner: LinearGaussian, multipliers: Float[Array, "T nu"], penalty: float
) -> QuadraticCost:
    """cost + lambda'(u - pi(x)) + 1/2 rho |u - pi(x)|^2, in deviations; the learner in absolute coordinates."""
    centred = model.centred(learner)
    T, nu = multipliers.shape
    G = jnp.concatenate([-centred.K, jnp.broadcast_to(jnp.eye(nu), (T, nu, nu))], axis=-1)  # u - pi(x) = G z - k
    H = model.cost.H + penalty * jnp.einsum("tuz,tuy->tzy", G, G)
    g = model.cost.g + jnp.einsum("tuz,tu->tz", G, multipliers - penalty * centred.k)
    constant = 0.5 * penalty * (centred.k**2).sum(-1) - (multipliers * centred.k).sum(-1)
    return replace(model.cost, H=H, g=g, c=model.cost.c + constant)


def dgps(task: ControlTask, settings: DgpsSettings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Dgps(settings))
