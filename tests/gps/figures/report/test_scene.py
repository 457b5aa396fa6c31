"""The scene: triangles against the solids that they stand for, and their places against MuJoCo's own."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from support.browser import opened

from gps.figures.report import scene
from gps.figures.report.page import page
from gps.figures.report.replay import FINE, coded, staged

TETRAHEDRON = "0 0 0  0.3 0 0  0 0.2 0  0 0 0.1"
MODEL = f"""
<mujoco>
  <asset><mesh name="wedge" vertex="{TETRAHEDRON}"/></asset>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1"/>
    <geom name="table" type="box" size="0.2 0.1 0.02" pos="0.1 0 -0.02" euler="0 0 30" rgba="1 0 0 0.5"/>
    <geom name="nothing" type="sphere" size="0.1" rgba="1 1 1 0"/>
    <geom name="hidden" type="sphere" size="0.1" group="3"/>
    <body name="block" mocap="true" pos="0 0.3 0.1"><geom name="mark" type="ellipsoid" size="0.03 0.02 0.01"/></body>
    <body name="upper" pos="0 0 0.5" euler="10 20 30">
      <joint type="ball"/>
      <geom name="arm" type="capsule" size="0.03" fromto="0 0 0 0.1 0.2 0.05"/>
      <body name="lower" pos="0.1 0.2 0.05">
        <joint type="hinge" axis="0 1 0"/>
        <geom name="rod" type="cylinder" size="0.02 0.08" pos="0 0 0.1" euler="40 0 0"/>
        <geom name="tool" type="mesh" mesh="wedge" pos="0.05 0 0.2" euler="0 50 0"/>
        <geom name="tip" type="sphere" size="0.04" pos="0 0 0.3"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
VOLUMES = {  # m^3
    "table": 8 * 0.2 * 0.1 * 0.02,
    "mark": 4 / 3 * np.pi * 0.03 * 0.02 * 0.01,
    "arm": np.pi * 0.03**2 * (4 / 3 * 0.03 + np.linalg.norm([0.1, 0.2, 0.05])),
    "rod": np.pi * 0.02**2 * 0.16,
    "tip": 4 / 3 * np.pi * 0.04**3,
    "tool": 0.3 * 0.2 * 0.1 / 6,
}


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(MODEL)


@pytest.fixture(scope="module")
def states(model):
    """Physics states of five frames; the mocap body stands still."""
    rng, states = np.random.default_rng(0), []
    data = mujoco.MjData(model)
    for _ in range(5):
        data.qpos[:] = rng.normal(size=model.nq)
        mujoco.mj_normalizeQuat(model, data.qpos)
        state = np.empty(mujoco.mj_stateSize(model, scene.STATE))
        mujoco.mj_getState(model, data, state, scene.STATE)
        states.append(state)
    return np.array(states)


@pytest.mark.parametrize("name", VOLUMES)
def test_triangles_enclose_the_solid_and_face_outward(model, name):
    """By the divergence theorem; a round shape has facets, inside it, and loses some volume."""
    (part,) = [part for part in scene.parts_of(model) if part.name == name]
    a, b, c = part.mesh[0][part.mesh[1]].swapaxes(0, 1)
    volume = np.einsum("ni,ni->n", a, np.cross(b, c)).sum() / 6
    exact = name in ("table", "tool")
    assert (1 - 1e-5 if exact else 0.9) * VOLUMES[name] < volume < (1 + 1e-5) * VOLUMES[name]


