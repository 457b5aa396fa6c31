"""MJX: the same physics in JAX, on the device, and differentiable."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import contextlib
import copy
import io

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float

from dynamics.simulator import clip, control_range, finite, joints_size

with contextlib.redirect_stdout(io.StringIO()):  # it prints that warp is missing, which we do not use
    from mujoco import mjx


class MjxSimulator:
    """A `Simulator` whose step is JAX code: `scan`, `vmap` and `jax.jacfwd` go through it.

    Reverse-mode derivatives work where the constraint solver does not iterate (models without contacts,
    joint limits or friction loss).
    """

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model
        self.substeps = substeps
        clipped = copy.deepcopy(model)
        clipped.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL  # `step` does, with a better derivative
        own = jax.local_devices()[0]  # mjx would take the first of all processes
        self._mjx = mjx.put_model(clipped, own, impl="jax")
        self._data = mjx.make_data(model, own, impl="jax")
        self._low, self._high = map(jnp.asarray, control_range(model))

    def clip(self, action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """See `Simulator.clip`."""
        return clip(action, self._low, self._high)

    def step(self, state: Float[Array, " nstate"], action: Float[Array, " nu"]) -> Float[Array, " nstate"]:
        """See `Simulator.step`."""
        data = self._load(state, self.clip(action))
        data, _ = jax.lax.scan(lambda d, _: (mjx.step(self._mjx, d), None), data, None, length=self.substeps)
        mocap = state[joints_size(self.model) :]
        after = jnp.concatenate([data.time[None], data.qpos, data.qvel, data.act, mocap]).astype(state.dtype)
        # a product, so that derivatives are NaN there too
        return after * jnp.where(finite(after) & finite(state), 1.0, jnp.nan).astype(state.dtype)

    def sensors(self, state: Float[Array, " nstate"]) -> Float[Array, " nsensor"]:
        """See `Simulator.sensors`."""
        values: Array = mjx.forward(self._mjx, self._load(state, jnp.zeros(self.model.nu))).sensordata
        return jnp.where(finite(state), values, jnp.nan)

    def adjusted(self, fields: dict[str, Array]) -> MjxSimulator:
        """The simulator of a model with other values in some of its fields, through which derivatives pass.

        `model` and the constants that MuJoCo derives from the fields, such as invweight0, stay: with changed masses
        constraints are a little softer or harder than those of a model that was compiled with them.
        """
        other = copy.copy(self)
        other._mjx = self._mjx.replace(**fields)
        return other

    def _load(self, state, control):
        nq, nv, nmocap = self.model.nq, self.model.nv, self.model.nmocap
        n = joints_size(self.model)
        time, qpos, qvel, act, mocap = jnp.split(state, [1, 1 + nq, 1 + nq + nv, n])
        places, turns = jnp.split(jax.lax.stop_gradient(mocap), [3 * nmocap])
        poses = {"mocap_pos": places.reshape(nmocap, 3), "mocap_quat": turns.reshape(nmocap, 4)}
        return self._data.replace(time=time[0], qpos=qpos, qvel=qvel, act=act, ctrl=control, **poses)
