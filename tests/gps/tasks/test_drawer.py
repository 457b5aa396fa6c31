"""The drawer: geometry and cost against MuJoCo and numpy, a pull by the physics, and what the camera sees."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.optimize import least_squares

from dynamics.simulator import joints_size
from gps.experiments.experiment import Experiment
from gps.settings import SettingsError, from_dict
from gps.tasks.check import check_task
from gps.tasks.mujoco.drawer import DRAWERS, Drawer, DrawerSettings
from gps.tasks.mujoco.vision import DrawerVisionSettings, drawer
from gps.tasks.visual import CameraSettings

TASK = Drawer(DrawerSettings(), "mujoco")
SEEING = drawer(DrawerVisionSettings(camera=CameraSettings(height=48, width=48)), "mujoco", "drawer")
CONTEXT = jnp.array([0.06, -0.04, 0.12, 1.0])  # the right drawer
MODEL = TASK.simulator.model
BAR = np.float32([0.15, 0.25, 0.5, 1.0])  # colour
look, step = jax.jit(SEEING.image), jax.jit(TASK.step)


START = np.array(TASK.start(CONTEXT)[0])
begin = jax.jit(TASK.initial_state)


def state_of(qpos=START, context=CONTEXT):
    state = np.array(begin(jax.random.key(0), context))
    state[1:11], state[11:21] = qpos, 0.0
    return state


def data_of(state) -> mujoco.MjData:
    """MuJoCo's own account of a state."""
    data, n = mujoco.MjData(MODEL), joints_size(MODEL)
    data.qpos[:], data.qvel[:] = state[1:11], state[11:21]
    data.mocap_pos[:], data.mocap_quat[:] = np.asarray(state[n : n + 3]), np.asarray(state[n + 3 :])
    mujoco.mj_forward(MODEL, data)
    return data


def drawn_states(count=4):
    rng = np.random.default_rng(0)
    for key in jax.random.split(jax.random.key(5), count):
        qpos = np.append(START[:7] + rng.uniform(-0.4, 0.4, 7), rng.uniform(0, 0.3, 3))
        context = TASK.draw(key)
        yield state_of(qpos, context), context


def in_chest(data) -> tuple[np.ndarray, np.ndarray]:
    """Place and rotation of the chest."""
    return data.body("chest").xpos, data.body("chest").xmat.reshape(3, 3)


# where things are


def test_hand_and_handle_are_where_mujoco_has_them():
    for state, context in drawn_states():
        data, which = data_of(state), DRAWERS[int(context[3]) + 1]
        x = TASK.control_state(state)
        offset, turn = TASK.hand(x, context)
        _, chest = in_chest(data)
        apart = chest.T @ (data.site("tip").xpos - data.site(f"{which}_handle").xpos)
        np.testing.assert_allclose(offset, apart, atol=1e-5)
        np.testing.assert_allclose(turn, chest.T @ data.body("hand").xmat.reshape(3, 3), atol=1e-5)
        np.testing.assert_allclose(TASK.opening(x, context)[0], data.joint(which).qpos[0], atol=1e-6)


def test_the_lamp_stands_on_the_chest_behind_its_drawer():
    for state, context in drawn_states():
        state[8:11] = 0.0
        data = data_of(state)
        place, chest = in_chest(data)
        lamp = chest.T @ (np.asarray(TASK.lamp(context)) - place)
        body = chest.T @ (data.body(DRAWERS[int(context[3]) + 1]).xpos - place)
        np.testing.assert_allclose(lamp[:2] - body[:2], [0.05, 0.0], atol=1e-5)
        assert lamp[2] > 0.33  # the top


def test_contexts_are_within_their_limits_and_all_drawers_are_wanted():
    seen = np.asarray(jax.vmap(TASK.draw)(jax.random.split(jax.random.key(0), 300)))
    for contexts, least in (
        (seen, 0.97),
        (np.asarray(TASK.test_contexts), 0.9),
        (np.asarray(TASK.train_contexts), 0.9),
    ):
        most = np.abs(contexts[:, :3]).max(0) / np.array([0.1, 0.1, np.deg2rad(10)])
        assert (most > least).all()
        assert (most < 1 + 1e-6).all()
        assert set(contexts[:, 3]) == {-1.0, 0.0, 1.0}
    assert len(np.unique(seen[:, 0])) == 300
    first, other = (np.asarray(data_of(state_of(context=c)).body("chest").xpos) for c in TASK.train_contexts[:2])
    assert np.abs(first - other).max() > 0.01


