"""Forward kinematics and coordinates against MuJoCo's own, for every kind of joint."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics.kinematics import Kinematics, configuration, coordinates

# every kind of joint, several on one body, anchors and axes off the frame's, bodies and sites that are turned
MODEL = mujoco.MjModel.from_xml_string(
    """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <site name="fixed" pos="0.1 0.2 0.3"/>
    <body name="base" pos="0.3 -0.1 0.2" quat="0.8 0.2 -0.4 0.4">
      <joint name="rail" type="slide" axis="1 2 0.5" ref="0.2"/>
      <joint name="turn" type="hinge" axis="0.3 -1 0.2" pos="0.1 0 0.05" ref="0.4"/>
      <geom size="0.1"/>
      <body name="arm" pos="0.2 0 0.1" euler="0.3 0.5 -0.2">
        <joint name="first" type="hinge" axis="0 0 1" pos="0 0.1 0"/>
        <joint name="second" type="hinge" axis="1 1 0"/>
        <geom size="0.1"/>
        <body name="hand" pos="0 0.3 0" quat="0.5 0.5 0.5 0.5">
          <joint name="wrist" type="ball" pos="0.05 0.02 0"/>
          <geom size="0.1"/>
          <body name="plate" pos="0 0 0.1">
            <geom size="0.1"/>
            <site name="tip" pos="0.1 0.05 0.2" euler="0.1 0.2 0.3"/>
          </body>
        </body>
      </body>
    </body>
    <body name="thing" pos="1 1 1">
      <freejoint/>
      <geom size="0.1"/>
      <site name="corner" pos="0.1 0.1 0.1"/>
    </body>
  </worldbody>
</mujoco>"""
)
SITES, BODIES = ("fixed", "tip", "corner"), ("world", "base", "arm", "hand", "plate", "thing")


def configurations(count: int) -> np.ndarray:
    """Quaternions are of any length: MuJoCo normalises them."""
    return np.random.default_rng(0).normal(size=(count, MODEL.nq)) * 1.3


def test_sites_and_bodies_are_where_mujoco_has_them():
    kinematics, data = Kinematics(MODEL), mujoco.MjData(MODEL)
    with jax.enable_x64(True):
        places = jax.jit(lambda qpos: kinematics.positions(qpos, *SITES, *BODIES))
        turns = jax.jit(lambda qpos: kinematics.rotations(qpos, *SITES, *BODIES))
        for qpos in configurations(10):
            data.qpos[:] = qpos
            mujoco.mj_kinematics(MODEL, data)
            named = [data.site(name) for name in SITES] + [data.body(name) for name in BODIES]
            expected = [one.xpos for one in named]
            np.testing.assert_allclose(places(qpos), expected, atol=1e-12)
            np.testing.assert_allclose(turns(qpos), [one.xmat.reshape(3, 3) for one in named], atol=1e-12)


def test_a_jacobian_is_mujocos():
    """In tangent coordinates: the derivative along each velocity of the model."""
    kinematics, data = Kinematics(MODEL), mujoco.MjData(MODEL)
    jacobian = np.zeros((3, MODEL.nv))
    with jax.enable_x64(True):
        qpos = configurations(1)[0]
        mujoco.mj_normalizeQuat(MODEL, qpos)
        data.qpos[:] = qpos
        mujoco.mj_forward(MODEL, data)
        mujoco.mj_jacSite(MODEL, data, jacobian, None, MODEL.site("tip").id)
        derivative = jax.jacfwd(lambda q: kinematics.positions(q, "tip")[0])(jnp.asarray(qpos))
        for i in range(MODEL.nv):
            moved, h = qpos.copy(), 1e-6
            mujoco.mj_integratePos(MODEL, moved, np.eye(MODEL.nv)[i], h)
            np.testing.assert_allclose(derivative @ (moved - qpos) / h, jacobian[:, i], atol=1e-5)


def test_coordinates_are_those_of_mujocos_integration():
    """From the identity, a rotation vector turns as MuJoCo's integration by it does; and back."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        for size in (1.0, 1e-3, 1e-9, 0.0):
            q = size * rng.normal(size=MODEL.nv)
            qpos = np.zeros(MODEL.nq)
            for at in (MODEL.joint("wrist").qposadr[0], MODEL.nq - 4):
                qpos[at] = 1.0
            mujoco.mj_integratePos(MODEL, qpos, q, 1.0)
            found = configuration(MODEL, jnp.asarray(q))
            np.testing.assert_allclose(found, qpos, atol=1e-12)
            np.testing.assert_allclose(coordinates(MODEL, found), q, atol=1e-12)
            np.testing.assert_allclose(coordinates(MODEL, -found)[4:7], q[4:7], atol=1e-12)  # the same rotation
        both = jax.jacfwd(lambda q: coordinates(MODEL, configuration(MODEL, q)))
        np.testing.assert_allclose(both(jnp.zeros(MODEL.nv)), np.eye(MODEL.nv), atol=1e-12)


def test_a_name_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"no site or body 'tipp'; did you mean 'tip'\? \(it has fixed, tip, corner"):
        Kinematics(MODEL).positions(jnp.zeros(MODEL.nq), "tipp")
    both = MODEL_WITH_BOTH
    with pytest.raises(ValueError, match="'hand' is the name of a site and of a body"):
        Kinematics(both).positions(jnp.zeros(1), "hand")


MODEL_WITH_BOTH = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><body name="hand"><joint/><geom size="1"/><site name="hand"/></body></worldbody></mujoco>'
)
