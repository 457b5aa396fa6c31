"""Episodes of a stateful environment as a function of a seed and actions.

An environment of Gymnasium can not be copied, and its state can not be read. But where it is deterministic, its state
is what has happened: the seed of its reset, and the actions since. Environments that are in use are kept by that. A
step that follows on the last one finds its environment there; any other one, such as the first after a run is resumed,
takes one anew and repeats the episode so far.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np
from jaxtyping import Float, UInt32

from gps.tasks.external.spaces import Actions, Observations

Moment = tuple[Float[np.ndarray, " no"], float, bool, bool]  # observation, reward, terminated, truncated


class ReplayError(Exception):
    """A replay came to something else than the episode did; the message says at which step."""


class Replays:
    """Episodes of one environment; no two threads may ask at once.

    Args:
        make: makes an environment.
        observations: its observation space.
        actions: its action space.
        horizon: most steps of an episode.
    """

    def __init__(self, make: Callable[[], Any], observations: Observations, actions: Actions, horizon: int):
        self._make, self._horizon = make, horizon
        self._observations, self._actions = observations, actions
        self._kept: dict[bytes, Any] = {}  # environments by what has happened in them; first the one unused for longest
        self._idle: list[Any] = []
        self._room = 1

    def difference(self, steps: int) -> int | None:
        """The first step of an episode at which the same seed and actions lead elsewhere, 0 for its reset.

        They do in another environment, or in the same after a reset; None where they do not.

        Args:
            steps: that are tried, by random actions.

        Errors:
            ValueError where `make` does not make a new one each time; whatever the environment raises.
        """
        env, another = self._make(), self._make()
        if env is another:
            raise ValueError("the same environment was made twice, and each episode needs one of its own")
        first = self._tried(env, steps)
        for others in (self._tried(another, steps), self._tried(env, steps)):
            for step, (one, other) in enumerate(zip_longest(first, others)):
                if one != other:
                    return step
        self._idle += [env, another]
        return None

    def _tried(self, env: Any, steps: int) -> list[tuple]:
        """What is seen, paid and ended in an episode."""
        random, space = np.random.default_rng(0), self._actions.space
        observation, _ = env.reset(seed=0)
        moments: list[tuple] = [(self._observations.read(observation).tobytes(),)]
        for _ in range(steps):
            number = random.integers(space.size) if space.discrete else random.uniform(-1.0, 1.0, space.size)
            bits = np.atleast_1d(number).astype(np.int32 if space.discrete else np.float32).view(np.uint32)
            observation, *ends = self._step(env, bits)
            moments.append((observation.tobytes(), *ends))
            if ends[1] or ends[2]:
                break
        return moments

    def expect(self, episodes: int) -> None:
        """Keep so many environments at the same time, with room for as many in two more programs.

        A run has those of its training, and an evaluation's episodes by most likely and by drawn actions.
        """
        self._room = max(self._room, 3 * episodes)

    def begin(self, seed: int) -> Float[np.ndarray, " no"]:
        """The first observation of the episode of a seed."""
        return self._reset(_key(seed, np.zeros(0, np.uint32)), seed)[1]

    def go_on(
        self, seed: int, past: UInt32[np.ndarray, "t na"], action: UInt32[np.ndarray, " na"], seen: np.ndarray
    ) -> Moment:
        """What an action leads to.

        Args:
            past: the bits of the actions so far; `action` those of the one to take.
            seen: the last observation.

        Errors:
            ReplayError where the episode has to be repeated and comes to another observation; whatever the environment
            raises.
        """
        before = _key(seed, past)
        env = self._kept.pop(before, None)
        if env is None:
            env = self._repeat(seed, past, seen)
        moment = self._step(env, action)
        if moment[2] or moment[3] or len(past) + 1 == self._horizon:
            self._idle.append(env)
        else:
            self._keep(before + action.tobytes(), env)
        return moment

    def _repeat(self, seed: int, past: UInt32[np.ndarray, "t na"], seen: np.ndarray) -> Any:
        """An environment in which this has happened."""
        start = _key(seed, past[:0])
        env, observation = self._reset(start, seed)
        del self._kept[start]
        for action in past:
            observation = self._step(env, action)[0]
        if observation.tobytes() != seen.tobytes():
            raise ReplayError(
                f"{len(past)} actions repeated from seed {seed} came to another observation than before: it is not "
                "deterministic, or another version of it than the run began with"
            )
        return env

    def _reset(self, key: bytes, seed: int) -> tuple[Any, Float[np.ndarray, " no"]]:
        env = self._kept.pop(key, None) or self._free()
        observation, _ = env.reset(seed=seed)
        self._keep(key, env)
        return env, self._observations.read(observation)

    def _step(self, env: Any, action: UInt32[np.ndarray, " na"]) -> Moment:
        kind = np.int32 if self._actions.space.discrete else np.float32
        observation, reward, terminated, truncated, _ = env.step(self._actions.write(action.view(kind)))
        return self._observations.read(observation), float(reward), bool(terminated), bool(truncated)

    def _free(self) -> Any:
        """An environment that no episode needs; the one unused for longest, where there are enough."""
        if self._idle:
            return self._idle.pop()
        if len(self._kept) < self._room:
            return self._make()
        return self._kept.pop(next(iter(self._kept)))

    def _keep(self, key: bytes, env: Any) -> None:
        """The same twice, as two equal members of a batch make it, is kept once."""
        if other := self._kept.pop(key, None):
            self._idle.append(other)
        self._kept[key] = env


def _key(seed: int, past: UInt32[np.ndarray, "t na"]) -> bytes:
    return seed.to_bytes(4, "little") + past.tobytes()
