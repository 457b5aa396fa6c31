"""Mocap bodies, which a start state puts in their places, against MuJoCo called directly; on both engines."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics.engines import make_simulator
from dynamics.known_model import known_dynamics
from dynamics.simulator import mocap_poses, physics_state

# A ball that falls along z, pushed by up to 2 N, and a plate that it falls on. The second mocap body is out of reach.
XML = """
<mujoco>
  <option timestep="0.005" cone="elliptic" iterations="4" ls_iterations="4"/>
  <worldbody>
    <body name="other" mocap="true" pos="9 8 7" quat="0 1 0 0"><site name="aside"/></body>
    <body pos="0 0 0.5"><joint name="fall" type="slide" axis="0 0 1"/><geom name="ball" size="0.05" mass="0.1"/></body>
    <body name="plate" mocap="true" pos="0 0 0.3"><geom type="plane" size="1 1 0.01"/></body>
  </worldbody>
  <actuator><motor joint="fall" ctrlrange="-2 2"/></actuator>
</mujoco>
"""
T, SUBSTEPS = 12, 10
PLACES = np.array([[9.0, 8.0, 7.0], [0.1, 0.0, 0.2]])
TILTED = np.array([[0.0, 1.0, 0.0, 0.0], [np.cos(0.1), 0.0, np.sin(0.1), 0.0]])


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(XML)


def by_hand(model, actions):
    """Heights after each action, by mj_step."""
    data = mujoco.MjData(model)
    data.mocap_pos[:], data.mocap_quat[:] = PLACES, TILTED
    heights = []
    for action in actions:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, SUBSTEPS)
        heights.append(data.qpos[0])
    return np.array(heights)


def test_the_model_says_where_its_mocap_bodies_are(model):
    places, turns = mocap_poses(model)
    data = mujoco.MjData(model)
    np.testing.assert_array_equal(places, data.mocap_pos)
    np.testing.assert_array_equal(turns, data.mocap_quat)
    state = physics_state(model, jnp.zeros(1), jnp.ones(1))
    np.testing.assert_allclose(state, np.concatenate([[0.0, 0.0, 1.0], places.ravel(), turns.ravel()]))


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_a_ball_falls_on_the_plate_where_the_state_has_it(model, engine):
    simulator = make_simulator(model, SUBSTEPS, engine)
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, (T, 1))
    expected = by_hand(model, actions)
    start = physics_state(model, jnp.zeros(1), jnp.zeros(1), (PLACES, TILTED))

    def step(state, action):
        following = simulator.step(state, action)
        return following, following

    states = np.asarray(jax.jit(lambda s, a: jax.lax.scan(step, s, a)[1])(start, jnp.asarray(actions)))
    np.testing.assert_allclose(states[:, 1], expected, atol=2e-4)
    over = 0.2 + 0.1 * np.tan(0.2) + 0.05 / np.cos(0.2)  # height of a ball's centre that touches the tilted plane
    assert 0.5 + states[-1, 1] == pytest.approx(over, abs=0.01)
    np.testing.assert_array_equal(states[:, 3:], np.broadcast_to(start[3:], (T, 14)))


def test_where_a_mocap_body_stands_is_a_constant_of_the_derivatives(model):
    simulator = make_simulator(model, SUBSTEPS, "mujoco")
    with jax.enable_x64(True):
        state = physics_state(model, jnp.array([-0.24]), jnp.array([-0.1]), (PLACES, TILTED))
        action = jnp.array([0.1])
        A, B = jax.jacfwd(simulator.step, argnums=(0, 1))(state, action)
        eye, h = np.eye(17), 1e-6
        for i in (1, 2):
            slope = (simulator.step(state + h * eye[i], action) - simulator.step(state - h * eye[i], action)) / (2 * h)
            np.testing.assert_allclose(A[:, i], slope, atol=1e-4)
        slope = (simulator.step(state, action + h) - simulator.step(state, action - h)) / (2 * h)
        A, B, slope = map(np.asarray, (A, B, slope))
    assert abs(A[2, 1]) > 1.0  # the ball is in contact
    np.testing.assert_allclose(B[:, 0], slope, atol=1e-4)
    np.testing.assert_array_equal(A[:, 3:], eye[:, 3:])


def test_a_known_model_has_mocap_bodies_where_it_is_told(model):
    simulator = make_simulator(model, SUBSTEPS, "mujoco")
    x, u = jnp.array([-0.2, -1.0]), jnp.zeros(1)
    told = physics_state(model, x[:1], x[1:], (PLACES, TILTED))
    np.testing.assert_array_equal(known_dynamics(simulator, told[3:])(x, u, 0), simulator.step(told, u)[1:3])
    own = physics_state(model, x[:1], x[1:])
    np.testing.assert_array_equal(known_dynamics(simulator)(x, u, 0), simulator.step(own, u)[1:3])
    assert abs(simulator.step(told, u)[2] - simulator.step(own, u)[2]) > 0.1
