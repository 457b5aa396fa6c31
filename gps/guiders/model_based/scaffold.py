"""The scaffold of model-based guided policy search: all that its methods share, written once.

Each condition i has a time-varying linear-Gaussian controller p_i, all of them have one learner pi. An iteration

    collects      roll-outs of the controllers, or of the learner
    prepares      local models around the samples; what the samples are good for; the step size
    and in rounds
    improves      each controller in its local model, within a trust region
    teaches       the learner, by regression on the controllers' actions
    pulls back    each controller to the learner

and ends with a promise, the cost that the models predict, which the next samples put to the test. A `Method` says how
controllers improve, what the learner imitates and how controllers are pulled back, each for one condition.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from controllers import trust_region
from controllers.kl import kl_per_step
from controllers.types import LinearGaussian
from gps.columns import Column, short, span
from gps.guiders.guider import Metrics
from gps.guiders.model_based import local_model, priors, samples
from gps.guiders.model_based.evidence import Evidence, reproduces, weigh
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.method import Agreement, Condition, Method
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import check_samples
from gps.guiders.model_based.start import start_controllers
from gps.guiders.model_based.state import ModelBasedState, Prepared
from gps.guiders.model_based.step_size import Promise, next_steps
from gps.guiders.model_based.teaching import Teaching
from gps.guiders.model_based.trajectory_step import for_each, within_limits
from gps.pytrees import all_finite, select
from gps.tasks.control_task import ControlTask, require_control
from policies.network import NetworkPolicy

PATIENCE = 5  # local models in a row that are not faithful, until a condition returns to its last sound controller


class ModelBased:
    """See `gps.guiders.guider.Guider` and the top of this file.

    Errors:
        ValueError for a task without cost and conditions, or one whose learner can not be linearised as asked.
    """

    updates = 1
    fused = False

    def __init__(self, task: ControlTask, method: Method):
        require_control(task, method.name)
        self.task = task
        self.method = method
        self.name = method.name
        self.settings = method.settings
        self.columns = (
            Column("cost", "cost", short),
            Column("cost", "min..max", span, whole=True),
            Column("kl_ratio", "KL/lim", ".2f"),
            Column("model_error", "model", ".2f"),
            *method.columns,
            Column("learner_error", "learner", short),
        )
        self.teaching = Teaching(task, method.settings.learner)
        self.prior = priors.make(task, self.settings.local_model)
        check_samples(self.settings.sampling, self.settings.local_model)
        self.batch = len(task.train_contexts)
        self.steps_per_iteration = self.batch * self.settings.sampling.samples * task.horizon

    def init(self, key: PRNGKeyArray) -> ModelBasedState:
        """Controllers that explore, and an untrained learner."""
        task, sampling = self.task, self.settings.sampling
        M = len(task.train_contexts)
        learner, plans = jax.random.split(key)
        controllers = start_controllers(task, self.settings.start, sampling.std_floor, plans)
        return ModelBasedState(
            learner=self.teaching.start(learner),
            controllers=controllers,
            duals=jax.vmap(self.method.start)(controllers),
            eta=jnp.ones(M),
            step=jnp.ones(M),
            objective=jnp.zeros(M),
            promised=jnp.zeros(M),
            cost=jnp.zeros(M),
            samples=samples.none_yet(task, sampling.samples),
            prior=self.prior.init(),
            sound=controllers,
            untrusted=jnp.zeros(M, jnp.int32),
            strayed=jnp.zeros(M),
            iteration=jnp.zeros((), jnp.int32),
        )

    def collect(self, state: ModelBasedState, key: PRNGKeyArray) -> Samples:
        """Roll the controllers (or the learner) through the simulator."""
        collects = self.learner_collects(state)
        return samples.collect(
            self.task, state.controllers, state.learner.policy, collects, key, self.settings.sampling
        )

    def check(self, collected: Samples) -> None:
        """Raise `DivergedError` where a condition has no sound sample left."""
        samples.check(collected)

    def judge(self, metrics: Metrics) -> None:
        """Raise `DivergedError` where no fit of the learner in an iteration could be taken."""
        self.teaching.judge(metrics, self.method.rounds)

    def policy(self, state: ModelBasedState) -> NetworkPolicy:
        """The learner's policy."""
        return state.learner.policy

    def update(self, state: ModelBasedState, collected: Samples, key: PRNGKeyArray) -> tuple[ModelBasedState, Metrics]:
        """Rounds of improving, teaching and pulling back on one batch of samples.

        Returns:
            The new state, and metrics of the preparation and the last round; those named "failed_..." are summed.
        """
        learner, key = self.teaching.introduced(state.learner, collected, state.iteration, key)
        state = dataclasses.replace(state, learner=learner)
        state, prepared, metrics = self.prepare(state, collected)

        def turn(carry, inputs):
            state, learner = carry
            key, last = inputs
            state, improved = self.improve(state, prepared, learner)
            state, taught = self.teach(state, prepared, key)
            learner = self.teaching.linearized(state.learner.policy, prepared.samples)
            state, pulled = self.pull_back(state, prepared, learner, last)
            return (state, learner), {**improved, **taught, **pulled}

        rounds = self.method.rounds
        turns = (jax.random.split(key, rounds), jnp.arange(rounds) == rounds - 1)
        (state, learner), log = jax.lax.scan(turn, (state, prepared.learner), turns)
        last = {name: values.sum(0) if name.startswith("failed_") else values[-1] for name, values in log.items()}
        return self._promise(state, prepared, learner), {**metrics, **last}

    def prepare(self, state: ModelBasedState, collected: Samples) -> tuple[ModelBasedState, Prepared, Metrics]:
        """Fit local models, weigh the samples, and adapt the step size by how well the last promise was kept."""
        method = self.method
        fitted, prior = local_model.fit(self.task, collected, self.settings.local_model, self.prior, state.prior)
        models = fitted.models
        state = dataclasses.replace(state, learner=self.teaching.normalized(state.learner, collected))
        learner = self.teaching.linearized(state.learner.policy, collected)
        leads, evidence, promise = self._appraise(state, collected, models, learner)
        faithful, kept = evidence.faithful, select(evidence.counts, collected, state.samples)
        sound = select(faithful & ~evidence.learner_collected, state.controllers, state.sound)
        failures = jnp.where(faithful, 0, state.untrusted + 1)
        returns = failures >= PATIENCE  # what is never improved would be sampled for ever
        controllers = select(evidence.took_over, learner, state.controllers)
        rules = (self.settings.trust_region, method.one_step, method.learner_leads)
        state = dataclasses.replace(
            state,
            controllers=select(returns, sound, controllers),
            # the duals belonged to a trajectory that is given up
            duals=select(evidence.took_over | returns, method.restart(state.duals), state.duals),
            step=next_steps(state.step, promise, faithful, state.strayed, *rules),
            objective=jnp.where(evidence.trusted, promise.now, state.objective),
            cost=jnp.where(evidence.counts, collected.cost, state.cost),
            samples=kept,
            prior=prior,
            sound=sound,
            untrusted=jnp.where(returns, 1, failures),
            iteration=state.iteration + 1,
        )
        reference = select(leads, learner, state.controllers)
        metrics = {
            "cost": collected.cost,
            "model_error": fitted.error,
            "prior_strength": jnp.exp(jnp.log(fitted.strength).mean(1)),
            "controllers_score": samples.score(self.task, collected),
            "actual_improvement": jnp.where(promise.judged, promise.gained, jnp.nan),
            "predicted_improvement": jnp.where(promise.judged, promise.promised, jnp.nan),
            "step_size": state.step,
            "faithful": faithful.astype(collected.cost.dtype),
            "untrusted_models": (~faithful).sum(),
            "learner_took_over": evidence.took_over.sum(),
            "returned_controllers": returns.sum(),
            "diverged_samples": (collected.weights == 0).sum(),
            "saturated_actions": (jnp.abs(collected.us) >= 1.0).mean((1, 2, 3)),
        }
        return state, Prepared(kept, models, learner, reference, evidence), metrics

    def improve(
        self, state: ModelBasedState, prepared: Prepared, learner: LinearGaussian
    ) -> tuple[ModelBasedState, Metrics]:
        """Improve the controllers whose models are trusted; where the method finds none, the old one stays."""
        T, trusted = self.task.horizon, prepared.evidence.trusted
        conditions = self._conditions(state, prepared, learner)
        found = for_each(self.method.improve)(conditions, state.duals)
        usable = found.solved & trusted
        limit = jax.vmap(within_limits) if self.method.needs_model else lambda _, controller: controller
        limited = limit(prepared.models, found.controller)
        floored = trust_region.with_std_floor(limited, self.settings.sampling.std_floor)
        state = dataclasses.replace(
            state,
            controllers=select(usable, floored, state.controllers),
            eta=jnp.where(usable, found.eta, state.eta),
        )
        metrics = {
            "eta": state.eta,
            "kl_step": found.kl / T,
            "kl_ratio": found.kl / conditions.limit,
            "kl_limit": conditions.limit / T,
            "sweeps": found.sweeps,
            "failed_solves": (~found.solved & trusted).sum(),
        }
        return state, metrics

    def teach(self, state: ModelBasedState, prepared: Prepared, key: PRNGKeyArray) -> tuple[ModelBasedState, Metrics]:
        """Regress the learner on what the method wants it to imitate, in the sampled states and around them."""
        drawing, fitting = jax.random.split(key)
        lessons = self.teaching.lessons(prepared.samples, drawing)
        actions, precisions, weights = jax.vmap(self.method.targets)(state.controllers, state.duals, lessons.xs)
        precisions = jnp.broadcast_to(precisions[:, None], (*actions.shape, actions.shape[-1]))
        weights = lessons.weights[..., None] * weights[:, None]
        learner, metrics = self.teaching.imitate(
            state.learner, lessons.observations, actions, precisions, weights, fitting
        )
        return dataclasses.replace(state, learner=learner), metrics

    def pull_back(
        self, state: ModelBasedState, prepared: Prepared, learner: LinearGaussian, last: Bool[Array, ""]
    ) -> tuple[ModelBasedState, Metrics]:
        """Let the method move its duals by how controllers and learner agree."""
        evidence = prepared.evidence

        def one(condition: Condition, controller, duals, settle):
            model = condition.model
            new, taught = model.centred(controller), model.centred(condition.learner)
            agreement = Agreement(new, taught, kl_per_step(new, taught, model.marginals(new)))
            return *self.method.pull_back(agreement, condition, duals, settle), agreement.kl.mean()

        conditions = self._conditions(state, prepared, learner)
        duals, metrics, kl = jax.vmap(one)(conditions, state.controllers, state.duals, last & evidence.trusted)
        if jax.tree.leaves(duals):
            duals = select(evidence.counts & all_finite(duals), duals, state.duals)
        kl = jnp.where(evidence.trusted, kl, jnp.nan)
        metrics = {**metrics, "kl_to_learner": kl}
        known = jnp.isfinite(kl) & (state.iteration > 1)  # before, the learner was untrained
        strayed = jnp.where(known, kl * self.task.horizon / conditions.limit, state.strayed)
        return dataclasses.replace(state, duals=duals, strayed=strayed), metrics

    def _appraise(
        self, state: ModelBasedState, collected: Samples, models: LocalModel, learner: LinearGaussian
    ) -> tuple[Bool[Array, " M"], Evidence, Promise]:
        """Whether the next step is measured from the learner, what the samples are good for, and the last promise.

        Args:
            models: fitted to the samples.
            learner: linearised around them.
        """
        method, sampling, free = self.method, self.settings.sampling, not self.method.needs_model
        by_learner = self.learner_collects(state)
        sampled = select(by_learner, learner, state.controllers)
        expected, of_learner = (jax.vmap(LocalModel.expected_cost)(models, who) for who in (sampled, learner))
        tolerance, scale = self.settings.local_model.tolerance, collected.cost_scale
        of_samples = jax.vmap(LocalModel.sampled_cost)(models, collected.xs, collected.us, collected.share)
        faithful, learner_too = (
            reproduces(modelled, of_samples, scale, tolerance) | free for modelled in (expected, of_learner)
        )
        # An untrained learner stands for nothing, nor does one that the samples of the controller say nothing of: a
        # step that the learner would lead is measured from the controller then.
        leads = method.learner_leads & learner_too & (state.iteration > 0)
        always = method.learner_leads or sampling.by == "learner"
        evidence = weigh(by_learner, faithful, collected.cost, state.cost, always)

        now = jnp.where(leads, of_learner, expected) if method.learner_promises else expected
        # an improvement was tried, who promised it was sampled, and this model can tell what it has brought
        tested = leads if method.learner_promises else ~by_learner | (sampling.by == "learner")
        promised = state.objective - state.promised
        # a promise larger than any that a faithful model could make, of these samples or the last, is none
        largest = tolerance * jnp.maximum(scale, state.samples.cost_scale)
        judged = evidence.trusted & tested & (promised != 0.0) & (jnp.abs(promised) <= largest) & method.needs_model
        return leads, evidence, Promise(state.objective, state.promised, now, judged)

    def _promise(self, state: ModelBasedState, prepared: Prepared, learner: LinearGaussian) -> ModelBasedState:
        """What the local models say that this iteration has brought."""
        promiser = learner if self.method.learner_promises else state.controllers
        predicted = jax.vmap(LocalModel.expected_cost)(prepared.models, promiser)
        # where the controller stays, so does a promise of it that was not put to the test yet
        waits = ~prepared.evidence.counts & (not self.method.learner_promises)
        unchanged = jnp.where(waits, state.promised, state.objective)
        promised = jnp.where(prepared.evidence.trusted & jnp.isfinite(predicted), predicted, unchanged)
        return dataclasses.replace(state, promised=promised)

    def _conditions(self, state: ModelBasedState, prepared: Prepared, learner: LinearGaussian) -> Condition:
        """All of them; leading M."""
        region = self.settings.trust_region
        kl_step = region.kl_step * region.decay ** (state.iteration - 1)  # the iteration has been counted already
        limit = state.step * kl_step * self.task.horizon
        return Condition(prepared.models, prepared.samples, learner, prepared.reference, limit, state.eta)

    def learner_collects(self, state: ModelBasedState) -> Bool[Array, " M"]:
        """Whether the learner collects in this iteration, of each condition.

        An untrained one never does, nor does any where the last local model was not faithful: its controller is asked
        again, which is nearer to what the model before was about.
        """
        sampling, i = self.settings.sampling, state.iteration
        if sampling.by == "both":
            turn = i % sampling.learner_every == sampling.learner_every - 1
        else:
            turn = (i > 0) & (sampling.by == "learner")
        return turn & (state.untrusted == 0)
