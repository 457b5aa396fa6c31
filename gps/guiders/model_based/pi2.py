"""PI2: each controller moves towards its own cheaper samples, and the learner imitates it.

For each condition i a time-varying linear-Gaussian controller p_i(u | x) = N(K x + k, C), for all of them one learner
pi. Each iteration draws N samples of each controller and

    improves p_i:   at each time step t, with S_n the cost of sample n from t on and xi_n its noise, in units of C^1/2,
                    w_n ~ exp(-S_n / eta),   eta such that KL(w || 1/N) = limit / T
                    k <- k + C^1/2 sum_n (w_n - 1/N) xi_n,   C <- m C,   K stays   (see `controllers.path_integral`)
    teaches pi:     regression on K x + k of p_i, weighted by C^-1, over the sampled states

No model of the dynamics plays a part, nor does a derivative of the cost: contact costs samples here and nothing else.
Nothing pulls p_i to pi, so that the samples are the controllers' own, from which the weights assume that they come.
K is that of the start, by default a hold of the start pose: without feedback a step moves all that comes after it.
Noise of one time step moves a body by little, and its weight is mostly chance: noise that is smooth over a few steps
(`sampling.smoothing`) tries motions instead.

Source:
    Theodorou, Buchli, Schaal, "A generalized path integral control approach to reinforcement learning", JMLR 2010;
    on linear-Gaussian controllers, with the temperature of REPS: Chebotar et al., "Path integral guided policy
    search", ICRA 2017. Departures are named in `controllers.path_integral`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax.numpy as jnp

from controllers import path_integral
from gps.guiders.model_based.method import Condition, Method
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.settings import (
    LocalModelSettings,
    SamplingSettings,
    TaughtLearnerSettings,
    TrustRegionSettings,
)
from gps.guiders.model_based.start import StartSettings
from gps.guiders.model_based.trajectory_step import TrajectoryStep
from gps.pytrees import all_finite
from gps.tasks.control_task import ControlTask
from policies import regression


@dataclass(frozen=True)
class Pi2Settings:
    """Settings of PI2."""

    start: StartSettings = field(default_factory=lambda: StartSettings(controller="pd"))
    sampling: SamplingSettings = field(
        default_factory=lambda: SamplingSettings(samples=16, by="controllers", smoothing=5.0)
    )
    trust_region: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    # of the metrics alone, so the cheapest
    local_model: LocalModelSettings = field(default_factory=lambda: LocalModelSettings(prior="pooled"))
    learner: TaughtLearnerSettings = field(
        default_factory=lambda: TaughtLearnerSettings(training=regression.Settings(updates=640))
    )


@dataclass(frozen=True)
class Pi2(Method):
    """See `gps.guiders.model_based.method.Method` and the top of this file."""

    settings: Pi2Settings
    name = "pi2"
    columns = ()
    learner_leads = False
    one_step = False
    needs_model = False

    def improve(self, condition: Condition, duals: tuple[()]) -> TrajectoryStep:
        return improve_by_samples(condition)


def improve_by_samples(condition: Condition) -> TrajectoryStep:
    """The path-integral step of one condition; `eta` is the mean temperature."""
    samples, reference = condition.samples, condition.reference
    T = len(reference.k)
    noise = path_integral.whitened_noise(reference, samples.xs[:, :-1], samples.us)
    costs = path_integral.costs_to_go(samples.costs)
    step = path_integral.improve(reference, noise, costs, jnp.broadcast_to(condition.limit / T, (T,)), samples.share)
    solved = all_finite(step.controller, batched=False)
    return TrajectoryStep(step.controller, solved, step.kl.sum(), step.eta.mean(), jnp.zeros((), jnp.int32))


def pi2(task: ControlTask, settings: Pi2Settings) -> ModelBased:
    """The guider of that name."""
    return ModelBased(task, Pi2(settings))
