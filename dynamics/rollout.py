"""Roll-outs: conditions x samples x horizon in one call, and the noise that explores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dynamics.simulator import Simulator, finite

# act(memory, t, state, noise) -> (memory, action); memory is whatever the actor carries from step to step,
# noise whatever random numbers it is given at each step
Actor = Callable[[Any, Array, Array, Any], tuple[Any, Array]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trajectory:
    """What happened in one roll-out, or in a batch of them."""

    states: Float[Array, "*batch T+1 nstate"]  # physics states
    actions: Float[Array, "*batch T nu"]  # as applied: clipped to the control range
    sound: Bool[Array, " *batch"]  # the simulation did not diverge
    memory: Any  # what the actor carried at the end


def rollout(
    simulator: Simulator,
    act: Actor,
    start: Float[Array, " nstate"],
    noise: Any,
    memory: Any = None,
) -> Trajectory:
    """Let an actor act for T steps from one start state; `vmap` it over samples and conditions.

    Args:
        simulator: the engine.
        act: chooses an action from (memory, t, physics state, noise[t]).
        start: physics state.
        noise: array or pytree of arrays with a leading T: what the actor is given at each step.
        memory: what the actor starts with, for actors that remember.
    """

    def step(carry, inputs):
        state, memory = carry
        t, noise = inputs
        memory, action = act(memory, t, state, noise)
        # what is recorded is what was applied: a model fitted to anything else would find torque without effect
        action = simulator.clip(action)
        following = simulator.step(state, action)
        return (following, memory), (following, action)

    times = jnp.arange(len(jax.tree.leaves(noise)[0]))
    (_, memory), (states, actions) = jax.lax.scan(step, (start, memory), (times, noise))
    states = jnp.concatenate([start[None], states])
    sound = finite(states).all() & jnp.isfinite(actions).all()
    return Trajectory(states, actions, sound, memory)


def exploration_noise(key: PRNGKeyArray, T: int, nu: int, smoothing: float = 0.0) -> Float[Array, "T nu"]:
    """Standard normal noise over a horizon; correlated in time where `smoothing` is positive.

    Args:
        smoothing: standard deviation of the Gaussian filter over time, in steps; 0 gives white noise.
            Every entry keeps variance one, at the ends of the horizon too.
    """
    if smoothing <= 0.0:
        return jax.random.normal(key, (T, nu))
    reach = int(3 * smoothing) + 1
    taps = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / smoothing) ** 2)
    taps = taps / jnp.sqrt((taps**2).sum())
    white = jax.random.normal(key, (T + 2 * reach, nu))
    return jax.vmap(lambda w: jnp.convolve(w, taps, mode="valid"), in_axes=1, out_axes=1)(white)
