"""Actions in [-1, 1] against MuJoCo with the control that each stands for."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from dynamics.action_range import with_unit_actions

XML = """
<mujoco>
  <option timestep="0.01"><flag contact="disable"/></option>
  <worldbody>
    <body>
      <joint name="slide" type="slide" damping="0.3"/><geom size="0.1"/>
      <body><joint name="hinge" axis="0 1 0" damping="0.2"/><geom size="0.1" pos="0.2 0 0"/></body>
    </body>
  </worldbody>
  <actuator>{}</actuator>
</mujoco>
"""
SCALED = {
    "motor": ('<motor joint="hinge" gear="0.3" ctrlrange="-15 15"/>', 0.0, 15.0),
    "one-sided motor": ('<motor joint="slide" ctrlrange="0 8"/>', 4.0, 4.0),
    "position": ('<position joint="hinge" kp="5" kv="0.2" ctrlrange="0.5 2.5"/>', 1.5, 1.0),
    "velocity": ('<velocity joint="slide" kv="3" ctrlrange="-1 3"/>', 1.0, 2.0),
    "filtered": ('<general joint="slide" dyntype="filter" dynprm="0.1" gainprm="2" ctrlrange="-4 4"/>', 0.0, 4.0),
    "integrated": (
        '<general joint="slide" dyntype="integrator" gainprm="2" ctrlrange="-4 4" actrange="-0.2 0.2"/>',
        0.0,
        4.0,
    ),
}


@pytest.mark.parametrize("kind", SCALED)
def test_an_action_does_what_its_control_does(kind):
    text, middle, half = SCALED[kind]
    model = mujoco.MjModel.from_xml_string(XML.format(text))
    scaled = with_unit_actions(model)
    np.testing.assert_array_equal(scaled.actuator_ctrlrange, [[-1.0, 1.0]])
    controlled, acting = mujoco.MjData(model), mujoco.MjData(scaled)
    for action in np.random.default_rng(0).uniform(-1.3, 1.3, 20):  # beyond the range as well
        controlled.ctrl[0], acting.ctrl[0] = middle + half * action, action
        mujoco.mj_step(model, controlled)
        mujoco.mj_step(scaled, acting)
    assert np.abs(controlled.qvel).max() > 0.01
    np.testing.assert_allclose(acting.qpos, controlled.qpos, rtol=1e-12)
    np.testing.assert_allclose(acting.qvel, controlled.qvel, rtol=1e-12)
    np.testing.assert_allclose(half * acting.act, controlled.act, rtol=1e-12)


def test_a_model_with_unit_actions_is_left_as_it_is():
    model = mujoco.MjModel.from_xml_string(XML.format('<motor joint="hinge" ctrlrange="-1 1"/>'))
    assert with_unit_actions(model) is model


REFUSED = {
    "no range": ('<motor name="push" joint="slide"/>', "actuator 'push' has no control range, .* give it ctrlrange"),
    "no name": ('<motor joint="slide"/>', "actuator 0 has no control range"),
    "gain that changes": (
        '<general name="cylinder" joint="slide" gaintype="affine" gainprm="1 2 0" ctrlrange="0 1"/>',
        "actuator 'cylinder' is not linear in its control",
    ),
    "one-sided with a state": (
        '<general name="push" joint="slide" dyntype="filter" dynprm="0.1" gainprm="2" ctrlrange="0 4"/>',
        "actuator 'push' has an activation and the control range 0 to 4: make the range symmetric",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_can_not_be_scaled_is_refused_by_name(why):
    text, message = REFUSED[why]
    model = mujoco.MjModel.from_xml_string(XML.format(text))
    with pytest.raises(ValueError, match=message):
        with_unit_actions(model)
