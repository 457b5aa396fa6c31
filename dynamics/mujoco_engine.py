"""MuJoCo's C engine: all cores through `mujoco.rollout`, called from jitted code on the whole batch."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import rollout

from dynamics.simulator import STATE_LIMIT, clip, control_range, joints_size, require_coordinates, state_size

# By default each simulation that blows up writes a line to standard error and to a file in the current folder;
# here such a state becomes NaN, which is counted and reported where it matters.
mujoco.set_mju_user_warning(logging.getLogger(__name__).debug)

EPSILON = 1e-6  # of finite differences; in double precision a centred one is then good to about 1e-9
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
MOCAP = mujoco.mjtState.mjSTATE_MOCAP_POS.value | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
CONTROL = mujoco.mjtState.mjSTATE_CTRL.value


class MujocoSimulator:
    """A `Simulator` that runs the C engine in a host callback; no compilation of physics.

    Every `vmap` around `step` adds a batch axis to the one call, so that a whole batch of conditions and
    samples is simulated at once on all cores. Derivatives of `step`, forward or reverse, are MuJoCo's finite
    differences (`mjd_transitionFD`), taken in double precision in one more call for the whole batch, however
    many tangents there are. There are no second derivatives.
    """

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model = copy.deepcopy(model)
        self.substeps = substeps
        self._nstate, self._njoints = state_size(model), joints_size(model)
        # a diverged simulation must show, not silently restart from the model's initial state
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = rollout.Rollout(nthread=threads)
        self._workers = ThreadPoolExecutor(threads)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._using_data = threading.Lock()  # two programs may call back at the same time
        self._low, self._high = control_range(model)
        self._limits = np.concatenate([np.full(self._nstate, STATE_LIMIT), np.full(model.nu, np.inf)])
        self._step = jax.custom_jvp(self._advance_row)
        self._step.defjvp(self._differentiate_row)
        self._jacobian = jax.custom_jvp(self._jacobian_row)
        self._jacobian.defjvp(_no_second_derivatives)

    def clip(self, action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """See `Simulator.clip`."""
        return clip(action, self._low, self._high)

    def step(self, state: Float[Array, " nstate"], action: Float[Array, " nu"]) -> Float[Array, " nstate"]:
        """See `Simulator.step`.

        Errors:
            ValueError where it is differentiated and the model has nq != nv or the integrator RK4, and where it
            is differentiated twice.
        """
        # one array: to hand over a second would take a third of the time of a call
        return self._step(jnp.concatenate([state, action])).astype(state.dtype)

    def sensors(self, state: Float[Array, " nstate"]) -> Float[Array, " nsensor"]:
        """See `Simulator.sensors`."""
        row = jnp.concatenate([state, jnp.zeros(self.model.nu, state.dtype)])
        return call_on_host(self._sense, row, (self.model.nsensordata,))

    def require_derivatives(self) -> None:
        """Raise ValueError where `step` has none."""
        require_coordinates(self.model)
        if self.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
            raise ValueError("mjd_transitionFD cannot differentiate the integrator RK4: use Euler or implicitfast")

    def _advance_row(self, row: Float[Array, " nstate+nu"]) -> Float[Array, " nstate"]:
        return call_on_host(self.advance_rows, row, (self._nstate,))

    def _differentiate_row(self, primals, tangents):
        self.require_derivatives()
        (row,), (change,) = primals, tangents
        return self._step(row), jnp.matmul(self._jacobian(row), change, precision="highest")

    def _jacobian_row(self, row: Float[Array, " nstate+nu"]) -> Float[Array, "nstate nstate+nu"]:
        return call_on_host(self.differentiate_rows, row, (self._nstate, row.size))

    # Inside a callback numpy alone: a jax operation here could wait for the very program that called us.
    # A row is (state, action).

    def advance_rows(self, rows: Float[np.ndarray, "P nstate+nu"]) -> Float[np.ndarray, "P nstate"]:
        """`step` on the host, in double precision."""
        doubles, sound = self._sound(rows)
        ended, _ = self._simulate(doubles, self.substeps)
        after = ended[:, -1]
        # where the engine gave up it took fewer steps than it was asked for
        whole = after[:, 0] - doubles[:, 0] > (self.substeps - 0.5) * self.model.opt.timestep
        after = np.concatenate([after, doubles[:, self._njoints : self._nstate]], axis=1)  # mocap bodies stay
        after[~(sound & whole & within_limits(after))] = np.nan
        return after

    def _sense(self, rows) -> np.ndarray:
        doubles, sound = self._sound(rows)
        # sensors are computed before a step moves the state: one step from here shows this state
        values = self._simulate(doubles, 1)[1][:, 0]
        values[~sound] = np.nan
        return values

    def differentiate_rows(self, rows: Float[np.ndarray, "P nstate+nu"]) -> Float[np.ndarray, "P nstate nstate+nu"]:
        """The Jacobians of `step` on the host, in double precision."""
        actions = rows[:, self._nstate :]
        # decided in the caller's precision: a limit of 0.1 rounded to single precision is not beyond 0.1
        beyond = (actions < self._low.astype(rows.dtype)) | (actions > self._high.astype(rows.dtype))
        doubles, sound = self._sound(rows)
        jacobians = np.zeros((len(rows), self._nstate, rows.shape[1]))
        shares = min(len(rows), len(self._data))

        def work(i):
            for row, jacobian in zip(doubles[i::shares], jacobians[i::shares], strict=True):
                self._transition(self._data[i], row, jacobian)

        with self._using_data:
            if shares == 1:
                work(0)
            else:  # the engine lets other threads run while it differentiates
                list(self._workers.map(work, range(shares)))
        jacobians[:, :, self._nstate :] *= ~beyond[:, None]
        jacobians[~sound] = np.nan
        return jacobians

    def _transition(self, data, row, jacobian) -> None:
        """Fill in d(next state) / d(state, action) of one sound row: physics step by physics step."""
        model, n, nu = self.model, self._njoints, self.model.nu
        action = row[self._nstate :]
        mujoco.mj_setState(model, data, row[: self._nstate], PHYSICS.value | MOCAP)
        data.ctrl[:], data.qacc_warmstart[:], data.warning.number[:] = action, 0.0, 0
        A, B = np.empty((n - 1, n - 1)), np.empty((n - 1, nu))
        total = np.eye(n - 1, n - 1 + nu)
        for _ in range(self.substeps):
            mujoco.mjd_transitionFD(model, data, EPSILON, True, A, B, None, None)
            total = A @ total
            total[:, n - 1 :] += B
            mujoco.mj_step(model, data)
        jacobian[0, 0] = 1.0  # of time
        jacobian[1:n, 1:n], jacobian[1:n, self._nstate :] = total[:, : n - 1], total[:, n - 1 :]
        jacobian[n:, n : self._nstate] = np.eye(self._nstate - n)
        after = np.empty(n)
        mujoco.mj_getState(model, data, after, PHYSICS)
        if data.warning.number.any() or not within_limits(after):
            jacobian[:] = np.nan

    def _sound(self, rows) -> tuple[np.ndarray, np.ndarray]:
        """Rows that the engine can digest, in double precision and inside the control range, and which were so."""
        rows = rows.astype(np.float64)
        sound = (np.abs(rows) < self._limits).all(-1)
        rows[~sound] = 0.0  # the engine would warn on standard error about each other one
        actions = rows[:, self._nstate :]
        actions[:] = np.minimum(np.maximum(actions, self._low), self._high)
        return rows, sound

    def _simulate(self, rows, steps) -> tuple[np.ndarray, np.ndarray]:
        model, n = self.model, self._njoints
        mocap, action = rows[:, n : self._nstate], rows[:, self._nstate :]
        control = np.empty((len(rows), steps, rows.shape[1] - n))
        control[:] = np.concatenate([action, mocap], axis=1)[:, None]  # in the order of MuJoCo's state
        ended = np.empty((len(rows), steps, n))
        sensors = np.empty((len(rows), steps, model.nsensordata))
        with self._using_data:
            self._pool.rollout(
                [model] * len(rows),
                self._data,
                np.ascontiguousarray(rows[:, :n]),
                control,
                nstep=steps,
                control_spec=CONTROL | MOCAP,
                state=ended,
                sensordata=sensors,
                skip_checks=True,  # of these arrays; they take longer than a step of one small model
            )
        return ended, sensors


def call_on_host(callback: Callable, row: Array, shape: tuple[int, ...]) -> Array:
    """`callback` of all rows that `vmap` makes of this one, as an array of this shape a row.

    What goes to the host and back are the bits of the numbers: JAX may call back on a thread that is not
    inside the caller's `jax.enable_x64`, and would make single precision of doubles there.
    """
    dtype, bits = row.dtype, jax.lax.bitcast_convert_type(row, jnp.uint32)
    bits_shape = shape + bits.shape[1:]

    def on_host(given):
        batch = given.shape[: given.ndim - bits.ndim]
        rows = np.asarray(given).view(dtype).reshape(-1, row.size)
        return callback(rows).astype(dtype).view(np.uint32).reshape(batch + bits_shape)

    returned = jax.ShapeDtypeStruct(bits_shape, jnp.uint32)
    answer = jax.pure_callback(on_host, returned, bits, vmap_method="expand_dims")
    return jax.lax.bitcast_convert_type(answer, dtype)


def within_limits(states: np.ndarray) -> np.ndarray:
    """Row by row: every number is finite and below STATE_LIMIT."""
    return np.asarray((np.abs(states) < STATE_LIMIT).all(-1))


def _no_second_derivatives(*_):
    raise ValueError('the engine "mujoco" has no second derivatives; the engine "mjx" has')
