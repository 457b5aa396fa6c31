"""BADMM guided policy search: trajectory optimisation that a neural policy can imitate.

For each condition i a time-varying linear-Gaussian controller p_i, for all of them one learner pi:

    minimise   sum_i E_{p_i}[cost]
    subject to p_i(u | x) = pi(u | o(x)) at every time step

by the Bregman alternating direction method of multipliers. With multipliers lambda[t] on the difference of
the mean actions and penalty weights nu[t], each round

    improves p_i:    min E_p[cost - u'lambda] + nu KL(p || pi linearised)   within KL(p || p_old) <= limit
    teaches pi:      regression on K x + k - C lambda / nu, weighted by nu C^-1   (C: covariance of p_i)
    pulls p_i back:  lambda <- lambda - rate nu C^-1 E[(K x + k) - pi(o)],   nu adapted

Source:
    Levine, Finn, Darrell, Abbeel, "End-to-end training of deep visuomotor policies", JMLR 2016, section 4 and
    appendices; Levine, Wagener, Abbeel, ICRA 2015. Departures are named where they are made.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.kl import add_weighted, kl_per_step, negative_log_prob
from controllers.marginals import expected_cost
from controllers.types import LinearGaussian, QuadraticCost
from gps.columns import Column, short, span
from gps.guiders.guider import Metrics, in_phases
from gps.guiders.model_based import samples as sampling
from gps.guiders.model_based import trajectories
from gps.guiders.model_based.badmm_types import BadmmSettings, BadmmState, Multipliers, Problem
from gps.guiders.model_based.samples import LocalModel, Samples
from gps.pytrees import all_finite, select
from gps.tasks.control_task import ControlTask, require_control
from gps.tasks.episodes import start_learner
from policies.mlp import GaussianPolicy


class Badmm:
    """See `gps.guiders.guider.Guider` and the top of this file."""

    name = "badmm"
    updates = 1
    fused = False
    columns = (
        Column("cost", "cost", short),
        Column("cost", "min..max", span, whole=True),
        Column("kl_ratio", "KL/lim", ".2f"),
        Column("lambda_norm", "|lambda|", short),
        Column("nu", "nu", short),
        Column("learner_error", "learner", short),
    )

    def __init__(self, task: ControlTask, settings: BadmmSettings):
        require_control(task, self.name)
        self.task = task
        self.settings = settings
        self.rounds = settings.rounds
        self.steps_per_iteration = len(task.train_contexts) * settings.samples * task.horizon
        self._differentiate = trajectories.can_differentiate(task, settings.linearization)

    def init(self, key: PRNGKeyArray) -> BadmmState:
        """Controllers that explore around zero torque, and an untrained learner."""
        task, s = self.task, self.settings
        M, T, nx, nu = len(task.train_contexts), task.horizon, task.nx, task.nu
        controllers = trajectories.explorers(task, s.start_std)
        return BadmmState(
            learner=start_learner(key, task, s.learner),
            controllers=controllers,
            imitated=controllers,
            multipliers=Multipliers(jnp.zeros((M, T, nu, nx)), jnp.zeros((M, T, nu))),
            nu=jnp.full((M, T), s.penalty, float),
            eta=jnp.ones(M),
            step=jnp.ones(M),
            objective=jnp.zeros(M),
            predicted=jnp.zeros(M),
            cost=jnp.zeros(M),
            samples=sampling.none_yet(task, s.samples),
            iteration=jnp.zeros((), jnp.int32),
        )

    def collect(self, state: BadmmState, key: PRNGKeyArray) -> Samples:
        """Roll the controllers (or the learner) through the simulator."""
        s = self.settings
        return sampling.collect(
            self.task,
            state.controllers,
            state.learner.policy,
            self._by_learner(state),
            key,
            s.samples,
            s.smoothing,
        )

    def check(self, samples: Samples) -> None:
        """Raise `DivergedError` where a condition has no sound sample left."""
        sampling.check(samples)

    def policy(self, state: BadmmState) -> GaussianPolicy:
        """The learner's policy."""
        return state.learner.policy

    def update(self, state: BadmmState, samples: Samples, key: PRNGKeyArray) -> tuple[BadmmState, Metrics]:
        """Rounds of improving, teaching and pulling back on one batch of samples."""
        return in_phases(self, state, samples, key)

    def prepare(self, state: BadmmState, samples: Samples) -> tuple[BadmmState, Problem, Metrics]:
        """Fit local models and adapt the step size by how well the last improvement was predicted."""
        s = self.settings
        models = sampling.fit_local_models(self.task, samples, s.prior_strength, s.regularization, s.hessian)
        state = dataclasses.replace(state, learner=trajectories.acquainted(state.learner, samples))

        by_learner = self._by_learner(state)
        imitated = self._linearized(state, samples)
        old = select(by_learner, imitated, state.controllers)
        actual = trajectories.objective(models, old)
        cost = sampling.weighted_mean(samples.costs, samples.weights)
        # few samples can fit dynamics that are unstable under the very controller that they came from
        faithful = jnp.abs(actual - cost) <= s.model_tolerance * jnp.abs(cost)
        takes_over = by_learner & faithful & ((cost < state.cost) | (s.sampling == "learner"))
        counts = takes_over | ~by_learner
        trusted = faithful & counts
        kept = select(counts, samples, state.samples)
        problem = Problem(kept, models, select(takes_over, old, state.controllers), counts, trusted)
        gained, promised = state.objective - actual, state.objective - state.predicted
        # an improvement was tried, its controllers were rolled out, and this model can tell what it brought
        judged = trusted & (promised != 0.0) & (~by_learner | (s.sampling == "learner"))
        step = jnp.where(judged, self._adapt_step(state.step, gained, promised), state.step)
        state = dataclasses.replace(
            state,
            controllers=problem.old,
            imitated=imitated,
            # a take-over starts from p = pi; the multipliers belonged to a trajectory that is given up
            multipliers=select(takes_over, jax.tree.map(jnp.zeros_like, state.multipliers), state.multipliers),
            step=step,
            objective=jnp.where(trusted, actual, state.objective),
            cost=jnp.where(counts, cost, state.cost),
            samples=kept,
            iteration=state.iteration + 1,
        )
        metrics = {
            "cost": cost,
            "controllers_score": sampling.score(self.task, samples),
            "actual_improvement": jnp.where(judged, gained, jnp.nan),
            "predicted_improvement": jnp.where(judged, promised, jnp.nan),
            "step_multiplier": step,
            "untrusted_models": (~faithful).sum(),
            "learner_took_over": takes_over.sum(),
            "diverged_samples": (samples.weights == 0).sum(),
        }
        return state, problem, metrics

    def improve(self, state: BadmmState, problem: Problem) -> tuple[BadmmState, Metrics]:
        """Minimise the augmented cost inside the trust region; a failed solve keeps the old controller."""
        s, T = self.settings, self.task.horizon
        limit = state.step * s.kl_step * T

        def one(model, old, imitated, multipliers, nu, eta, limit):
            cost = _augmented(model, imitated, multipliers, nu)
            return trajectories.solve(model, cost, old, limit, eta, s.kl_tolerance, entropy_weight=nu)

        new, solution = jax.vmap(one)(
            problem.models, problem.old, state.imitated, state.multipliers, state.nu, state.eta, limit
        )
        found = trajectories.found(new, solution)
        usable = found & problem.trusted
        new = select(usable, trajectories.with_noise_floor(new, s.std_floor), state.controllers)
        state = dataclasses.replace(state, controllers=new, eta=jnp.where(usable, solution.eta, state.eta))
        metrics = {
            "eta": state.eta,
            "kl_step": solution.kl / T,
            "kl_ratio": solution.kl / limit,
            "kl_limit": limit / T,
            "sweeps": solution.sweeps,
            "failed_solves": (~found & problem.trusted).sum(),
        }
        return state, metrics

    def teach(self, state: BadmmState, problem: Problem, key: PRNGKeyArray) -> tuple[BadmmState, Metrics]:
        """Regress the learner on the controllers' actions at the sampled states."""
        samples = problem.samples
        targets, precisions = self._targets(state, samples)
        weights = jnp.broadcast_to(samples.weights[..., None] * state.nu[:, None], targets.shape[:-1])
        learner, metrics = trajectories.imitate(
            state.learner, samples.observations, targets, precisions, weights, key, self.settings.learner
        )
        return dataclasses.replace(state, learner=learner), metrics

    def pull_back(self, state: BadmmState, problem: Problem, last: Array) -> tuple[BadmmState, Metrics]:
        """Dual step on lambda, and in the last round on nu."""
        s = self.settings
        imitated = self._linearized(state, problem.samples)

        def one(model, controller, imitated, multipliers, nu):
            xs, us = model.xs[:-1], model.us
            new, learner = controller.recentred(xs, us), imitated.recentred(xs, us)
            states = trajectories.marginals(model, new)
            centred_k = multipliers.k + jnp.einsum("tux,tx->tu", multipliers.K, xs)
            k = self._dual_step(new.chol, nu, centred_k[..., None], (new.k - learner.k)[..., None], s.dual_rate)[..., 0]
            K = self._dual_step(new.chol, nu, multipliers.K, new.K - learner.K, s.dual_rate_gain)
            multipliers = Multipliers(K, k - jnp.einsum("tux,tx->tu", K, xs))
            return multipliers, kl_per_step(new, learner, states), expected_cost(model.cost, states, new)

        multipliers, kl, predicted = jax.vmap(one)(
            problem.models, state.controllers, imitated, state.multipliers, state.nu
        )
        multipliers = select(problem.counts & all_finite(multipliers), multipliers, state.multipliers)
        nu = jnp.where(last & problem.trusted[:, None], self._adapt_penalty(state.nu, kl), state.nu)
        # a promise that was not put to the test yet stands; where the model is not to be trusted there is none
        untested = jnp.where(problem.counts, state.objective, state.predicted)
        predicted = jnp.where(problem.trusted, predicted, untested)
        state = dataclasses.replace(state, imitated=imitated, multipliers=multipliers, nu=nu, predicted=predicted)
        metrics = {
            "kl_to_learner": jnp.where(problem.trusted, kl.mean(1), jnp.nan),
            "lambda_norm": jnp.sqrt((multipliers.k**2).sum(-1).mean(1)),
            "nu": nu.mean(1),
        }
        return state, metrics

    # The parts that the phases share.

    def _by_learner(self, state: BadmmState) -> Array:
        s = self.settings
        return trajectories.by_learner(self.task, s.sampling, s.learner_every, state.iteration)

    def _linearized(self, state: BadmmState, samples: Samples) -> LinearGaussian:
        return trajectories.linearized(self.task, state.learner.policy, samples, self._differentiate)

    def _adapt_step(self, step: Array, gained: Array, promised: Array) -> Float[Array, " M"]:
        s = self.settings
        bounds = s.kl_step_multiplier_min, s.kl_step_multiplier_max
        return trajectories.adapt_step(step, gained, promised, bounds)

    def _targets(self, state: BadmmState, samples: Samples) -> tuple[Array, Array]:
        """Actions (M N T nu) and precisions (M T nu nu) that the learner is to imitate.

        The multiplier's share is C lambda / nu, which is what the Lagrangian's minimum gives; the public
        reference code has nu C lambda, with multipliers scaled accordingly.
        """

        def one(controller, multipliers, nu, xs):
            covariance = controller.chol @ controller.chol.mT / nu[:, None, None]
            wanted = jax.vmap(controller.means)(xs)
            push = jnp.einsum("tux,ntx->ntu", multipliers.K, xs) + multipliers.k
            return wanted - jnp.einsum("tuv,ntv->ntu", covariance, push)

        targets = jax.vmap(one)(state.controllers, state.multipliers, state.nu, samples.xs[:, :, :-1])
        return targets, trajectories.precision(state.controllers.chol)

    def _dual_step(self, chol, nu, multiplier, difference, rate):
        """lambda - rate nu C^-1 difference, bounded to `dual_bound` in units of nu C^-1/2; last axis is of columns."""
        if rate == 0.0:
            return multiplier
        white = jax.lax.linalg.triangular_solve(chol, difference, left_side=True, lower=True)
        scaled = chol.mT @ multiplier / nu[:, None, None] - rate * white
        norm = jnp.sqrt((scaled**2).sum(-2, keepdims=True))
        scaled = scaled * jnp.minimum(1.0, self.settings.dual_bound / jnp.maximum(norm, 1e-12))
        return nu[:, None, None] * jax.lax.linalg.triangular_solve(
            chol, scaled, left_side=True, lower=True, transpose_a=True
        )

    def _adapt_penalty(self, nu: Float[Array, "M T"], kl: Float[Array, "M T"]) -> Float[Array, "M T"]:
        """Move nu by its rule, inside its bounds.

        "ratio": by the square root of KL to the learner over `penalty_target`, at most by 2 either way.
        "spread": the literature's rule: doubled where the KL is above mean + deviation over time, halved
        where it is below mean - deviation. "fixed": not at all.
        """
        s = self.settings
        if s.penalty_rule == "fixed":
            return nu
        if s.penalty_rule == "ratio":
            factor = jnp.clip(jnp.sqrt(kl / s.penalty_target), 0.5, 2.0)
        else:
            mean, deviation = kl.mean(1, keepdims=True), kl.std(1, keepdims=True)
            factor = jnp.where(kl > mean + deviation, 2.0, jnp.where(kl < mean - deviation, 0.5, 1.0))
        factor = jnp.where(jnp.isfinite(factor), factor, 1.0)
        return jnp.clip(nu * factor, s.penalty_min, s.penalty_max)


def _augmented(model: LocalModel, imitated: LinearGaussian, multipliers: Multipliers, nu: Array) -> QuadraticCost:
    """cost - u'lambda(x) + nu (-log pi), in deviations."""
    nx = model.xs.shape[-1]
    cost = add_weighted(model.cost, nu, negative_log_prob(imitated.recentred(model.xs[:-1], model.us)))
    k = multipliers.k + jnp.einsum("tux,tx->tu", multipliers.K, model.xs[:-1])
    H = cost.H.at[:, nx:, :nx].add(-multipliers.K).at[:, :nx, nx:].add(-multipliers.K.mT)
    pull = jnp.einsum("tux,tu->tx", multipliers.K, model.us)
    return dataclasses.replace(cost, H=H, g=cost.g - jnp.concatenate([pull, k], axis=1))