def test_vertices_are_where_mujoco_has_the_geoms(model, states):
    """In each geom's own frame they fill the box of its size."""
    places, turns = scene.poses(model, states)
    data, parts = mujoco.MjData(model), scene.parts_of(model)
    for state, place, turn in zip(states, places, turns, strict=True):
        mujoco.mj_setState(model, data, state, scene.STATE)
        mujoco.mj_forward(model, data)
        for part in parts:
            geom, own = data.geom(part.name), model.geom(part.name)
            world = part.mesh[0] @ scene.rotation(turn[part.body]).T + place[part.body]
            local = (world - geom.xpos) @ geom.xmat.reshape(3, 3)
            size = own.size
            box = {
                "floor": [scene.FLOOR, scene.FLOOR, 0],
                "arm": [size[0], size[0], size[0] + size[1]],
                "rod": [size[0], size[0], size[1]],
                "tip": [size[0]] * 3,
                "tool": model.geom_aabb[own.id, 3:],
            }.get(part.name, size)
            middle = model.geom_aabb[own.id, :3] if part.name == "tool" else 0.0  # a mesh is not in the middle
            np.testing.assert_allclose(np.abs(local - middle).max(0), box, atol=1e-6)


def test_what_is_not_seen_is_not_shown(model):
    parts = {part.name: part for part in scene.parts_of(model)}
    assert set(parts) == {"floor", *VOLUMES}
    assert parts["table"].color == "#ff8080"  # half of a red is a pale one


def test_a_mesh_of_many_faces_is_its_convex_hull(monkeypatch, model):
    monkeypatch.setattr(scene, "MOST_FACES", 3)
    (tool,) = [part for part in scene.parts_of(model) if part.name == "tool"]
    vertices, triangles = tool.mesh
    assert vertices.shape == triangles.shape == (4, 3)
    assert {frozenset(triangle) for triangle in triangles.tolist()} == {
        frozenset({0, 1, 2, 3} - {left}) for left in range(4)
    }


HILLS = """
<mujoco>
  <asset><hfield name="hills" nrow="{rows}" ncol="5" size="0.4 0.3 0.2 0.05"/></asset>
  <worldbody>
    <geom name="ground" type="hfield" hfield="hills" pos="0.1 0 -0.3" euler="0 20 40"/>
    <body><freejoint/><geom size="0.05"/></body>
  </worldbody>
</mujoco>
"""


def hills(rows):
    model = mujoco.MjModel.from_xml_string(HILLS.format(rows=rows))
    model.hfield_data[:] = np.random.default_rng(1).uniform(size=model.nhfielddata)
    return model


def test_a_height_field_is_as_high_as_mujocos_rays_say():
    """At random places, of which each is above one triangle."""
    model = hills(rows=4)
    vertices, triangles = scene.parts_of(model)[0].mesh
    data, rng = mujoco.MjData(model), np.random.default_rng(2)
    mujoco.mj_forward(model, data)
    down, shown = data.geom("ground").xmat.reshape(3, 3)[:, 2] * -1.0, np.zeros((1, 1), np.int32)
    for place in rng.uniform([-0.39, -0.29], [0.39, 0.29], (40, 2)):
        start = data.geom("ground").xmat.reshape(3, 3) @ [*place, 1.0] + data.geom("ground").xpos
        length = mujoco.mj_ray(model, data, start, down, None, 1, 1, shown)  # without the ball
        ways = [np.linalg.solve(np.stack([b - a, c - a, -down], 1), start - a) for a, b, c in vertices[triangles]]
        (hit,) = {round(way[2], 6) for way in ways if min(way[0], way[1], 1 - way[0] - way[1]) > 0}
        assert hit == pytest.approx(length, abs=1e-5)


def test_of_a_fine_height_field_some_points_are_shown():
    vertices, triangles = scene.parts_of(hills(rows=401))[0].mesh
    assert (len(vertices), len(triangles)) == (5 * scene.MOST_LINES, 2 * 4 * (scene.MOST_LINES - 1))
    ends = scene.parts_of(hills(rows=401))[0].mesh[0][[0, -1]]
    middle = np.array([0.1, 0.0, -0.3])
    flat = (ends - middle) @ scene.rotation(hills(rows=401).geom_quat[0])
    np.testing.assert_allclose(flat[:, :2], [[-0.4, -0.3], [0.4, 0.3]], atol=1e-6)


