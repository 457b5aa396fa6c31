"""Holding a pose, against MuJoCo's own inverse dynamics and simulation."""

import mujoco
import numpy as np
import pytest

from dynamics.actuation import hold

XML = """
<mujoco>
  <option timestep="0.001" integrator="implicitfast"/>
  <compiler angle="radian"/>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" damping="0.2"/><geom type="capsule" size="0.05" fromto="0 0 0 0.4 0 0"/>
      <body name="lower" pos="0.4 0 0">
        <joint name="elbow" axis="0 1 0"/><geom type="capsule" size="0.04" fromto="0 0 0 0.3 0 0"/>
        {more}
      </body>
    </body>
  </worldbody>
  <actuator>{actuators}</actuator>
</mujoco>
"""
MOTORS = '<motor joint="{}" ctrllimited="true" ctrlrange="-1 1" gear="{}"/>'
BOTH = MOTORS.format("shoulder", 60) + MOTORS.format("elbow", -20)
LINK = '<geom type="capsule" size="0.03" fromto="0 0 0 0 0 -0.3"/>'
SWINGING = f'<body pos="0.3 0 0"><joint name="free" axis="0 1 0"/>{LINK}</body>'


def model_of(actuators=BOTH, more=""):
    return mujoco.MjModel.from_xml_string(XML.format(actuators=actuators, more=more))


def test_the_action_is_that_of_inverse_dynamics_at_rest():
    model, qpos = model_of(), np.array([0.3, -0.8])
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_inverse(model, data)
    held = hold(model, qpos, 5.0, 0.05)
    np.testing.assert_allclose(held.action, data.qfrc_inverse / [60, -20], rtol=1e-9)
    data.ctrl[:] = held.action
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.qacc, 0.0, atol=1e-8)


def test_a_joint_that_nothing_moves_is_left_alone():
    """The third link hangs: the two actuators bear what they can, and do not react to it."""
    model = model_of(more=SWINGING)
    held = hold(model, np.array([0.3, -0.8, 0.5]), 5.0, 0.05)
    np.testing.assert_array_equal(held.K[:, [2, 5]], 0.0)
    level = hold(model, np.zeros(3), 5.0, 0.05)
    weight = model.body_mass[3] * 9.81
    np.testing.assert_allclose(level.action[1] * -20, -(model.body_mass[2] * 9.81 * 0.15 + weight * 0.3), rtol=1e-6)


def test_joints_return_as_critically_damped_oscillators():
    model, qpos, w = model_of(), np.array([0.3, -0.8]), 6.0
    model.opt.gravity[:], model.dof_damping[:] = 0.0, 0.0
    held = hold(model, qpos, w, 0.001)
    data, start, times = mujoco.MjData(model), np.array([0.02, -0.03]), np.arange(1, 401) * 0.001
    data.qpos[:] = qpos + start
    seen = []
    for _ in times:
        data.ctrl[:] = held.action - held.K @ np.concatenate([data.qpos - qpos, data.qvel])
        mujoco.mj_step(model, data)
        seen.append(data.qpos - qpos)
    expected = start * ((1 + w * times) * np.exp(-w * times))[:, None]
    np.testing.assert_allclose(seen, expected, atol=5e-4)


def test_the_spread_is_that_of_a_simulation_with_noise():
    model, qpos, dt = model_of(), np.array([0.3, -0.8]), 0.02
    model.opt.gravity[:] = 0.0
    held = hold(model, qpos, 5.0, dt)
    rng, data, std = np.random.default_rng(0), mujoco.MjData(model), 0.02
    for i in range(2):
        mujoco.mj_resetData(model, data)
        data.qpos[:], seen = qpos, []
        for _ in range(6000):
            noise = std * rng.normal() * np.eye(2)[i]
            data.ctrl[:] = held.action - held.K @ np.concatenate([data.qpos - qpos, data.qvel]) + noise
            mujoco.mj_step(model, data, nstep=20)
            seen.append(np.array(data.qpos))
        np.testing.assert_allclose(np.std(seen[100:], axis=0), std * held.spread[:, i], rtol=0.2)


def test_position_actuators_hold_by_themselves():
    servo = '<position joint="{}" kp="200" kv="20" ctrllimited="true" ctrlrange="-2 2"/>'
    model, qpos = model_of(servo.format("shoulder") + servo.format("elbow")), np.array([0.3, -0.8])
    held = hold(model, qpos, 5.0, 0.05)
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = qpos, held.action
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.qacc, 0.0, atol=1e-8)
    np.testing.assert_array_equal(held.K, 0.0)
    assert np.abs(held.action - qpos).max() < 0.3


@pytest.mark.parametrize("gear", [0.5, 60])
def test_an_action_that_is_too_weak_stays_inside_its_range(gear):
    held = hold(model_of(MOTORS.format("shoulder", gear)), np.zeros(2), 5.0, 0.05)
    assert (abs(held.action[0]) == 1.0) == (gear < 1.0)
