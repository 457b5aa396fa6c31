"""Parameters of a model by name, against models that are compiled with other numbers in their MJCF."""

import mujoco
import numpy as np
import pytest

from dynamics.parameters import misjudged, select, usual

XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" damping="{damping}" armature="0.01" frictionloss="{friction}"/>
      <geom name="arm" type="capsule" size="0.04" fromto="0 0 0 0.4 0 0" density="{density}"/>
      <body name="lower" pos="0.4 0 0">
        <joint name="elbow" axis="0 1 0" damping="0.1"/>
        <geom type="capsule" size="0.03" fromto="0 0 0 0.3 0 0" mass="0.7" friction="{slide} 0.005 0.0001"/>
        <body name="ball" pos="0.3 0 0">
          <joint name="wrist" type="ball" damping="0.02"/><geom type="sphere" size="0.05" mass="0.2"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="lift" joint="shoulder" gear="3"/>
    <position name="servo" joint="elbow" kp="{kp}"/>
    <muscle joint="shoulder" name="biceps" lengthrange="0 1"/>
  </actuator>
</mujoco>
"""
NOMINAL = {"density": 1000.0, "damping": 0.2, "friction": 0.1, "slide": 0.5, "kp": 4.0}
NAMES = {
    "density": "body_mass:upper",
    "damping": "dof_damping:shoulder",
    "friction": "dof_frictionloss:shoulder",
    "slide": "geom_friction:1",
    "kp": "actuator_gain:servo",
}


def compiled(**changes):
    return mujoco.MjModel.from_xml_string(XML.format(**{**NOMINAL, **changes}))


@pytest.mark.parametrize("what", NAMES)
def test_an_adjusted_model_is_the_one_that_is_compiled_with_the_value(what):
    """In all that MuJoCo derives from it too; friction beyond sliding is scaled as well, and is left out here."""
    adjusted = select(compiled(), [NAMES[what]]).adjusted(compiled(), np.log([1.7]))
    expected = compiled(**{what: 1.7 * NOMINAL[what]})
    for name in (
        *("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0"),
        *("dof_damping", "dof_armature", "dof_frictionloss", "actuator_gainprm", "actuator_biasprm", "actuator_acc0"),
    ):
        np.testing.assert_allclose(getattr(adjusted, name), getattr(expected, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(adjusted.geom_friction[:, 0], expected.geom_friction[:, 0])


def test_patterns_name_what_is_not_zero_in_the_order_of_the_model():
    parameters = select(compiled(), ["dof_damping:*", "body_mass:?pper", "dof_damping:elbow", "dof_frictionloss:*"])
    assert parameters.names == (
        *("dof_damping:shoulder", "dof_damping:elbow", "dof_damping:wrist"),
        *("body_mass:upper", "dof_frictionloss:shoulder"),
    )
    np.testing.assert_allclose(parameters.nominal, [0.2, 0.1, 0.02, compiled().body_mass[1], 0.1])
    np.testing.assert_array_equal(parameters.owners["dof_damping"], [0, 1, 2, 2, 2])  # a ball has three
    assert usual(compiled()) == ("body_mass:*", "dof_damping:*", "actuator_gain:*")
    assert select(compiled(), ["actuator_gain:*"]).names == ("actuator_gain:lift", "actuator_gain:servo")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["body_mass:uper"], "no parameter 'body_mass:uper'; did you mean 'body_mass:upper'"),
        (["dof_dampin:elbow"], "unknown parameter 'dof_dampin:elbow'; did you mean 'dof_damping:elbow'"),
        (["upper"], "unknown parameter 'upper' .kinds: body_mass:NAME"),
        (["dof_frictionloss:elbow"], "'dof_frictionloss:elbow' is 0 in the model"),
        (["body_mass:world"], "'body_mass:world' is 0"),
        (["dof_armature:el*"], "no parameter 'dof_armature:el.'.*it has dof_armature:shoulder"),
        ([], "there must be a parameter"),
    ],
)
def test_a_parameter_that_the_model_does_not_have_is_refused(patterns, message):
    with pytest.raises(ValueError, match=message):
        select(compiled(), patterns)


def test_a_misjudged_model_is_off_by_the_share_everywhere():
    model = compiled()
    off = misjudged(model, 0.3)
    shares = np.concatenate([model.body_mass[1:] / off.body_mass[1:], model.dof_damping / off.dof_damping])
    np.testing.assert_allclose(np.abs(shares - 1.0), 0.3)
    assert 0 < (shares > 1.0).sum() < shares.size
    np.testing.assert_array_equal(off.dof_frictionloss, model.dof_frictionloss)
