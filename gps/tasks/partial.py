"""Any environment as a partially observed one: some entries of the observation hidden, noise on the others."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gps.tasks.images import image_shape
from gps.tasks.task import Environment, State, require_working


class Partial:
    """An `Environment` whose learner sees only some entries of another's observation, and these with noise.

    "state" is obs["state"][visible] + sigma e with e ~ N(0, I) drawn anew at each step, the reset among them.
    "privileged_state", for the guider alone, is the other environment's own where it has one, else its whole
    clean observation. All else is the other environment's. It stays within reach as `environment`.

    Args:
        environment: the one to observe in part.
        visible: which entries of its obs["state"] the learner sees, in the order that it sees them.
        sigma: standard deviation of the noise, in the units of the observation.

    Errors:
        ValueError for no visible entries, one that is out of range or named twice, and a sigma that is negative
        or not finite.

    Source:
        Li, Xie and Lu, "Guided Policy Optimization under Partial Observability", ICLR 2026: there the velocities
        are hidden and sigma is 0, 0.1, 0.2 or 0.3.
    """

    def __init__(self, environment: Environment, visible: tuple[int, ...], sigma: float):
        _check(environment, visible, sigma)
        self.environment = environment
        self.visible = tuple(visible)
        self.sigma = sigma
        self.name = environment.name
        self.actions = environment.actions
        self.horizon = environment.horizon
        self.calls_host = environment.calls_host
        self.observation_size = len(self.visible)
        self.privileged_size = environment.privileged_size or environment.observation_size

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode of the environment."""
        start, noise, rest = jax.random.split(key, 3)
        return self._seen(self.environment.reset(start), noise, rest)

    def step(self, state: State, action: Array) -> State:
        """Act in the environment for one step."""
        noise, rest = jax.random.split(state.data["key"])
        return self._seen(self.environment.step(state.data["whole"], action), noise, rest)

    def require_working(self) -> None:
        """See `gps.tasks.task.require_working`."""
        require_working(self.environment)

    def _seen(self, whole: State, noise: PRNGKeyArray, rest: PRNGKeyArray) -> State:
        clean: Float[Array, " no"] = whole.obs["state"]
        seen = clean[jnp.asarray(self.visible)]
        seen = seen + self.sigma * jax.random.normal(noise, seen.shape, seen.dtype)
        obs = {"state": seen, "privileged_state": whole.obs.get("privileged_state", clean)}
        return State({"whole": whole, "key": rest}, obs, whole.reward, whole.done, whole.metrics, whole.info)


def _check(environment: Environment, visible: tuple[int, ...], sigma: float) -> None:
    size, whose = environment.observation_size, f"'{environment.name}'"
    if image_shape(environment):
        raise ValueError(f"the learner of {whose} sees images: there is no part of its observation to be shown")
    if not visible:
        raise ValueError(f"visible must name at least one of the {size} entries of the observation of {whose}")
    beyond = [i for i in visible if not 0 <= i < size]
    if beyond:
        raise ValueError(f"visible entries of the observation of {whose} must be from 0 to {size - 1}, not {beyond}")
    twice = sorted({i for i in visible if visible.count(i) > 1})
    if twice:
        raise ValueError(f"visible must name each entry of the observation of {whose} once; more than once: {twice}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be finite and at least 0, not {sigma}")
