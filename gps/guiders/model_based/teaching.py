"""The learner of model-based guiders: how it is seen from the controllers, and how it imitates them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.types import LinearGaussian
from gps.guiders.guider import DivergedError, Metrics
from gps.guiders.learner import start_policy
from gps.guiders.model_based.pretraining import pretrained, require_sight
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import TaughtLearnerSettings
from gps.pytrees import all_finite, select
from gps.tasks.control_task import ControlTask
from gps.tasks.images import image_shape
from policies import linearize, regression
from policies.distributions import Continuous
from policies.network import NetworkPolicy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Learner:
    """The policy and the state of its optimiser."""

    policy: NetworkPolicy
    optimizer_state: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lessons:
    """Where the learner is to imitate the controllers: L episodes of each condition."""

    xs: Float[Array, "M L T nx"]
    observations: Float[Array, "M L T no"]
    weights: Float[Array, "M L"]


@dataclass(frozen=True)
class Teaching:
    """Teaches the learner of one task.

    Errors:
        ValueError where the learner is to be differentiated in the state and is no function of it.
    """

    task: ControlTask
    settings: TaughtLearnerSettings

    def __post_init__(self):
        require_sight(self.task, self.settings)
        why_not, needs = self._not_a_function(), "needs a learner that is a function of the state alone"
        if self.settings.linearization == "differentiation" and why_not:
            raise ValueError(
                f"guider.learner.linearization = 'differentiation' {needs}, but {why_not}; use 'regression'"
            )
        if self.settings.sobolev and why_not:
            raise ValueError(f"guider.learner.sobolev = {self.settings.sobolev} {needs}, but {why_not}; set it to 0")

    def start(self, key: PRNGKeyArray) -> Learner:
        """An untrained learner."""
        policy = start_policy(key, self.task, self.settings.network)
        return Learner(policy, regression.optimizer(self.settings.training).init(policy.params))

    def introduced(
        self, learner: Learner, samples: Samples, iteration: Array, key: PRNGKeyArray
    ) -> tuple[Learner, PRNGKeyArray]:
        """The learner, whose eyes are trained on the first samples if its settings say so, and the rest of the key."""
        settings = self.settings.pretraining
        if not settings.updates:
            return learner, key
        own, key = jax.random.split(key)

        def train():
            return pretrained(learner.policy, self.task, samples, settings, own)

        policy = jax.lax.cond(iteration == 0, train, lambda: learner.policy)
        return dataclasses.replace(learner, policy=policy), key

    def normalized(self, learner: Learner, samples: Samples) -> Learner:
        """The learner with a normaliser that has seen the samples' observations; what it does stays the same."""
        observations = samples.observations.reshape(-1, samples.observations.shape[-1])
        weights = jnp.repeat(samples.weights.reshape(-1), samples.observations.shape[-2])
        policy = learner.policy.renormalized(learner.policy.normalizer.update(observations, weights))
        return dataclasses.replace(learner, policy=policy)

    def linearized(self, policy: NetworkPolicy, samples: Samples) -> LinearGaussian:
        """The learner as a controller around the samples of each condition, in absolute coordinates; leading M."""
        xs = samples.xs[:, :, :-1]
        means, stds = cast(Continuous, policy.distribution).action_moments(policy.along(samples.observations))
        std = jnp.einsum("mn,mntu->mtu", samples.share, stds)
        if self.settings.linearization == "regression" or self._not_a_function():
            return jax.vmap(linearize.by_regression)(xs, means, samples.weights, std)

        def one(xs, weights, std, context):
            def mean(x):
                return policy.mean(self._observe(x, context))

            return linearize.by_differentiation(mean, xs, weights, std)

        return jax.vmap(one)(xs, samples.weights, std, self.task.train_contexts)

    def lessons(self, samples: Samples, key: PRNGKeyArray) -> Lessons:
        """States to imitate in: those of the samples, and with `sobolev` as many around them, drawn anew each time.

        Targets around the samples follow the controllers' feedback, so that to fit them is to fit its gains, in the
        directions and over the distances by which samples of a condition differ at that time step.

        Source:
            Czarnecki et al., "Sobolev Training for Neural Networks", NeurIPS 2017, with differences in random
            directions in place of derivatives.
        """
        xs, weights = samples.xs[:, :, :-1], samples.weights
        if not self.settings.sobolev:
            return Lessons(xs, samples.observations, weights)
        mean = jnp.einsum("mn,mntx->mtx", samples.share, xs)
        squared = jnp.einsum("mn,mntx->tx", weights, (xs - mean[:, None]) ** 2)
        degrees = jnp.maximum(weights.sum() - len(weights), 1.0)
        std = self.settings.sobolev_spread * jnp.sqrt(squared / degrees)
        around = xs + std * jax.random.normal(key, xs.shape, xs.dtype)
        see = jax.vmap(jax.vmap(jax.vmap(self._observe, in_axes=(0, None)), in_axes=(0, None)))
        observations = see(around, self.task.train_contexts)
        pairs = ((xs, around), (samples.observations, observations), (weights, self.settings.sobolev * weights))
        return Lessons(*(jnp.concatenate(pair, axis=1) for pair in pairs))

    def imitate(
        self,
        learner: Learner,
        observations: Float[Array, "M L T no"],
        actions: Float[Array, "M L T nu"],
        precisions: Float[Array, "M L T nu nu"],
        weights: Float[Array, "M L T"],
        key: PRNGKeyArray,
    ) -> tuple[Learner, Metrics]:
        """Regress the learner on actions, weighted by their precision; where that fails it stays what it was.

        Away from its mean trajectory a controller of high gain wants actions far beyond the limits. What it does there
        is the limit, and that is what the learner imitates.
        """
        actions = jnp.clip(actions, -1.0, 1.0)
        targets = regression.Targets(observations, actions, precisions, weights)
        targets = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), targets)  # of all conditions together
        policy, state, loss = regression.fit(
            learner.policy, learner.optimizer_state, targets, key, self.settings.training
        )
        sound = jnp.isfinite(loss) & all_finite((policy, state), batched=False)
        learner = select(sound, Learner(policy, state), learner)
        distribution = cast(Continuous, learner.policy.distribution)
        mean, std = distribution.action_moments(learner.policy.along(targets.observations))
        squared = ((mean - targets.actions) ** 2).sum(-1) * targets.weights
        metrics = {
            "learner_loss": loss,
            "learner_error": jnp.sqrt(squared.sum() / jnp.maximum(targets.weights.sum(), 1e-20)),
            "learner_std": std.mean(),
            "failed_fits": 1 - sound.astype(jnp.int32),
        }
        return learner, metrics

    @staticmethod
    def judge(metrics: Metrics, fits: int) -> None:
        """Raise `DivergedError` where `imitate` has failed in all of an iteration's fits."""
        if metrics["failed_fits"] >= fits:
            raise DivergedError(
                "no fit of the learner in an iteration was finite, and none was taken: lower "
                "guider.learner.training.learning_rate"
            )

    def _observe(self, x: Array, context: Array) -> Float[Array, " no"]:
        """What a learner sees that is a function of the state alone."""
        return self.task.observe(x, context, jnp.zeros(0))

    def _not_a_function(self) -> str:
        """Why the learner's action is no function of the state; "" where it is one."""
        task, memory = self.task, self.settings.network.memory
        if memory:
            return f"guider.learner.network.memory = {memory}"
        if image_shape(task):
            return f"{task.name} shows images, which jump where edges pass pixels"
        if task.history > 1 or task.noise_size:
            return f"{task.name} stacks {task.history} frames with {task.noise_size} noise inputs"
        return ""
