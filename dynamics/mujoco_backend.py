"""MuJoCo's C engine: all cores through `mujoco.rollout`, called from jitted code on the whole batch."""

from __future__ import annotations

import copy
import logging
import os

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import rollout

from dynamics.simulator import STATE_LIMIT, control_range

# By default each simulation that blows up writes a line to standard error and to a file in the current folder;
# here such a state becomes NaN, which is counted and reported where it matters.
mujoco.set_mju_user_warning(logging.getLogger(__name__).debug)


class MujocoSimulator:
    """A `Simulator` that runs the C engine in a host callback; no compilation of physics.

    Every `vmap` around `step` adds a batch axis to the one call, so that a whole batch of conditions and
    samples is simulated at once on all cores.
    """

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model = copy.deepcopy(model)
        self.substeps = substeps
        self._nstate = 1 + model.nq + model.nv + model.na
        # a diverged simulation must show, not silently restart from the model's initial state
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = rollout.Rollout(nthread=threads)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._low, self._high = control_range(model)

    def clip(self, action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """See `Simulator.clip`."""
        return jnp.clip(action, self._low, self._high)

    def step(self, state: Float[Array, " nstate"], action: Float[Array, " nu"]) -> Float[Array, " nstate"]:
        """See `Simulator.step`."""
        shape = jax.ShapeDtypeStruct(state.shape, state.dtype)
        return jax.pure_callback(self._advance, shape, state, action, vmap_method="expand_dims")

    def sensors(self, state: Float[Array, " nstate"]) -> Float[Array, " nsensor"]:
        """See `Simulator.sensors`."""
        shape = jax.ShapeDtypeStruct((self.model.nsensordata,), state.dtype)
        return jax.pure_callback(self._sense, shape, state, vmap_method="expand_dims")

    # Inside a callback numpy alone: a jax operation here could wait for the very program that called us.

    def _advance(self, state, action) -> np.ndarray:
        state, action = np.asarray(state), np.asarray(action)
        batch = np.broadcast_shapes(state.shape[:-1], action.shape[:-1])
        states = np.broadcast_to(state, (*batch, state.shape[-1])).reshape(-1, state.shape[-1])
        actions = np.broadcast_to(action, (*batch, action.shape[-1])).reshape(-1, 1, action.shape[-1])
        ended, _, sound = self._simulate(states, actions, self.substeps)
        after = ended[:, -1].astype(state.dtype)
        # where the engine gave up it took fewer steps than it was asked for
        whole = ended[:, -1, 0] - states[:, 0] > (self.substeps - 0.5) * self.model.opt.timestep
        after[~(sound & whole & within_limits(after))] = np.nan
        return after.reshape(*batch, -1)

    def _sense(self, state) -> np.ndarray:
        state = np.asarray(state)
        states = state.reshape(-1, state.shape[-1])
        # sensors are computed before a step moves the state: one step from here shows this state
        _, sensors, sound = self._simulate(states, np.zeros((len(states), 1, self.model.nu)), 1)
        values = sensors[:, 0].astype(state.dtype)
        values[~sound] = np.nan
        return values.reshape(*state.shape[:-1], -1)

    def _simulate(self, states, actions, steps):
        sound = within_limits(states) & np.isfinite(actions).all((-2, -1))
        # the engine sees only sound numbers: it would warn on standard error about each other one
        states = np.where(sound[:, None], states, 0.0).astype(np.float64)
        actions = np.where(sound[:, None, None], actions, 0.0).astype(np.float64).clip(self._low, self._high)
        control = np.repeat(actions, steps, axis=1)
        ended = np.empty((len(states), steps, self._nstate))
        sensors = np.empty((len(states), steps, self.model.nsensordata))
        self._pool.rollout(self.model, self._data, states, control, state=ended, sensordata=sensors)
        return ended, sensors, sound


def within_limits(states: np.ndarray) -> np.ndarray:
    """Row by row: every number is finite and below STATE_LIMIT."""
    return np.asarray((np.abs(states) < STATE_LIMIT).all(-1))
