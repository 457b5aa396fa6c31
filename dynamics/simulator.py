"""The simulator contract, and what both engines share; `dynamics.engines` chooses one.

A simulator's state is MuJoCo's full physics state vector (time, qpos, qvel, act), one flat array of `nstate` numbers.
Where the model has mocap bodies, their poses follow at its end: all positions (3 each, m), then all quaternions (4
each). A step leaves them as they are, so that a start state says where such a body stands in that episode. Both engines
read the same MJCF and agree within tolerance.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from typing import Protocol

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

# A state beyond this is a simulation that has diverged; MuJoCo itself only gives up at 1e10.
STATE_LIMIT = 1e6


class Simulator(Protocol):
    """What roll-outs need of an engine. All methods are for one state; `vmap` and `jit` them."""

    model: mujoco.MjModel
    substeps: int  # physics steps per action

    def clip(self, action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """The action that the actuators can apply: inside their control range."""
        ...

    def step(self, state: Float[Array, " nstate"], action: Float[Array, " nu"]) -> Float[Array, " nstate"]:
        """Hold `action` (clipped to the actuators' control range) for `substeps` physics steps.

        A simulation that diverges (not finite, or beyond STATE_LIMIT) returns NaN from there on.

        Differentiable, with nq == nv: exact in MJX, MuJoCo's centred finite differences in the C engine. The
        derivative with respect to an action is zero beyond the control range, and at its ends the slope inside,
        so that a solver with the same limits sees what leaving them would gain. Poses of mocap bodies are constants:
        the derivative of the joints' state with respect to them is set to zero, and their own is the identity.
        """
        ...

    def sensors(self, state: Float[Array, " nstate"]) -> Float[Array, " nsensor"]:
        """MuJoCo's sensor data in this state, with zero controls."""
        ...


def physics_state(
    model: mujoco.MjModel,
    qpos: Float[Array, " nq"],
    qvel: Float[Array, " nv"],
    mocap: tuple[Float[Array, "nmocap 3"], Float[Array, "nmocap 4"]] | None = None,
) -> Float[Array, " nstate"]:
    """The state vector at time zero with the given positions and velocities and resting actuators.

    Args:
        mocap: positions (m) and quaternions of the mocap bodies; the model's own by default.
    """
    places, turns = mocap_poses(model) if mocap is None else mocap
    parts = [jnp.zeros(1), qpos, qvel, jnp.zeros(model.na), jnp.ravel(places), jnp.ravel(turns)]
    return jnp.concatenate([jnp.asarray(part, jnp.result_type(float)) for part in parts])


def joints_size(model: mujoco.MjModel) -> int:
    """Numbers of time, qpos, qvel and act: the state without the poses of mocap bodies."""
    return 1 + model.nq + model.nv + model.na


def state_size(model: mujoco.MjModel) -> int:
    """Numbers of a state."""
    return joints_size(model) + 7 * model.nmocap


def mocap_poses(model: mujoco.MjModel) -> tuple[Float[np.ndarray, "nmocap 3"], Float[np.ndarray, "nmocap 4"]]:
    """Positions (m) and quaternions that the model itself gives its mocap bodies."""
    bodies = np.argsort(np.where(model.body_mocapid < 0, model.nbody, model.body_mocapid))[: model.nmocap]
    return model.body_pos[bodies], model.body_quat[bodies]


def control_range(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest control of each actuator; infinite where it has no limit."""
    limited = model.actuator_ctrllimited.astype(bool)
    low, high = model.actuator_ctrlrange.T
    return np.where(limited, low, -np.inf), np.where(limited, high, np.inf)


def clip(action: Float[Array, "*b nu"], low: Array | np.ndarray, high: Array | np.ndarray) -> Array:
    """`jnp.clip`, whose derivative is a half at the limits, with derivative one there."""
    return jnp.where(action < low, low, jnp.where(action > high, high, action))


def require_coordinates(model: mujoco.MjModel) -> None:
    """Raise ValueError where positions are no coordinates to differentiate by."""
    if model.nq != model.nv:
        raise ValueError(f"nq = {model.nq} but nv = {model.nv}: quaternion joints need tangent coordinates")


def finite(state: Float[Array, "*b nstate"]) -> Array:
    """Whether every number of a state is finite and below STATE_LIMIT."""
    return (jnp.abs(state) < STATE_LIMIT).all(-1)  # False for NaN
