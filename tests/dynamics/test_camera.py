"""Images are those that MuJoCo's own rays see, from any place, of everything that there is a formula for."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics.camera import Camera, Mark

SCENE = """
<mujoco>
  <visual><global fovy="60"/></visual>
  <worldbody>
    <camera name="fixed" pos="0.1 -1.6 0.9" xyaxes="1 0.1 0 0 0.4 1" fovy="70"/>
    <camera name="inside" pos="0.3 0.1 0.3" xyaxes="1 0 0 0 0.2 1" fovy="100"/>
    <camera name="flat" projection="orthographic" pos="0 -1 1"/>
    <camera name="tracking" mode="track" pos="0 -1 1"/>
    <geom name="floor" type="plane" size="0 0 1" rgba="0.2 0.3 0.4 1"/>
    <geom type="plane" size="0.3 0.2 1" pos="-0.5 0.4 0.3" euler="40 0 0" rgba="0.9 0.1 0.1 1"/>
    <geom type="box" size="0.2 0.1 0.15" pos="0.3 0.1 0.3" euler="20 30 40" rgba="0.1 0.9 0.1 1"/>
    <geom type="cylinder" size="0.1 0.2" pos="-0.4 -0.3 0.4" euler="70 10 0" rgba="0.1 0.1 0.9 1"/>
    <geom type="sphere" size="0.1" pos="0.1 0 0.2" group="3"/>
    <geom type="sphere" size="0.1" pos="0.1 0 0.2" rgba="1 1 1 0"/>
    <body pos="0 0 0.3">
      <joint name="turn" axis="0 0 1"/>
      <geom type="capsule" size="0.06" fromto="0 0 0 0.3 0.2 0.3" rgba="0.9 0.9 0.1 1"/>
      <body pos="0.3 0.2 0.3">
        <joint name="bend" axis="0 1 0"/>
        <camera name="hand" pos="0.05 0 0.2" euler="0 160 0" fovy="80"/>
        <geom type="sphere" size="0.12" pos="0.2 0 0" rgba="0.9 0.5 0.1 1"/>
      </body>
    </body>
    <body name="moved" mocap="true" pos="-0.1 0.3 0.2">
      <geom type="box" size="0.05 0.1 0.2" rgba="0.5 0.1 0.9 1"/>
    </body>
  </worldbody>
</mujoco>
"""
SIZE = (12, 16)
PLACES = (np.array([[-0.2, -0.1, 0.25]]), np.array([[0.9, 0.2, 0.1, 0.3]]))
QPOS = np.array([0.4, -0.7])


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(SCENE)


@pytest.fixture(scope="module")
def data(model):
    data = mujoco.MjData(model)
    data.qpos, data.mocap_pos, data.mocap_quat = QPOS, PLACES[0], PLACES[1]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    return data


def rays_of_mujoco(model, data, name, size):
    """Depth and geom of each pixel, and the directions of the rays in the world, all by MuJoCo."""
    height, width = size
    number = model.camera(name).id
    turn = data.cam_xmat[number].reshape(3, 3)
    tan = np.tan(np.deg2rad(model.cam_fovy[number]) / 2)
    depths, geoms = np.full(size, np.inf), np.full(size, -1)
    for i in range(height):
        for j in range(width):
            x, y = (2 * j + 1) / width - 1, 1 - (2 * i + 1) / height
            ray = turn @ [x * tan * width / height, y * tan, -1.0]
            geom = np.zeros(1, np.int32)
            groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
            t = mujoco.mj_ray(model, data, data.cam_xpos[number], ray, groups, 1, -1, geom)
            depths[i, j], geoms[i, j] = (t, geom[0]) if t >= 0 else (np.inf, -1)
    return depths, geoms


@pytest.mark.parametrize("name", ["fixed", "inside", "hand"])
def test_depths_and_colours_are_those_of_mujocos_rays(model, data, name):
    depths, geoms = rays_of_mujoco(model, data, name, SIZE)
    with jax.enable_x64(True):
        camera = Camera(model, name, *SIZE, far=3.0)
        depth = np.asarray(jax.jit(camera.depth)(QPOS, PLACES))
        rgb = np.asarray(jax.jit(camera.rgb)(QPOS, PLACES))
    np.testing.assert_allclose(depth, np.minimum(depths, 3.0), atol=1e-9)
    own = np.where((depths < 3.0)[..., None], model.geom_rgba[geoms, :3], 0.0)
    lit = rgb.max(-1) > 0
    assert lit.sum() == (depths < 3.0).sum() > 20
    shades = rgb[lit] / own[lit]
    np.testing.assert_allclose(shades, shades[:, :1] * np.ones(3), atol=1e-6)  # one light, of no colour
    assert (shades >= 0.3 - 1e-9).all()
    assert (shades <= 1.0 + 1e-9).all()


def test_a_surface_is_darker_where_it_is_turned_away():
    """By the cosine of the angle between normal and ray, here of a sphere."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><camera name='c' pos='0 0 1' fovy='40'/><geom size='.3'/></worldbody></mujoco>"
    )
    camera = Camera(model, "c", 9, 9)
    rgb, depth = np.asarray(camera.rgb(jnp.zeros(0)))[..., 0], np.asarray(camera.depth(jnp.zeros(0)))
    tan = np.tan(np.deg2rad(20))
    grid = tan * ((2 * np.arange(9) + 1) / 9 - 1)
    rays = np.stack([*np.broadcast_arrays(grid[None], -grid[:, None]), -np.ones((9, 9))], -1)
    seen = depth < 5.0
    normals = (np.array([0.0, 0.0, 1.0]) + depth[..., None] * rays)[seen] / 0.3
    cosine = -(normals * rays[seen]).sum(-1) / np.linalg.norm(rays[seen], axis=-1)
    np.testing.assert_allclose(rgb[seen], 0.5 * (0.3 + 0.7 * cosine), atol=1e-5)
    assert rgb[4, 4] == pytest.approx(0.5)


