"""For tests of what is collected and learned: an environment whose every number tells what happened, and advantages."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gps.tasks.task import ActionSpace, State

ENDS = ("terminated", "truncated", "diverged")  # by `data["end"]`


class Clock:
    """Episodes of 1 to `horizon` steps that end in one of the ways of `ends`, both drawn at the start.

    The learner sees (t, a number drawn anew at each step), the guider also (length, end). Of an episode that diverges,
    the last reward, or with how = "dark" the last observation, is NaN; with "told" the environment sees to it and says
    so in its metrics, as those of `gps.tasks.external.adapter` do. The reward is the action's first number plus t.
    """

    actions = ActionSpace(2)
    observation_size, privileged_size = 2, 2
    calls_host = False

    def __init__(self, horizon: int = 3, ends: tuple[int, ...] = (0, 1), how: str = "", name: str = "clock"):
        self.horizon, self.ends, self.how, self.name = horizon, ends, how, name

    def reset(self, key):
        length, end, drawing, rest = jax.random.split(key, 4)
        data = {
            "t": jnp.zeros((), jnp.int32),
            "length": jax.random.randint(length, (), 1, self.horizon + 1),
            "end": jnp.asarray(self.ends)[jax.random.randint(end, (), 0, len(self.ends))],
            "number": jax.random.uniform(drawing),
            "key": rest,
        }
        zero = jnp.zeros(())
        return State(data, self._obs(data), zero, zero, {"t": zero, "diverged": zero}, {"truncation": zero})

    def step(self, state, action):
        drawing, rest = jax.random.split(state.data["key"])
        t = state.data["t"] + 1
        data = {**state.data, "t": t, "number": jax.random.uniform(drawing), "key": rest}
        over = t >= data["length"]
        lost = over & (data["end"] == 2)
        reward = action[0] + t
        told = self.how == "told"
        reward = reward if self.how == "dark" else jnp.where(lost, 0.0 if told else jnp.nan, reward)
        obs = self._obs(data)
        obs = {**obs, "state": jnp.where(lost & (self.how == "dark"), jnp.nan, obs["state"])}
        done = (over & (told | (data["end"] != 2))).astype(float)  # one that diverges does not know it
        cut = (over & (data["end"] == 1)).astype(float)
        metrics = {"t": t.astype(float), "diverged": (lost & told).astype(float)}
        return State(data, obs, reward, done, metrics, {"truncation": cut})

    def _obs(self, data):
        seen = jnp.stack([data["t"].astype(float), data["number"]])
        return {"state": seen, "privileged_state": jnp.stack([data["length"], data["end"]]).astype(float)}


class Found(Clock):
    """A clock that tells what is new, every second step, and a success, of episodes that end by themselves."""

    def reset(self, key):
        return self._told(super().reset(key))

    def step(self, state, action):
        return self._told(super().step(state, action))

    def _told(self, state):
        told = {"novel": state.data["t"] % 2.0, "success": state.done * (state.data["end"] == 0)}
        return dataclasses.replace(state, metrics={**state.metrics, **told})


class Watched(Clock):
    """A clock with a camera, whose 6 x 6 pixels all show the number that was drawn; `looks` counts the images made."""

    image_shape = (6, 6, 1)
    observation_size = 2 + 36

    def __init__(self, name: str = "watched"):
        super().__init__(name=name)
        self.looks = 0

    def look(self, state):
        jax.debug.callback(self._count, state.data["number"])  # for each of a batch
        return jnp.full(self.image_shape, state.data["number"])

    def _count(self, _):
        self.looks += 1


def advantages_by_sums(rewards, values, finals, done, truncated, discount, trace):
    """Each advantage as its own discounted sum of one-step errors, up to the end of its episode."""
    L, count = rewards.shape
    result = np.zeros((L, count))
    for n in range(count):
        for t in range(L):
            weight = 1.0
            for k in range(t, L):
                if done[k, n]:
                    after = finals[k, n] if truncated[k, n] else 0.0
                else:
                    after = finals[k, n] if k == L - 1 else values[k + 1, n]
                result[t, n] += weight * (rewards[k, n] + discount * after - values[k, n])
                weight *= discount * trace
                if done[k, n]:
                    break
    return result
