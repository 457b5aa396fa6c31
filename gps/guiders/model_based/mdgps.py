"""Mirror descent guided policy search: the learner improves as far as its own linearisation lets a controller go.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi. Each iteration
linearises the learner around the samples, pi_i(u | x) = N(K x + k, C), and

    improves p_i (C-step):   min E_{p_i}[cost]   within KL(p_i || pi_i) <= limit
    teaches pi (S-step):     min sum_i E[KL(pi || p_i)] over the sampled states: regression on K x + k of p_i,
                             weighted by its precision

There are no multipliers and no penalty: what holds the controllers to the learner is that the limit is measured from
it. That makes it mirror descent on the cost of the learner, whose S-step is the projection onto what it can represent.

Source:
    Montgomery and Levine, "Guided policy search as approximate mirror descent", NIPS 2016. Departures are named where
    they are made.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from controllers.kl import kl_per_step
from controllers.types import LinearGaussian
from gps.columns import Column, short, span
from gps.guiders.guider import Metrics
from gps.guiders.model_based import samples as sampling
from gps.guiders.model_based import trajectories
from gps.guiders.model_based.samples import LocalModel, Samples
from gps.guiders.model_based.trajectories import TrajectorySettings
from gps.pytrees import select
from gps.settings import check_one_of
from gps.tasks.control_task import ControlTask, require_control
from gps.tasks.episodes import Learner, LearnerSettings, start_learner
from policies import regression
from policies.mlp import GaussianPolicy

STEP_RULES = ("classic", "global")


@dataclass(frozen=True)
class MdgpsSettings(TrajectorySettings):
    """Settings of MDGPS besides those of all guiders with trajectories; nats are per time step."""

    # "controllers" is off-policy, "learner" on-policy. Nothing but the limit, which is measured from the linearised
    # learner, ties a controller to the last one, so that off-policy steps have to be small (kl_step 0.2).
    sampling: str = "learner"
    step_rule: str = (
        "global"  # whose improvement adapts the step: "classic", the controllers', or "global", the learner's
    )
    # There is one S-step in an iteration, so it is a longer one.
    learner: LearnerSettings = field(default_factory=lambda: LearnerSettings(training=regression.Settings(updates=640)))

    def __post_init__(self):
        super().__post_init__()
        check_one_of(self, "step_rule", STEP_RULES)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MdgpsState:
    """What one iteration hands to the next; fields of the controllers have a leading M."""

    learner: Learner
    controllers: LinearGaussian  # in absolute coordinates
    eta: Float[Array, " M"]  # trust-region multipliers, the warm start of the next search
    step: Float[Array, ""]  # step size: multiplies the KL limit of every condition
    objective: Float[Array, " M"]  # E[cost] before the last iteration's improvement, of whom `step_rule` judges
    promised: Float[Array, " M"]  # by how much the local models said that it would fall; 0 where there was no promise
    samples: Samples  # what the learner was taught on last
    iteration: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """What the steps of one iteration share."""

    samples: Samples
    models: LocalModel  # leading M
    reference: LinearGaussian  # the learner linearised around the samples; the limit is measured from it
    trusted: Bool[Array, " M"]  # the local model reproduces the cost of the samples


class Mdgps:
    """See `gps.guiders.guider.Guider` and the top of this file."""

    name = "mdgps"
    updates = 1
    fused = False
    columns = (
        Column("cost", "cost", short),
        Column("cost", "min..max", span, whole=True),
        Column("kl_ratio", "KL/lim", ".2f"),
        Column("learner_error", "learner", short),
    )

    def __init__(self, task: ControlTask, settings: MdgpsSettings):
        require_control(task, self.name)
        self.task = task
        self.settings = settings
        self.steps_per_iteration = len(task.train_contexts) * settings.samples * task.horizon
        self._differentiate = trajectories.can_differentiate(task, settings.linearization)

    def init(self, key: PRNGKeyArray) -> MdgpsState:
        """Controllers that explore around the action zero, and an untrained learner."""
        task, s = self.task, self.settings
        M = len(task.train_contexts)
        return MdgpsState(
            learner=start_learner(key, task, s.learner),
            controllers=trajectories.explorers(task, s.start_std),
            eta=jnp.ones(M),
            step=jnp.ones(()),
            objective=jnp.zeros(M),
            promised=jnp.zeros(M),
            samples=sampling.none_yet(task, s.samples),
            iteration=jnp.zeros((), jnp.int32),
        )

    def collect(self, state: MdgpsState, key: PRNGKeyArray) -> Samples:
        """Roll the controllers (or the learner) through the simulator; the first time, the controllers."""
        s, policy = self.settings, state.learner.policy
        return sampling.collect(
            self.task, state.controllers, policy, self._by_learner(state), key, s.samples, s.smoothing
        )

    def check(self, samples: Samples) -> None:
        """Raise `DivergedError` where a condition has no sound sample left."""
        sampling.check(samples)

    def policy(self, state: MdgpsState) -> GaussianPolicy:
        """The learner's policy."""
        return state.learner.policy

    def update(self, state: MdgpsState, samples: Samples, key: PRNGKeyArray) -> tuple[MdgpsState, Metrics]:
        """Local models, C-step and S-step."""
        state, problem, prepared = self.prepare(state, samples)
        state, improved = self.improve(state, problem)
        state, taught = self.teach(state, key)
        state, promised = self.promise(state, problem)
        return state, {**prepared, **improved, **taught, **promised}

    def prepare(self, state: MdgpsState, samples: Samples) -> tuple[MdgpsState, Problem, Metrics]:
        """Fit local models, linearise the learner, and adapt the step size by how well the last promise was kept."""
        s = self.settings
        models = sampling.fit_local_models(self.task, samples, s.prior_strength, s.regularization, s.hessian)
        learner = trajectories.acquainted(state.learner, samples)
        linearized = self._linearized(learner, samples)
        # The untrained learner stands for nothing: the first limit is measured from the controllers that explored,
        # as if it imitated them. (Public code has it imitate them first, which costs a fit and ends nearly there.)
        reference = select(state.iteration == 0, state.controllers, linearized)
        cost = sampling.weighted_mean(samples.costs, samples.weights)
        sampled = trajectories.objective(models, select(self._by_learner(state), linearized, state.controllers))
        # Few samples can fit dynamics that are unstable under the very controller that they came from; and a learner
        # that does not get near the controllers' samples must first be taught more of them.
        led = trajectories.objective(models, reference)
        tolerance = s.model_tolerance * jnp.abs(cost)
        trusted = (jnp.abs(sampled - cost) <= tolerance) & (jnp.abs(led - cost) <= tolerance)

        objective = led if s.step_rule == "global" else trajectories.objective(models, state.controllers)
        objective = jnp.where(trusted & jnp.isfinite(objective), objective, state.objective)
        judged = trusted & (state.promised != 0.0)
        gained = state.objective - objective
        step = self._adapt_step(state.step, gained, state.promised, judged)
        state = dataclasses.replace(state, learner=learner, step=step, objective=objective)
        metrics = {
            "cost": cost,
            "controllers_score": sampling.score(self.task, samples),
            "actual_improvement": jnp.where(judged, gained, jnp.nan),
            "predicted_improvement": jnp.where(judged, state.promised, jnp.nan),
            "step_multiplier": state.step,
            "untrusted_models": (~trusted).sum(),
            "diverged_samples": (samples.weights == 0).sum(),
        }
        return state, Problem(samples, models, reference, trusted), metrics

    def improve(self, state: MdgpsState, problem: Problem) -> tuple[MdgpsState, Metrics]:
        """C-step: minimise the cost inside the trust region around the learner; a failed solve keeps the controller."""
        s, T = self.settings, self.task.horizon
        limit = jnp.broadcast_to(state.step * s.kl_step * T, state.eta.shape)

        def one(model, reference, limit, eta):
            return trajectories.solve(model, model.cost, reference, limit, eta, s.kl_tolerance)

        new, solution = jax.vmap(one)(problem.models, problem.reference, limit, state.eta)
        found = trajectories.found(new, solution)
        usable = found & problem.trusted
        # a controller that was kept can say what to do along its own samples, but not far off, along the learner's
        counts = usable | ~self._by_learner(state)
        state = dataclasses.replace(
            state,
            controllers=select(usable, trajectories.with_noise_floor(new, s.std_floor), state.controllers),
            eta=jnp.where(usable, solution.eta, state.eta),
            samples=select(counts, problem.samples, state.samples),
        )
        metrics = {
            "eta": state.eta,
            "kl_step": solution.kl / T,
            "kl_ratio": solution.kl / limit,
            "kl_limit": limit / T,
            "sweeps": solution.sweeps,
            "failed_solves": (~found & problem.trusted).sum(),
        }
        return state, metrics

    def teach(self, state: MdgpsState, key: PRNGKeyArray) -> tuple[MdgpsState, Metrics]:
        """S-step: regress the learner on the controllers' actions at the sampled states."""
        samples = state.samples
        targets = jax.vmap(lambda p, xs: jax.vmap(p.means)(xs))(state.controllers, samples.xs[:, :, :-1])
        precisions = trajectories.precision(state.controllers.chol)
        weights = jnp.broadcast_to(samples.weights[..., None], targets.shape[:-1])
        learner, metrics = trajectories.imitate(
            state.learner, samples.observations, targets, precisions, weights, key, self.settings.learner
        )
        return dataclasses.replace(state, learner=learner), metrics

    def promise(self, state: MdgpsState, problem: Problem) -> tuple[MdgpsState, Metrics]:
        """What the local models say that this iteration has brought: the next one's samples put it to the test."""
        learner = self._linearized(state.learner, problem.samples)
        judge = learner if self.settings.step_rule == "global" else state.controllers
        promised = state.objective - trajectories.objective(problem.models, judge)

        def kl(model, controller, learner):
            xs, us = model.xs[:-1], model.us
            new = controller.recentred(xs, us)
            return kl_per_step(new, learner.recentred(xs, us), trajectories.marginals(model, new)).mean()

        kls = jax.vmap(kl)(problem.models, state.controllers, learner)
        state = dataclasses.replace(
            state,
            promised=jnp.where(problem.trusted & jnp.isfinite(promised), promised, 0.0),
            iteration=state.iteration + 1,
        )
        return state, {"kl_to_learner": jnp.where(problem.trusted, kls, jnp.nan)}

    def _by_learner(self, state: MdgpsState) -> Bool[Array, " M"]:
        s = self.settings
        return trajectories.by_learner(self.task, s.sampling, s.learner_every, state.iteration)

    def _linearized(self, learner: Learner, samples: Samples) -> LinearGaussian:
        return trajectories.linearized(self.task, learner.policy, samples, self._differentiate)

    def _adapt_step(self, step: Array, gained: Array, promised: Array, judged: Array) -> Float[Array, ""]:
        """One step for all conditions, as in the paper, by sums over those that can be judged."""
        s = self.settings
        bounds = s.kl_step_multiplier_min, s.kl_step_multiplier_max
        gained, promised = jnp.where(judged, gained, 0.0).sum(), jnp.where(judged, promised, 0.0).sum()
        return trajectories.adapt_step(step, gained, promised, bounds)
