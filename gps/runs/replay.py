"""Episodes to look at: of the learner, and of the guider, be it controllers or a policy that sees more.

An evaluation is one program with the simulator in it. Where that calls the C engine back, JAX's cache can not keep the
program, and compiling it takes seconds each time. Here acting is a program of its own, which the cache keeps, and the
steps of an episode are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.types import LinearGaussian
from gps.tasks import episodes
from gps.tasks.control_task import ControlTask
from policies.policy import Policy

Played = tuple[Float[np.ndarray, "C T+1 nstate"], Float[np.ndarray, "C T nu"]]  # physics states, and actions as applied


def policy_acts(
    task: ControlTask, policy: Policy, contexts: Float[np.ndarray, "C nc"], key: PRNGKeyArray, privileged: bool = False
) -> Played:
    """The same episodes as those of `gps.runs.evaluate.evaluate` without noise, but for rounding.

    Args:
        privileged: it is the policy of a model-free guider; see `gps.tasks.episodes.act`.
    """

    @jax.jit
    def begin(policy, contexts, keys):
        return jax.vmap(lambda context, key: episodes.begin(task, policy, context, key))(contexts, keys)

    @jax.jit
    def act(policy, contexts, noise, memory, t, states):
        def one(context, noise, memory, state):
            now = jax.tree.map(lambda values: values[t], noise)
            return episodes.act(task, policy, context, privileged)(memory, t, state, now)

        return jax.vmap(one)(contexts, noise, memory, states)

    states, noise, memory = begin(policy, contexts, jax.random.split(key, len(contexts)))
    return _played(task, lambda *now: act(policy, contexts, noise, *now), memory, states)


def controllers_act(task: ControlTask, controllers: LinearGaussian, starts: Float[np.ndarray, "M nstate"]) -> Played:
    """The means of the controllers (leading M), each from its start."""

    @jax.jit
    def act(controllers, t, states):
        return jax.vmap(lambda controller, state: controller.act(t, task.control_state(state)))(controllers, states)

    return _played(task, lambda memory, t, states: (memory, act(controllers, t, states)), None, starts)


def _played(task: ControlTask, act: Callable[..., tuple[Any, Array]], memory: Any, starts: Any) -> Played:
    """Let `act(memory, t, states) -> (memory, actions)` act in a batch of episodes."""

    @jax.jit
    def step(states, actions):
        applied = jax.vmap(task.simulator.clip)(actions)
        return jax.vmap(task.simulator.step)(states, applied), applied

    states, us = [starts], []
    for t in range(task.horizon):
        memory, actions = act(memory, t, states[-1])
        following, applied = step(states[-1], actions)
        states.append(following)
        us.append(applied)
    # by numpy: of jax's own stacks each size would be compiled
    return np.stack([np.asarray(one) for one in states], 1), np.stack([np.asarray(one) for one in us], 1)
