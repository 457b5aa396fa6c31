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

from controllers import trust_region
from controllers.kl import add_weighted, kl_per_step, negative_log_prob
from controllers.marginals import expected_cost, propagate
from controllers.types import Gaussian, LinearGaussian, QuadraticCost
from gps.guider import Metrics
from gps.guiders import samples as sampling
from gps.guiders.badmm_types import BadmmSettings, BadmmState, Multipliers, Problem
from gps.guiders.samples import LocalModel, Samples
from gps.learner import Learner, start_learner
from gps.tasks.task import ControlTask
from gps.trees import all_finite, select
from policies import linear_fit, supervise
from policies.mlp import GaussianPolicy


class Badmm:
    """See `gps.guider.Guider` and the top of this file."""

    name = "badmm"

    def __init__(self, task: ControlTask, settings: BadmmSettings):
        self.task = task
        self.settings = settings
        self.rounds = settings.rounds
        self.steps_per_iteration = len(task.train_contexts) * settings.samples * task.horizon
        differentiable = task.history == 1 and task.noise_size == 0
        if settings.linearization == "differentiation" and not differentiable:
            raise ValueError(
                "linearization = 'differentiation' needs an observation that is a function of the state alone, but "
                f"{task.name} stacks {task.history} frames with {task.noise_size} noise inputs; use 'regression'"
            )
        self._differentiate = differentiable and settings.linearization != "regression"

    def init(self, key: PRNGKeyArray) -> BadmmState:
        """Controllers that explore around zero torque, and an untrained learner."""
        task, s = self.task, self.settings
        M, T, nx, nu = len(task.train_contexts), task.horizon, task.nx, task.nu
        chol = jnp.broadcast_to(s.start_std * jnp.eye(nu), (M, T, nu, nu))
        controllers = LinearGaussian(jnp.zeros((M, T, nu, nx)), jnp.zeros((M, T, nu)), chol)
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

    def prepare(self, state: BadmmState, samples: Samples) -> tuple[BadmmState, Problem, Metrics]:
        """Fit local models and adapt the step size by how well the last improvement was predicted."""
        s = self.settings
        models = sampling.fit_local_models(self.task, samples, s.prior_strength, s.regularization, s.hessian)
        policy = state.learner.policy
        observations = samples.observations.reshape(-1, samples.observations.shape[-1])
        weights = jnp.repeat(samples.weights.reshape(-1), self.task.horizon)
        policy = policy.renormalized(policy.normalizer.update(observations, weights))
        state = dataclasses.replace(state, learner=dataclasses.replace(state.learner, policy=policy))

        by_learner = self._by_learner(state)
        imitated = self._linearized(state, samples)
        old = select(by_learner, imitated, state.controllers)
        actual = _objective(models, old)
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
            "controllers_distance": sampling.distance(self.task, samples),
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
        options = trust_region.Options(tolerance=s.kl_tolerance, eta_min=1e-6, eta_max=1e8)

        def one(model, old, imitated, multipliers, nu, eta, limit):
            cost = _augmented(model, imitated, multipliers, nu)
            reference = old.recentred(model.xs[:-1], model.us)
            solution = trust_region.solve(
                model.dynamics, cost, reference, limit, model.initial, entropy_weight=nu, eta=eta, options=options
            )
            new = solution.controller.recentred(-model.xs[:-1], -model.us)
            return new, solution

        new, solution = jax.vmap(one)(
            problem.models, problem.old, state.imitated, state.multipliers, state.nu, state.eta, limit
        )
        found = (solution.status != trust_region.Status.UNREACHABLE) & (
            solution.status != trust_region.Status.INDEFINITE
        )
        found = found & (solution.kl > 0.0) & all_finite(new)
        usable = found & problem.trusted
        new = select(usable, self._with_noise_floor(new), state.controllers)
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
        samples, policy = problem.samples, state.learner.policy
        targets, precisions = self._targets(state, samples)
        weights = jnp.broadcast_to(samples.weights[..., None] * state.nu[:, None], targets.shape[:-1])
        nu_size = self.task.nu
        batch = supervise.Targets(
            observations=samples.observations.reshape(-1, samples.observations.shape[-1]),
            actions=targets.reshape(-1, nu_size),
            precisions=jnp.broadcast_to(precisions[:, None], (*targets.shape, nu_size)).reshape(-1, nu_size, nu_size),
            weights=weights.reshape(-1),
        )
        training = self.settings.learner.training
        trained, memory, loss = supervise.fit(policy, state.learner.memory, batch, key, training)
        # the inverse of the mean precision minimises the nu-weighted KL(pi || p) over a constant covariance
        mean_precision = jnp.einsum("p,pij->ij", batch.weights, batch.precisions) / jnp.maximum(
            batch.weights.sum(), 1e-20
        )
        std = jnp.clip(jnp.diagonal(mean_precision) ** -0.5, self.settings.learner.std_floor, 10.0)
        trained = dataclasses.replace(trained, std=std)
        sound = jnp.isfinite(loss) & all_finite(trained, batched=False)
        learner = select(sound, Learner(trained, memory), state.learner)
        error = learner.policy.mean(batch.observations) - batch.actions
        squared = (error**2).sum(-1) * batch.weights
        metrics = {
            "learner_loss": loss,
            "learner_error": jnp.sqrt(squared.sum() / jnp.maximum(batch.weights.sum(), 1e-20)),
            "learner_std": std.mean(),
            "failed_fits": 1 - sound.astype(jnp.int32),
        }
        return dataclasses.replace(state, learner=learner), metrics

    def pull_back(self, state: BadmmState, problem: Problem, last: Array) -> tuple[BadmmState, Metrics]:
        """Dual step on lambda, and in the last round on nu."""
        s = self.settings
        imitated = self._linearized(state, problem.samples)

        def one(model, controller, imitated, multipliers, nu):
            xs, us = model.xs[:-1], model.us
            new, learner = controller.recentred(xs, us), imitated.recentred(xs, us)
            states = _states(model, new)
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
        """For each condition, whether the learner collects this iteration's samples; an untrained one never does."""
        s, i = self.settings, state.iteration
        turn = {"controllers": i < 0, "learner": i > 0, "both": i % s.learner_every == s.learner_every - 1}[s.sampling]
        return jnp.broadcast_to(turn, state.eta.shape)

    def _linearized(self, state: BadmmState, samples: Samples) -> LinearGaussian:
        policy = state.learner.policy
        xs = samples.xs[:, :, :-1]
        if not self._differentiate:
            means = policy.mean(samples.observations)
            std = policy.std
            return jax.vmap(linear_fit.by_regression, in_axes=(0, 0, 0, None))(xs, means, samples.weights, std)

        def one(xs, weights, context):
            def mean(x):
                return policy.mean(self.task.observe(x, context, jnp.zeros(0)))

            return linear_fit.by_differentiation(mean, xs, weights, policy.std)

        return jax.vmap(one)(xs, samples.weights, self.task.train_contexts)

    def _adapt_step(self, step: Array, gained: Array, promised: Array) -> Float[Array, " M"]:
        """step *= |promised| / (2 (promised - gained)): the minimiser of a quadratic model of the error.

        A promise may be negative: what is minimised is the augmented cost, and what is judged is the cost.
        """
        s = self.settings
        shortfall = jnp.maximum(promised - gained, 1e-4 * jnp.abs(promised))
        factor = jnp.clip(jnp.abs(promised) / (2.0 * shortfall), 0.1, 5.0)
        step = jnp.where(jnp.isfinite(factor), step * factor, step)
        return jnp.clip(step, s.kl_step_multiplier_min, s.kl_step_multiplier_max)

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
        return targets, _precision(state.controllers.chol)

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

    def _with_noise_floor(self, controllers: LinearGaussian) -> LinearGaussian:
        """Add std_floor^2 to the covariances: exploration never ends, and no precision is infinite."""
        floor = self.settings.std_floor**2 * jnp.eye(self.task.nu)
        chol = jnp.linalg.cholesky(controllers.chol @ controllers.chol.mT + floor)
        return dataclasses.replace(controllers, chol=chol)