def test_a_material_colours_what_has_no_colour_of_its_own():
    scene = """<mujoco><asset><material name="m" rgba="0.8 0.2 0.1 1"/></asset>
      <worldbody><camera name="c" pos="0 0 1"/><geom type="box" size="1 1 0.1" material="m" {}/></worldbody></mujoco>"""
    for own, color in (("", [0.8, 0.2, 0.1]), ('rgba="0.1 0.3 0.9 1"', [0.1, 0.3, 0.9])):
        camera = Camera(mujoco.MjModel.from_xml_string(scene.format(own)), "c", 3, 3)
        np.testing.assert_allclose(camera.rgb(jnp.zeros(0))[1, 1], color, rtol=1e-6)


def test_a_mark_is_a_sphere_where_the_caller_says(model):
    places = jnp.asarray([[0.1, -0.9, 0.6], [-0.3, 0.5, 0.4]])
    marks = (Mark(0.07, (1.0, 0.0, 0.0)), Mark(0.2, (0.0, 1.0, 0.0)))
    spec = mujoco.MjSpec.from_string(SCENE)
    for mark, place in zip(marks, places, strict=True):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[mark.radius, 0, 0], pos=np.asarray(place), rgba=[*mark.color, 1]
        )
    with_geoms = Camera(spec.compile(), "fixed", *SIZE).rgb(jnp.asarray(QPOS))
    with_marks = Camera(model, "fixed", *SIZE, marks=marks).rgb(jnp.asarray(QPOS), None, places)
    np.testing.assert_allclose(with_marks, with_geoms, atol=1e-4)


def test_images_of_a_batch_have_finite_derivatives_also_from_inside_and_along_faces(model):
    """Where a ray lies in a face or on an axis too: the camera looks down the middle of a cylinder and of a box."""
    scene = """<mujoco><worldbody><camera name="c" pos="0 0 1"/><geom type="cylinder" size="0.1 0.2"/>
      <body pos="0 0 -1"><joint type="slide" axis="1 0 0"/><geom type="box" size="0.3 0.3 0.1"/></body>
      <geom type="plane" size="0 0 1" pos="0 0 1"/></worldbody></mujoco>"""
    camera = Camera(mujoco.MjModel.from_xml_string(scene), "c", 5, 5)
    for name in ("fixed", "inside", "hand"):
        other = Camera(model, name, *SIZE)
        slopes = jax.jit(jax.vmap(jax.grad(lambda q, other=other: other.rgb(q).sum())))(jnp.zeros((2, 2)))
        assert np.isfinite(slopes).all()
    depth, slopes = camera.depth(jnp.zeros(1)), jax.jacfwd(camera.depth)(jnp.zeros(1))
    assert depth[2, 2] == pytest.approx(0.8)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("", {"name": "front"}, r"no camera 'front' \(it has fixed, inside, flat, tracking, hand\)"),
        ("", {"name": "tracking"}, "its mode must be 'fixed'"),
        ("", {"name": "flat"}, "camera 'flat' is orthographic"),
        ("", {"height": 0}, "at least one pixel, not 0 x 16"),
        ("", {"far": float("nan")}, "far must be a positive distance"),
        ("ellipsoid", {}, "geom egg is of kind ellipsoid"),
    ],
)
def test_what_can_not_be_seen_is_said(change, options, message):
    scene = SCENE.replace('name="floor"', 'name="egg"').replace('"plane" size="0 0 1"', '"ellipsoid" size="1 2 1"')
    model = mujoco.MjModel.from_xml_string(scene if change else SCENE)
    with pytest.raises(ValueError, match=message):
        Camera(model, **{"name": "fixed", "height": 12, "width": 16, **options})
