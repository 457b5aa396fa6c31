"""Environments of Brax and of MuJoCo Playground, which have the same interface, as an `Environment`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gps.errors import not_installed
from gps.settings import SettingsError
from gps.tasks.external.layouts import Layout
from gps.tasks.task import ActionSpace, State


class External:
    """One foreign environment, without any wrapper of its package: no resets of its own, each action used once.

    The time limit is counted here: at `horizon` steps `done` is 1, and info["truncation"] unless the episode has
    also terminated. An action beyond [-1, 1] is taken at its limit.

    A simulation that diverges ends the episode as a termination with reward 0, an observation of zeros and
    metrics["diverged"] = 1, so that no NaN gets into a batch.

    Args:
        foreign: its `reset(key)` and `step(state, action)` give an object with the fields obs (one flat array),
            reward, done, metrics and info.
        name: the task's.
        horizon: most steps of an episode.
        layout: the observation that the table of velocities is about.

    Errors:
        SettingsError where the observation has another size than the layout says: another version of the package.
    """

    calls_host = False
    privileged_size = 0

    def __init__(self, foreign: Any, name: str, horizon: int, layout: Layout):
        self.foreign = foreign
        self.name = name
        self.horizon = horizon
        self.actions = ActionSpace(int(foreign.action_size))
        self.observation_size = int(jax.eval_shape(foreign.reset, jax.random.key(0)).obs.shape[-1])
        if self.observation_size != layout.size:
            raise SettingsError(
                f"task {name}: the installed package gives an observation of {self.observation_size} numbers and "
                f"not the {layout.size} whose velocities are known"
            )

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode as the foreign environment does."""
        foreign = jax.tree.map(jnp.asarray, self.foreign.reset(key))
        return self._state(foreign, jnp.zeros((), jnp.int32))

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """Act for one of the foreign environment's steps."""
        before = state.data["foreign"]
        # Their steps write into the metrics and info of the state that they are given: rebuild its dicts.
        given = jax.tree.map(lambda x: x, before)
        after = self.foreign.step(given, jnp.clip(action, -1.0, 1.0))
        # What is a Python number, or weakly typed, after a step would be compiled for anew.
        after = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), before, after)
        return self._state(after, state.data["t"] + 1)

    def _state(self, foreign: Any, t: Array) -> State:
        seen: Array = foreign.obs
        reward: Array = foreign.reward
        sound = jnp.isfinite(seen).all() & jnp.isfinite(reward)
        terminated = (foreign.done > 0) | ~sound
        late = t >= self.horizon
        metrics = {key: jnp.asarray(value, jnp.float32) for key, value in foreign.metrics.items()}
        return State(
            data={"foreign": foreign, "t": t},
            obs={"state": jnp.where(sound, seen, 0.0)},
            reward=jnp.where(sound, reward, 0.0),
            done=(terminated | late).astype(jnp.float32),
            metrics=metrics | {"diverged": (~sound).astype(jnp.float32)},
            info={"truncation": (late & ~terminated).astype(jnp.float32)},
        )


def missing(name: str, package: str, extra: str, error: ImportError) -> SettingsError:
    """The error to raise where a task's package is not installed, or what it needs is not."""
    return SettingsError(not_installed(f"task {name}", package, extra, f" ({error})"))