def _augmented(model: LocalModel, imitated: LinearGaussian, multipliers: Multipliers, nu: Array) -> QuadraticCost:
    """cost - u'lambda(x) + nu (-log pi), in deviations."""
    nx = model.xs.shape[-1]
    cost = add_weighted(model.cost, nu, negative_log_prob(imitated.recentred(model.xs[:-1], model.us)))
    k = multipliers.k + jnp.einsum("tux,tx->tu", multipliers.K, model.xs[:-1])
    H = cost.H.at[:, nx:, :nx].add(-multipliers.K).at[:, :nx, nx:].add(-multipliers.K.mT)
    pull = jnp.einsum("tux,tu->tx", multipliers.K, model.us)
    return dataclasses.replace(cost, H=H, g=cost.g - jnp.concatenate([pull, k], axis=1))


def _objective(models: LocalModel, controllers: LinearGaussian) -> Float[Array, " M"]:
    """E[cost] of each controller in its local model: what an improvement promises, or has brought."""

    def one(model, controller):
        centred = controller.recentred(model.xs[:-1], model.us)
        return expected_cost(model.cost, _states(model, centred), centred)

    return jax.vmap(one)(models, controllers)


def _states(model: LocalModel, centred: LinearGaussian) -> Gaussian:
    return propagate(model.dynamics, centred, model.initial)


def _precision(chol: Float[Array, "*b nu nu"]) -> Float[Array, "*b nu nu"]:
    eye = jnp.broadcast_to(jnp.eye(chol.shape[-1]), chol.shape)
    inverse = jax.lax.linalg.triangular_solve(chol, eye, left_side=True, lower=True)
    return inverse.mT @ inverse
