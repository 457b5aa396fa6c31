"""Epochs of gradient steps on the terms of a method's objective."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int

from gps.guiders.guider import Metrics
from gps.guiders.model_free.batch import Batch, sequences_of
from gps.guiders.model_free.losses import Objective
from gps.guiders.model_free.networks import Parameters
from gps.guiders.model_free.plan import ALIGN, Terms
from gps.guiders.model_free.settings import PenaltySettings, PpoSettings, SittSettings
from gps.guiders.model_free.state import ModelFreeState
from gps.pytrees import select


@dataclass(frozen=True)
class Minimiser:
    """Adam on the parameters of all networks that a loss trains, as one vector: it compiles and runs faster.

    Each network's gradient is clipped by its own norm. A step is left out where its gradient, or the parameters
    that it would leave, are not finite.
    """

    objective: Objective

    def start(self, params: Parameters, losses: tuple[Terms, ...]) -> dict[str, optax.OptState]:
        """The optimiser's state before the first step, for each loss (no network is trained by two of them)."""
        return {_name(terms): self._adam(terms).init(ravel_pytree(self._trained(params, terms))[0]) for terms in losses}

    def run(
        self, terms: Terms, batch: Batch, start: ModelFreeState, orders: Int[Array, "E K S"]
    ) -> tuple[ModelFreeState, Metrics]:
        """E epochs of K gradient steps on the terms.

        Args:
            orders: which of the batch's sequences each step takes.
        """
        vector, tree = ravel_pytree(self._trained(start.params, terms))
        sizes = [ravel_pytree(own)[0].size for own in self._trained(start.params, terms).values()]
        names: list[str] = []  # of the numbers in the log

        def step(carry, chosen):
            vector, optimizer_state, alpha = carry
            part = sequences_of(batch, chosen, self.objective.settings.ppo.environments)
            loss = lambda vector: self.objective.total(start.params | tree(vector), part, alpha, terms)  # noqa: E731
            gradient, log = jax.grad(loss, has_aux=True)(vector)
            gradient, norm = self._clipped(gradient, sizes)
            change, moved = self._adam(terms).update(gradient, optimizer_state)
            # a sum is finite only where all its terms are; a clipped gradient leaves the optimiser's state finite
            sound = jnp.isfinite(norm + (vector + change).sum())
            vector, optimizer_state = select(sound, (vector + change, moved), (vector, optimizer_state))
            log |= {"failed_updates": 1.0 - sound}
            names[:] = log
            return (vector, optimizer_state, alpha), jnp.stack(list(log.values()))

        def epoch(carry, order):
            (vector, optimizer_state, alpha), log = jax.lax.scan(step, carry, order)
            if self.objective.penalised:
                distance = log[:, names.index("kl_to_learner")].mean()
                alpha = adapted(self.objective.settings.penalty, alpha, distance)
            return (vector, optimizer_state, alpha), log

        own = start.optimizer_state[_name(terms)]
        (vector, own, alpha), log = jax.lax.scan(epoch, (vector, own, start.alpha), orders)
        metrics = dict(zip(names, log.mean((0, 1)), strict=True))
        metrics["failed_updates"] *= orders.shape[0] * orders.shape[1]
        state = start.optimizer_state | {_name(terms): own}
        return dataclasses.replace(
            start, params=start.params | tree(vector), optimizer_state=state, alpha=alpha
        ), metrics

    def table(self, terms: Terms) -> PpoSettings | SittSettings:
        """The settings with epochs, minibatches and learning rate of a loss."""
        settings = self.objective.settings
        return settings.sitt if terms == ALIGN else settings.ppo

    def _adam(self, terms: Terms) -> optax.GradientTransformation:
        return optax.adam(self.table(terms).learning_rate, eps=1e-5)

    def _trained(self, params: Parameters, terms: Terms) -> Parameters:
        return {name: params[name] for name in self.objective.networks.trained_by(terms)}

    def _clipped(self, gradient: Array, sizes: list[int]) -> tuple[Array, Array]:
        """The gradient with each network's part cut to the largest norm; and the sum of these norms."""
        gradient = jax.lax.optimization_barrier(gradient)  # else XLA puts it together anew for each use
        norms = jnp.stack([jnp.linalg.norm(part) for part in jnp.split(gradient, np.cumsum(sizes)[:-1])])
        scales = jnp.minimum(1.0, self.objective.settings.ppo.gradient_norm / norms)
        return gradient * scales[np.repeat(np.arange(len(sizes)), sizes)], norms.sum()


def _name(terms: Terms) -> str:
    return "+".join(terms)


def adapted(penalty: PenaltySettings, alpha: Array, distance: Array) -> Array:
    """The weight alpha of GPO-penalty after an epoch with that mean distance, in nats."""
    up, down = distance > 1.2 * penalty.target, distance < penalty.target / 1.2
    factor = jnp.where(up, jnp.full((), 1.2), jnp.where(down, jnp.full((), 1 / 1.2), jnp.ones(())))
    awake = jnp.where(distance > penalty.target, jnp.full((), penalty.start), alpha)
    return jnp.minimum(jnp.where(alpha < 1e-5, awake, factor * alpha), penalty.largest)