@pytest.mark.slow
def test_in_a_browser_a_height_field_stands_still_below_what_moves(tmp_path):
    model = hills(rows=4)
    data = mujoco.MjData(model)
    state = np.empty(mujoco.mj_stateSize(model, scene.STATE))
    mujoco.mj_getState(model, data, state, scene.STATE)
    states = state + np.linspace(0, 1, 3)[:, None] * (np.arange(len(state)) == 3)  # it rises: time, x, y, z, ...
    drawn, poses = staged(model, states[None])
    acted = {name: coded(np.zeros((1, 3))) for name in ("x", "u", "cost")} | {"poses": poses[0], "said": ""}
    one = {"name": "one", "acted": {"learner": acted}, "target": None}
    replay = {"times": [0.0, 1.0, 2.0], "scene": drawn, "conditions": [one]}
    section = {"title": "Replay", "replay": replay}
    file = tmp_path / "page.html"
    file.write_text(page("hills", {"facts": [], "notes": [], "axes": {}, "sections": [section]}))
    with opened(file, tmp_path / "profile") as found:
        found.when("document.querySelector('#replay-scene')?.data?.length > 1")
        ground = found.page.evaluate("(({i, z}) => ({i, z}))(document.querySelector('#replay-scene').data[0])")
        (part,) = [part for part in scene.parts_of(model) if part.name == "ground"]
        np.testing.assert_allclose(ground["z"], part.mesh[0][:, 2], atol=1e-5)
        assert len(ground["i"]) == 2 * 3 * 4
        assert found.errors == []


def test_the_page_is_told_where_bodies_move_and_what_stands_still(model, states):
    drawn, poses = staged(model, np.stack([states, states[::-1]]))
    places, turns = scene.poses(model, states)
    parts = {part["name"]: part for part in drawn["parts"]}
    assert {name for name, part in parts.items() if part["body"] is not None} == {"arm", "rod", "tool", "tip"}
    for back, numbers in zip((1, -1), poses, strict=True):
        values = np.cumsum(numbers["changes"], axis=1) * np.array(numbers["units"])[:, None]
        of_bodies = values.reshape(-1, 7, len(states)).transpose(2, 0, 1)[::back]
        for body, number in {(model.geom(name).bodyid[0], parts[name]["body"]) for name in ("arm", "tip")}:
            place = drawn["length"] * of_bodies[:, number, :3]
            np.testing.assert_allclose(place, places[:, body], atol=0.5001 * FINE * drawn["length"])
            np.testing.assert_allclose(of_bodies[:, number, 3:], turns[:, body], atol=0.5001 * FINE)
    world = np.reshape(parts["mark"]["vertices"], (-1, 3))
    np.testing.assert_allclose((world.max(0) + world.min(0)) / 2, [0, 0.3, 0.1], atol=1e-5)


def test_numbers_over_time_come_back_to_their_unit():
    """Also what stays, and what changes little and is large."""
    wave = np.sin(np.linspace(0, 9, 40))
    values = np.stack([wave, 1e3 + 1e-3 * wave, np.full(40, 7e-8), np.zeros(40)])
    changes = coded(values)
    again = np.cumsum(changes["changes"], axis=1) * np.array(changes["units"])[:, None]
    assert (np.abs(again - values) < np.array([[3e-4], [3e-7], [1e-13], [1e-13]])).all()


def test_the_eye_is_where_the_models_camera_is(states):
    with_camera = MODEL.replace("<body name=", '<camera pos="0 -2 0" xyaxes="1 0 0 0 0 1"/><body name=', 1)
    seen = scene.view(mujoco.MjModel.from_xml_string(with_camera), states[0], np.ones(3))
    np.testing.assert_allclose([seen["eye"][axis] for axis in "xyz"], [0, -scene.DISTANCE, 0], atol=1e-3)
    np.testing.assert_allclose([seen["up"][axis] for axis in "xyz"], [0, 0, 1], atol=1e-3)


@pytest.mark.parametrize("thin", range(3))
def test_a_flat_scene_is_seen_from_its_side(model, states, thin):
    eye = scene.view(model, states[0], np.where(np.arange(3) == thin, 0.1, 1.0))["eye"]
    assert abs(eye["xyz"[thin]]) > 0.9 * scene.DISTANCE
