"""PILQR: LQR for what the local model explains of the cost, path integrals for the rest.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi. Each iteration draws
N samples of the learner, linearises it around them, pi_i(u | x) = N(K x + k, C), fits a linear-quadratic model, and

    splits the cost          S_n = beta P_n + R_n at each time step: S_n is the cost of sample n from there on, P_n what
                             the model says of it, given the sample's start and noise; e is the share of the variance
                             of S that beta P explains, 0 to 1
    improves p_i (C-step)    by LQR in the model, within KL <= limit mean_t(e), and from there by path integrals on the
                             residual R, within KL <= limit (1 - e) / T at each time step
    teaches pi (S-step)      by regression on K x + k of p_i, weighted by its precision, over the sampled states

The minimiser within a limit is p ~ pi exp(-S / eta) = pi exp(-beta P / eta) exp(-R / eta), so that one step after the
other makes the whole. The samples' noise, in units of C^1/2, is given to the controller of the LQR for the second.
Where the model is exact the step is that of `mdgps`, where it explains nothing that of `pigps`.

The learner leads, as in `mdgps`: the weights assume samples of what the step is measured from, and samples of the
learner say what it will do itself.

Source:
    Chebotar, Hausman, Zhang, Sukhatme, Schaal, Levine, "Combining model-based and model-free updates for
    trajectory-centric reinforcement learning", ICML 2017, section 4. Departures: beta is 1 there; its temperature of
    the second step is that of the whole cost; and the limit follows the residual by factors of 2 from iteration to
    iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers import path_integral
from gps.columns import Column
from gps.guiders.model_based.method import Agreement, Condition, Method
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.settings import (
    LocalModelSettings,
    SamplingSettings,
    TaughtLearnerSettings,
    TrustRegionSettings,
)
from gps.guiders.model_based.start import StartSettings
from gps.guiders.model_based.trajectory_step import TrajectoryStep, improve_within, within_limits
from gps.pytrees import all_finite, select
from gps.tasks.control_task import ControlTask
from policies import regression

LEAST = 0.01  # share of the limit that either step is taken for


@dataclass(frozen=True)
class PilqrSettings:
    """Settings of PILQR."""

    start: StartSettings = field(default_factory=StartSettings)
    sampling: SamplingSettings = field(default_factory=lambda: SamplingSettings(samples=6, by="learner"))
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    local_model: LocalModelSettings = field(default_factory=LocalModelSettings)
    learner: TaughtLearnerSettings = field(
        default_factory=lambda: TaughtLearnerSettings(training=regression.Settings(updates=640))
    )


@dataclass(frozen=True)
class Pilqr(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file."""

    settings: PilqrSettings
    name = "pilqr"
    columns = (Column("explained", "explained", ".2f"),)
    learner_leads = True
    one_step = True
    needs_model = False  # a model that is not faithful explains little

    def improve(self, condition: Condition, duals: tuple[()]) -> TrajectoryStep:
        c, T = condition, len(condition.reference.k)
        noise, split = explain(c)
        share = split.explained.mean()
        tolerance = self.settings.trust_region.tolerance
        planned = improve_within(
            c.model, c.model.cost, c.reference, jnp.maximum(share, LEAST) * c.limit, c.eta, tolerance
        )
        usable = planned.solved & (share >= LEAST)
        controller = select(usable, within_limits(c.model, planned.controller), c.reference)
        rest = 1.0 - split.explained
        limit = jnp.where(rest >= LEAST, rest * c.limit / T, 0.0)
        step = path_integral.improve(controller, noise, split.residual, limit, c.samples.share)
        kl = jnp.where(usable, planned.kl, 0.0) + step.kl.sum()  # of one step and the other
        solved = all_finite(step.controller, batched=False)
        return TrajectoryStep(step.controller, solved, kl, jnp.where(usable, planned.eta, c.eta), planned.sweeps)

    def pull_back(self, agreement: Agreement, condition: Condition, duals: tuple[()], settle: Array):
        return duals, {"explained": explain(condition)[1].explained.mean()}


def explain(condition: Condition) -> tuple[Float[Array, "N T nu"], path_integral.Split]:
    """The noise of the samples around the reference, and what the model makes of it."""
    c, samples = condition, condition.samples
    noise = path_integral.whitened_noise(c.reference, samples.xs[:, :-1], samples.us)
    starts = samples.xs[:, 0] - c.model.xs[0]
    predicted = path_integral.predicted_costs(
        c.model.dynamics, c.model.cost, c.model.centred(c.reference), starts, noise
    )
    costs, told = (path_integral.costs_to_go(values) for values in (samples.costs, predicted))
    return noise, path_integral.split(costs, told, samples.share)


def pilqr(task: ControlTask, settings: PilqrSettings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Pilqr(settings))
