"""A model-based guider whose samples come from a plant; everything else stays as it is.

What a simulator would be given is given to the plant: the same first states, the same noise. A controller's noise is a
part of the table that is sent, so that the plant has nothing to draw.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.types import LinearGaussian
from dynamics.plant import Beginning, Episode, Plant
from gps.columns import Column, short
from gps.guiders.model_based import samples
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.state import ModelBasedState
from gps.tasks.plant_episodes import LearnerOnPlant


class OnPlant:
    """The guider that it wraps, with `gather` in place of `collect`, which stays the simulator's.

    Args:
        guider: any that has the scaffold.
        plant: where its episodes are run, one after the other, condition by condition.
    """

    def __init__(self, guider: ModelBased, plant: Plant):
        self.guider, self.plant = guider, plant
        unit = guider.task.score.unit
        self.columns = (
            *guider.columns,
            Column("controllers_score", "plant", short, unit),
            Column("plant_seconds", "on plant", ".0f", "s"),
        )
        self._learner = LearnerOnPlant(guider.task, plant)
        self._asked, self._judged = jax.jit(self._ask), jax.jit(self._judge)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guider, name)

    def gather(self, state: ModelBasedState, key: PRNGKeyArray) -> tuple[Samples, dict[str, float]]:
        """The samples of an iteration, and how long they took: `plant_seconds` in all, and `answer_ms`, the longest
        that an action of the learner took, without the way of its message.

        Errors:
            PlantError where the plant stops, is lost, or does what it must not.
        """
        began = time.perf_counter()
        starts, K, k, noise, by_learner = jax.device_get(self._asked(state, key))
        contexts = np.asarray(self.guider.task.train_contexts)
        done, longest = [], 0.0
        for i, n in np.ndindex(*starts.shape[:2]):
            beginning = Beginning(starts[i, n], contexts[i])
            if by_learner[i]:
                own = {name: rows[i, n] for name, rows in noise.items()}
                episode, waited = self._learner.run(state.learner.policy, beginning, own)
                longest = max(longest, waited)
            else:
                episode = self.plant.follow(beginning, K[i], k[i, n])
            done.append(episode)
        collected = self._judged(self._stacked(done, starts.shape[:2]), noise["frame"])
        return collected, {"plant_seconds": time.perf_counter() - began, "answer_ms": 1000 * longest}

    def _ask(self, state: ModelBasedState, key: PRNGKeyArray) -> tuple[Array, Array, Array, dict[str, Array], Array]:
        """First states (M N nx), K (M T nu nx), k with its noise (M N T nu), all noise, and where the learner acts."""
        task, settings = self.guider.task, self.guider.settings.sampling

        def one(controller: LinearGaussian, context, key):
            start, noise = samples.drawn(task, context, key, settings)
            k = controller.k + jnp.einsum("tuv,tv->tu", controller.chol, noise["action"])
            return task.control_state(start), k, noise

        many = jax.vmap(jax.vmap(one, in_axes=(None, None, 0)))
        keys = samples.keys_of(task, key, settings)
        starts, k, noise = many(state.controllers, task.train_contexts, keys)
        return starts, state.controllers.K, k, noise, self.guider.learner_collects(state)

    def _stacked(self, done: list[Episode], shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """xs, us and frames of all episodes, with leading M and N."""
        rows = [(episode.xs, episode.us, episode.frames) for episode in done]
        parts = [np.asarray(part, self._learner.dtype) for part in zip(*rows, strict=True)]
        return tuple(part.reshape(*shape, *part.shape[1:]) for part in parts)

    def _judge(self, rows: tuple[Array, Array, Array], noise: Float[Array, "M N T noise"]) -> Samples:
        task = self.guider.task

        def one(xs, us, frames, noise, context):
            if not frames.size:
                frames = jax.vmap(task.observe, in_axes=(0, None, 0))(xs[:-1], context, noise)
            return samples.judged(task, xs, us, frames, context, jnp.ones((), bool))

        many = jax.vmap(jax.vmap(one, in_axes=(0, 0, 0, 0, None)))
        collected = many(*rows, noise, task.train_contexts)
        return replace(samples.without_diverged(collected, collected.weights), weights=collected.weights)
