"""The learner on a plant: it acts here, step by step, on what the plant reports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dynamics.plant import Beginning, Episode, Plant
from gps.tasks import episodes
from gps.tasks.control_task import ControlTask
from policies.policy import Policy


class LearnerOnPlant:
    """Runs episodes of a task's learner on a plant; compiles one step, once.

    Where the plant senses nothing for the learner, `ControlTask.observe` makes its frames of the reported states.
    """

    def __init__(self, task: ControlTask, plant: Plant):
        self.task, self.plant = task, plant
        self.dtype = task.train_contexts.dtype
        self._step = jax.jit(self._answer)

    def run(self, policy: Policy, beginning: Beginning, noise: Mapping[str, np.ndarray]) -> tuple[Episode, float]:
        """An episode, and the longest time that an action took here, in seconds.

        Args:
            noise: as in `gps.tasks.episodes.act`, with a leading T.

        Errors:
            PlantError where the plant stops, is lost, or does what it must not.
        """
        memory, longest = episodes.start_acting(self.task, policy), 0.0

        def answer(t: int, x: np.ndarray, frame: np.ndarray) -> tuple[Any, np.ndarray]:
            seen = x.astype(self.dtype), frame.astype(self.dtype), beginning.context
            return jax.block_until_ready(
                self._step(policy, memory, t, *seen, {name: rows[t] for name, rows in noise.items()})
            )

        def act(t: int, x: np.ndarray, frame: np.ndarray) -> np.ndarray:
            nonlocal memory, longest
            began = time.perf_counter()
            memory, action = answer(t, x, frame)
            longest = max(longest, time.perf_counter() - began)
            return np.asarray(action)

        answer(0, beginning.start, np.zeros(self.plant.frame_size))  # compiled before anything moves
        return self.plant.obey(beginning, len(noise["action"]), act), longest

    def _answer(self, policy, memory, t, x, frame, context, noise):
        frame = frame if frame.size else self.task.observe(x, context, noise["frame"])
        memory, action = episodes.answer(policy, memory, t, frame, noise["action"])
        return memory, self.task.simulator.clip(action)
