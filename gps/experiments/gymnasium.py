"""A task of ours as a Gymnasium environment, for code that takes those: `gymnasium_env("reacher")`.

Once this module is imported, Gymnasium knows all tasks of `gps list`: `gymnasium.make("gps/reacher", horizon=100)`.

It sees and is rewarded as the learner is; what only a guider sees stands in `info["privileged_state"]`. Gymnasium comes
with the extra of that name.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from gps.experiments.experiment import Experiment
from gps.experiments.lookup import TASKS
from gps.tasks.images import with_images
from gps.tasks.task import Environment, diverged, require_working


class GymnasiumEnv(gymnasium.Env[np.ndarray, Any]):
    """One episode at a time, terminated where the task says so, truncated at the time limit.

    An episode whose simulation diverges is truncated too; its last step repeats the observation and reward before.
    """

    def __init__(self, task: Environment):
        self.task = task
        self.observation_space = spaces.Box(-np.inf, np.inf, (task.observation_size,), np.float32)
        n = task.actions.size
        self.action_space = spaces.Discrete(n) if task.actions.discrete else spaces.Box(-1.0, 1.0, (n,), np.float32)
        self._state: Any = None

        whole = with_images(task)

        def step(state, action):
            following = whole.step(state, action)
            return following, diverged(following)

        self._reset, self._step = jax.jit(whole.reset), jax.jit(step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode in a training condition drawn at random."""
        super().reset(seed=seed, options=options)
        self._state = self._reset(jax.random.key(int(self.np_random.integers(2**32))))
        require_working(self.task)
        return self._seen()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Act once.

        Errors:
            RuntimeError before `reset`; TaskError where an environment on the host fails, as in `reset`.
        """
        if self._state is None:
            raise RuntimeError(f"{self.task.name}: reset comes before the first step")
        discrete = self.task.actions.discrete
        state, lost = self._step(self._state, np.asarray(action, np.int32 if discrete else np.float32))
        if not lost:
            self._state = state
        require_working(self.task)
        observation, info = self._seen()
        truncated = bool(lost) or bool(state.info.get("truncation", 0.0))
        return observation, float(self._state.reward), bool(state.done) and not truncated, truncated, info

    def _seen(self) -> tuple[np.ndarray, dict[str, Any]]:
        obs = {name: np.asarray(value, np.float32) for name, value in self._state.obs.items()}
        return obs.pop("state"), obs


def gymnasium_env(name: str, **settings: Any) -> GymnasiumEnv:
    """A task by its name in `gps list`, or "module:ENTRY".

    Args:
        settings: of the task, such as `horizon=100`.

    Errors:
        SettingsError as in `gps train`.
    """
    return GymnasiumEnv(Experiment.resolve({"run": {"task": name, "guider": "ppo"}, "task": settings}).build_task())


for _name in TASKS:
    gymnasium.register(f"gps/{_name}", gymnasium_env, kwargs={"name": _name})
