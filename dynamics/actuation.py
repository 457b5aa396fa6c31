"""What actuators do to joints around a pose: the actions that hold it, and the gains that lead back to it.

Computed by MuJoCo on the host, in double precision, for a model at rest.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float

from dynamics.simulator import control_range


@dataclass(frozen=True)
class Hold:
    """u = action - K (dq, v) holds a pose: dq are the joints' deviations from it in coordinates, v their velocities."""

    action: Float[np.ndarray, " nu"]  # at the pose, inside the control range
    K: Float[np.ndarray, "nu 2*nv"]
    spread: Float[np.ndarray, "nv nu"]  # standard deviation of each joint's position that white noise of one brings


def hold(model: mujoco.MjModel, qpos: Float[np.ndarray, " nq"], frequency: float, dt: float) -> Hold:
    """Hold a pose against gravity, and pull actuated joints back to it as critically damped oscillators.

    With M the mass matrix and G the forces that unit actions put on the joints, the actions solve

        G u = gravity's force - M (frequency^2 dq + 2 frequency v)

    for the actuated joints, by least squares where actuators are too few. Actuators that pull back by themselves (as
    position actuators do) only get the action that holds the pose.

    Args:
        frequency: rad/s, of the oscillators.
        dt: seconds that an action lasts; noise is held that long.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    needed = _force_at_rest(model, data)
    passive, G = _actuator_forces(model, data)
    M = np.zeros((model.nv, model.nv))
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, M)
    low, high = control_range(model)

    moved = (np.abs(G) > 1e-9 * max(np.abs(G).max(), 1e-9)).any(1)
    inverse = np.linalg.pinv(G[moved])
    action = np.clip(inverse @ (needed - passive)[moved], low, high)
    stiff = (model.actuator_biasprm[:, 1:3] != 0.0).any(1)[:, None]
    gain = np.where(stiff, 0.0, inverse @ M[np.ix_(moved, moved)])
    K = np.zeros((model.nu, 2 * model.nv))
    K[:, : model.nv][:, moved] = frequency**2 * gain
    K[:, model.nv :][:, moved] = 2.0 * frequency * gain

    # a critically damped oscillator under a white acceleration of deviation a, held for dt: a sqrt(dt / (4 w^3))
    acceleration = np.zeros((model.nv, model.nu))
    acceleration[moved] = np.linalg.solve(M[np.ix_(moved, moved)], G[moved])
    return Hold(action, K, np.abs(acceleration) * np.sqrt(dt / (4.0 * frequency**3)))


def _force_at_rest(model, data) -> Float[np.ndarray, " nv"]:
    """Force on the joints without which the pose would not rest; joint limits and contacts bear what they can."""
    data.qvel[:], data.qacc[:] = 0.0, 0.0
    mujoco.mj_inverse(model, data)
    return np.array(data.qfrc_inverse)


def _actuator_forces(model, data) -> tuple[np.ndarray, np.ndarray]:
    """Forces on the joints at zero action (nv), and what a unit of each action adds to them (nv nu)."""

    def forces(action):
        data.ctrl[:] = action
        keeps = model.actuator_actadr >= 0
        data.act[model.actuator_actadr[keeps]] = action[keeps]  # an activation is where its action has brought it
        mujoco.mj_forward(model, data)
        return np.array(data.qfrc_actuator)

    at_zero = forces(np.zeros(model.nu))
    return at_zero, np.stack([forces(row) - at_zero for row in np.eye(model.nu)], axis=1)