def test_episodes_start_with_closed_drawers_and_an_arm_that_is_a_little_off():
    states = np.stack([begin(key, CONTEXT) for key in jax.random.split(jax.random.key(2), 50)])
    np.testing.assert_array_equal(states[:, [8, 9, 10, 18, 19, 20]], 0.0)
    np.testing.assert_allclose(states[:, [*range(1, 8), *range(11, 18)]].std(0), 0.01, rtol=0.4)
    np.testing.assert_allclose(states[:, 1:8].mean(0), START[:7], atol=0.006)


# what it costs


def test_the_cost_is_that_of_the_formulas():
    s, u = TASK.settings, jnp.asarray(np.random.default_rng(1).uniform(-1, 1, 7), jnp.float32)
    for state, context in drawn_states():
        state[11:18] = np.linspace(-1, 1, 7)
        data, which = data_of(state), DRAWERS[int(context[3]) + 1]
        _, chest = in_chest(data)
        dx, dy, dz = chest.T @ (data.site("tip").xpos - data.site(f"{which}_handle").xpos)
        lift = s.funnel * dx**2 / (dx**2 + s.precision**2)
        d2 = dx**2 + dy**2 + (dz - lift) ** 2
        turn = chest.T @ data.body("hand").xmat.reshape(3, 3)
        down = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # x down, and y along the bar
        angle = np.arccos(np.clip((np.trace(down.T @ turn) - 1) / 2, -1, 1))
        missing = data.joint(which).qpos[0] - s.opened
        cost = (
            s.distance_weight * (np.sqrt(d2 + s.precision**2) - s.precision)
            + 0.5 * s.log_weight * np.log(1 + d2 / s.precision**2)
            + 0.5 * s.turn_weight * (2 * np.sin(angle / 2)) ** 2
            + s.open_weight * (np.sqrt(missing**2 + 0.02**2) - 0.02)
            + 0.5 * s.velocity_weight * np.sum(np.linspace(-1, 1, 7) ** 2)
            + 0.5 * s.action_weight * float(u @ u)
        )
        np.testing.assert_allclose(TASK.cost(TASK.control_state(state), u, 3, context), cost, rtol=1e-4)


@pytest.mark.parametrize(("opening", "solved"), [(0.201, True), (0.199, False)])
def test_twenty_centimetres_of_the_right_drawer_at_the_end_are_success(opening, solved):
    xs = jnp.zeros((4, 20)).at[-1, 9].set(opening).at[-1, 7].set(0.3)  # the left one is open in any case
    episode = xs, jnp.zeros((3, 7)), CONTEXT
    assert bool(TASK.solved(*episode)) == solved
    assert float(TASK.measure(*episode)) == pytest.approx(100 * opening)
    assert not TASK.solved(xs[::-1], jnp.zeros((3, 7)), CONTEXT)  # open, and closed again


# the physics


def reaching(offset, opening=0.0) -> np.ndarray:
    """Angles at which the tips are off their place behind the right handle, in the chest's frame; the hand down."""
    data = data_of(state_of())
    _, chest = in_chest(data)

    def error(angles):
        data.qpos[:] = [*angles, 0.0, 0.0, opening]
        mujoco.mj_kinematics(MODEL, data)
        apart = chest.T @ (data.site("tip").xpos - data.site("right_handle").xpos) - offset
        turn = chest.T @ data.body("hand").xmat.reshape(3, 3)
        return np.concatenate(
            [20 * apart, turn[:, 0] - [0, 0, -1], turn[:, 1] - [0, 1, 0], 0.01 * (angles - START[:7])]
        )

    return least_squares(error, START[:7]).x


def follow(*ways):
    """The last state of an episode along these angles, in equal times."""
    middle, half = START[:7], np.array([0.9, 0.8, 0.9, 1.0, 0.9, 1.1, 0.9])
    state = jax.jit(TASK.reset)(jax.random.key(0))
    state = dataclasses.replace(state, data={**state.data, "state": jnp.asarray(state_of()), "context": CONTEXT})
    each = TASK.horizon // (len(ways) - 1)
    for i in range(TASK.horizon):
        part, share = divmod(i / each, 1.0)
        one, other = ways[min(int(part), len(ways) - 2)], ways[min(int(part) + 1, len(ways) - 1)]
        state = step(state, jnp.asarray(((1 - share) * one + share * other - middle) / half, jnp.float32))
    return state


def test_a_drawer_opens_when_its_handle_is_pulled_and_another_way_it_stays_closed():
    high, above, behind, way = [0.0, 0.0, 0.2], [0.0, 0.0, 0.08], [0.0, 0.0, 0.0], (0.0, 0.0, 0.14, 0.28, 0.28)
    pull = follow(START[:7], reaching(high), *(reaching(behind, opening) for opening in way))
    x = TASK.control_state(pull.data["state"])
    assert 0.2 < x[9] < 0.3
    np.testing.assert_allclose(x[7:9], 0.0, atol=1e-3)
    assert (float(pull.done), float(pull.metrics["success"]), float(pull.info["truncation"])) == (1, 1, 1)
    over = follow(START[:7], reaching(high), *(reaching(above, opening) for opening in way))
    assert TASK.control_state(over.data["state"])[9] < 1e-3
    assert float(over.metrics["success"]) == 0.0


def test_servos_bring_the_arm_where_actions_say_and_hold_it_against_its_weight():
    action = jnp.asarray([0.3, -0.2, 0.2, 0.1, -0.3, 0.2, 0.4])
    state, on = jnp.asarray(state_of()), jax.jit(TASK.simulator.step)
    for _ in range(150):
        state = on(state, action)
    wanted = START[:7] + action * jnp.array([0.9, 0.8, 0.9, 1.0, 0.9, 1.1, 0.9])
    np.testing.assert_allclose(state[1:8], wanted, atol=2e-3)
    np.testing.assert_allclose(state[11:18], 0.0, atol=2e-3)


# what is seen


def test_it_is_a_control_task_that_can_be_looked_at():
    assert check_task(SEEING) == []
    assert SEEING.observation_size == 14 + 48 * 48 * 3
    state = jax.jit(SEEING.reset)(jax.random.key(3))
    x = SEEING.control_state(state.data["state"])
    np.testing.assert_allclose(state.obs["state"], jnp.concatenate([x[:7], x[10:17]]), atol=1e-6)


def handle_in(image, data) -> tuple[np.ndarray, np.ndarray]:
    """Around the left handle, pixels in the colour of bars, and those whose ray hits one as MuJoCo casts it."""
    camera = MODEL.camera("shoulder")
    half, hit = np.tan(np.deg2rad(camera.fovy[0]) / 2), np.zeros(1, np.int32)
    place, turn = data.cam_xpos[camera.id], data.cam_xmat[camera.id].reshape(3, 3)
    x, y, z = turn.T @ (data.site("left_handle").xpos - place)
    row, column = int(24 * (1 + y / z / half)), int(24 * (1 - x / z / half))
    rows, columns = np.meshgrid(np.arange(row - 5, row + 6), np.arange(column - 5, column + 6), indexing="ij")
    cast = np.zeros(rows.shape, bool)
    for i in np.ndindex(rows.shape):
        ray = turn @ [half * ((2 * columns[i] + 1) / 48 - 1), half * (1 - (2 * rows[i] + 1) / 48), -1.0]
        mujoco.mj_ray(MODEL, data, place, ray, np.ones(6, np.uint8), 1, -1, hit)
        cast[i] = hit[0] >= 0 and np.array_equal(MODEL.geom_rgba[hit[0]], BAR)
    seen = image[rows, columns]
    return seen[..., 2] > 1.5 * seen[..., 0], cast


@pytest.mark.parametrize("guider", ["badmm", "plato", "sitt", "dagger"])
def test_its_defaults_suit_guiders_of_both_kinds(guider):
    camera = {"camera": {"height": 8, "width": 8}}
    built = Experiment.resolve(
        {"run": {"task": "drawer", "guider": guider, "engine": "mujoco"}, "task": camera}
    ).build()
    assert built.task.observation_size == 14 + 8 * 8 * 3


def test_the_camera_sees_the_handle_unless_the_arm_is_before_it():
    counts = []
    for pan in (-0.5, 0.0, 0.4):
        state = state_of([pan, *START[1:]])
        seen, cast = handle_in(np.asarray(look(TASK.control_state(state), CONTEXT)), data_of(state))
        np.testing.assert_array_equal(seen, cast)
        counts.append(seen.sum())
    assert min(counts[0], counts[2]) > 5
    assert counts[1] == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("horizon", 1, "at least 2"),
        ("train_places", 2, "at least 3"),
        ("opened", 0.1, "at least 0.2 m"),
        ("opened", float("nan"), "at least 0.2 m"),
        ("precision", 0.0, "positive"),
        ("opened", 0.4, "at most 0.34 m"),
        ("shift", 0.2, "at most 0.15 m"),
        ("turn", 40.0, "at most 30 degrees"),
        ("funnel", -0.1, "at least 0"),
    ],
)
def test_impossible_settings_are_told(name, value, said):
    with pytest.raises(SettingsError, match=said):
        from_dict(DrawerSettings, {name: value}, "task")
