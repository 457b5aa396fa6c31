"""The flight against another integrator, geometry by hand, and its rules: rewards, ends, and what each role sees."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.spatial.transform import Rotation

from gps.settings import SettingsError, from_dict
from gps.tasks.check import check_task
from gps.tasks.flight.course import BOXES, COUNT, PILLARS, Course, draw
from gps.tasks.flight.flight import OWN, Flight, FlightSettings
from gps.tasks.flight.quadrotor import GRAVITY, Body, facing, fly

TASK = Flight(FlightSettings(height=5, width=7))
HOVER = jnp.zeros(4)
start, step, look = jax.jit(TASK.start), jax.jit(TASK.step), jax.jit(TASK.look)
flying = jax.jit(fly)


def at(x=0.0, y=0.0, z=1.5, angle=0.0, velocity=(0.0, 0.0, 0.0)) -> Body:
    body = facing(jnp.array([x, y, z]), jnp.asarray(float(angle)))
    return dataclasses.replace(body, velocity=jnp.array(velocity))


def course(**obstacles) -> Course:
    """All obstacles beyond the hall, but for those that are said: {index: (x, y)}."""
    middles = np.full((COUNT, 2), 100.0) + np.arange(COUNT)[:, None]
    for name, middle in obstacles.items():
        middles[int(name[1:])] = middle
    sizes = np.tile([0.3, 0.3], (COUNT, 1))
    sizes[PILLARS:] = 0.2, 0.1
    return Course(jnp.asarray(middles), jnp.asarray(sizes), jnp.zeros(COUNT), jnp.array([10.0, 0.0]))


# the quadrotor


def test_it_hovers_falls_and_turns_as_the_formulas_say():
    body = at(angle=0.3)
    rest = flying(body, GRAVITY, jnp.zeros(3), 0.1, 0.3)
    np.testing.assert_allclose(rest.place, body.place, atol=1e-6)
    falling = body
    for _ in range(10):
        falling = flying(falling, 0.0, jnp.zeros(3), 0.1, 0.3)
    np.testing.assert_allclose(falling.velocity, [0, 0, -GRAVITY / 0.3 * (1 - np.exp(-0.3))], atol=1e-4)
    dropped = GRAVITY / 0.3 * (1 - (1 - np.exp(-0.3)) / 0.3)
    np.testing.assert_allclose(falling.place, [0, 0, 1.5 - dropped], atol=1e-4)
    turned = body
    for _ in range(10):
        turned = flying(turned, GRAVITY, jnp.array([0.0, 0.0, 1.2]), 0.1, 0.3)
    np.testing.assert_allclose(turned.heading, [np.cos(1.5), np.sin(1.5)], atol=1e-5)
    np.testing.assert_allclose(turned.attitude, [np.cos(0.75), 0, 0, np.sin(0.75)], atol=1e-5)


def test_it_flies_as_a_rotation_matrix_integrated_by_scipy():
    rng = np.random.default_rng(0)
    attitude = rng.normal(size=4)
    attitude /= np.linalg.norm(attitude)
    body = Body(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3)), jnp.asarray(attitude))
    thrust, rates, drag = 12.0, np.array([1.3, -0.8, 0.9]), 0.4

    def slope(_, s):
        turn = s[6:].reshape(3, 3)
        skew = np.cross(rates, np.eye(3)).T  # its columns: skew @ v = rates x v
        force = thrust * turn[:, 2] - [0, 0, GRAVITY] - drag * s[3:6]
        return np.concatenate([s[3:6], force, (turn @ skew).reshape(-1)])

    first = Rotation.from_quat(np.roll(attitude, -1)).as_matrix()
    begun = np.concatenate([body.place, body.velocity, first.reshape(-1)])
    exact = solve_ivp(slope, (0, 0.5), begun, rtol=1e-9, atol=1e-9).y[:, -1]
    for _ in range(5):
        body = flying(body, thrust, jnp.asarray(rates), 0.1, drag)
    np.testing.assert_allclose(body.turn, exact[6:].reshape(3, 3), atol=2e-5)
    np.testing.assert_allclose(body.velocity, exact[3:6], atol=2e-4)
    np.testing.assert_allclose(body.place, exact[:3], atol=2e-4)


# what is where


def test_nearest_points_are_those_of_a_fine_grid_on_each_surface():
    some = draw(jax.random.key(3))
    place = np.array([4.1, 0.7])
    surface, gap = some.nearest(jnp.asarray(place))
    around = np.linspace(0, 2 * np.pi, 4001)
    for i in range(COUNT):
        middle, size, angle = (np.asarray(value[i]) for value in (some.middles, some.sizes, some.angles))
        if i < PILLARS:
            points = middle + size[0] * np.stack([np.cos(around), np.sin(around)], -1)
        else:
            edge = np.linspace(-1, 1, 2001)
            sides = [np.stack(pair, -1) for s in (-1, 1) for pair in ((edge, 0 * edge + s), (0 * edge + s, edge))]
            c, s = np.cos(angle), np.sin(angle)
            points = middle + (np.concatenate(sides) * size) @ np.array([[c, s], [-s, c]])
        distances = np.linalg.norm(points - place, axis=-1)
        assert float(gap[i]) == pytest.approx(distances.min(), abs=1e-4)
        np.testing.assert_allclose(surface[i], points[distances.argmin()] - place, atol=2e-3)
    box = course(o8=(1.0, 0.0))
    assert float(box.nearest(jnp.array([1.05, 0.02]))[1][8]) == pytest.approx(-0.08)  # inside


def image(course_, body):
    return np.asarray(look(start(course_, body)))[..., 0] * TASK.settings.far


def test_depth_is_that_of_walls_boxes_and_pillars_ahead():
    depth = image(course(), at(x=9.0))
    assert depth[2, 3] == pytest.approx(2.5, abs=1e-4)  # the wall at the end
    # the lowest row looks down to the floor, by 4 / 7 of the depth, as the width of 7 pixels takes 90 degrees
    free = image(course(), at(x=0.0))
    np.testing.assert_allclose(free[4], 1.5 * 7 / 4, atol=1e-4)
    assert free[2, 3] == pytest.approx(TASK.settings.far)
    left = image(course(), at(x=5.0, angle=np.pi / 2))
    assert left[2, 3] == pytest.approx(3.5, abs=1e-4)  # the wall beside
    assert image(course(o8=(2.0, 0.0)), at())[2, 3] == pytest.approx(1.8, abs=1e-4)
    pillar = image(course(o0=(2.0, 0.0)), at())
    assert pillar[2, 3] == pytest.approx(1.7, abs=1e-4)
    across = 2 / 7  # of the next pixel: its ray y = x across misses the circle (x - 2)^2 + y^2 = 0.3^2
    assert 4.0 - (1 + across**2) * (4.0 - 0.09) < 0
    assert pillar[2, 4] == pytest.approx(min(3.5 / across, 6.0), abs=1e-4)
    # to the left of the picture is what is to the left: y is to the left of x
    beside = image(course(o0=(2.0, 2.0 * across)), at())
    assert beside[2, 2] < 2.0 < beside[2, 4]


def test_the_guider_sees_the_nearest_obstacles_all_around_in_the_frame_of_the_heading():
    placed = course(o0=(-1.0, 0.0), o8=(0.0, 2.0))  # behind, and to the left
    state = start(placed, at(angle=np.pi / 2))  # looks to the left
    seen = np.asarray(state.obs["privileged_state"]).reshape(-1, 5)
    np.testing.assert_allclose(seen[0, :2] * 3, [0.0, 1.0], atol=1e-5)  # what was behind is to the left of it now
    np.testing.assert_allclose(seen[0, 2:4], [0.0, np.exp(-(0.7 - 0.2))], atol=1e-5)
    np.testing.assert_allclose(seen[0, 4], 0.3, atol=1e-6)
    np.testing.assert_allclose(seen[1, :2] * 3, [2.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(seen[1, 2:4], [np.exp(-(1.9 - 0.2)), 0.0], atol=1e-5)
    own = np.asarray(state.obs["state"][:OWN])
    np.testing.assert_allclose(own[:2], [0.0, -1.0], atol=1e-6)  # the goal is to the right


def test_courses_are_passable_and_others_at_every_reset():
    some = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 300))
    assert len(np.unique(np.asarray(some.middles[:, 0, 0]))) == 300
    clear = jax.vmap(lambda one, y: one.nearest(jnp.stack([jnp.zeros(()), y]))[1].min())
    assert float(clear(some, jnp.linspace(-2.0, 2.0, 300)).min()) > 1.0  # at starts
    assert float(jax.vmap(lambda one: one.nearest(one.goal)[1].min())(some).min()) > 1.0
    # in each row there is room for the quadrotor between any two neighbours, by the circles around them
    reach = np.where(np.arange(COUNT) < PILLARS, some.sizes[..., 0], np.linalg.norm(some.sizes, axis=-1))
    middles = np.asarray(some.middles)
    apart = np.linalg.norm(middles[:, :, None] - middles[:, None], axis=-1) - reach[:, :, None] - reach[:, None]
    assert apart[:, ~np.eye(COUNT, dtype=bool)].min() > 2 * TASK.settings.radius
    assert PILLARS + BOXES == COUNT


# the rules


def test_progress_is_paid_up_to_a_speed_and_rates_but_for_yaw_cost():
    slow, fast = (start(course(), at(velocity=(v, 0.0, 0.0))) for v in (1.0, 4.0))
    after = step(slow, HOVER)
    moved = float(after.data["body"].place[0])
    assert moved == pytest.approx((1 - np.exp(-0.03)) / 0.3, abs=1e-5)  # 0.1 s with drag
    assert float(after.reward) == pytest.approx(moved, abs=1e-5)
    assert float(step(fast, HOVER).reward) == pytest.approx(0.2, abs=1e-5)
    rolling = step(slow, jnp.array([0.0, 0.5, 0.0, 0.0]))
    assert float(rolling.reward) == pytest.approx(moved - 0.02 * 0.25, abs=1e-4)
    assert float(step(slow, jnp.array([0.0, 0.0, 0.0, 1.0])).reward) == pytest.approx(moved, abs=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5, np.pi])
def test_the_reward_does_not_ask_where_it_looks(angle):
    """The same flight by a body that is turned: what acts is along its z alone."""
    near = course(o0=(0.7, 0.0))
    for yaw in (-1.0, 0.0, 1.0):
        state = start(near, at(angle=angle, velocity=(0.6, 0.3, 0.0)))
        one, two = (step(state, jnp.array([0.4, 0.0, 0.0, y])) for y in (0.0, yaw))
        np.testing.assert_allclose(two.reward, one.reward, atol=1e-6)
    straight = step(start(near, at(velocity=(0.6, 0.3, 0.0))), jnp.array([0.4, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(one.reward, straight.reward, atol=1e-6)
    assert float(one.reward) < 0.06  # near the pillar it costs


def test_hits_and_the_goal_end_an_episode_and_the_limit_cuts_it():
    def ended(body, placed=None):
        state = step(start(placed or course(), body), HOVER)
        return float(state.done), float(state.reward), float(state.metrics["success"]), float(state.info["truncation"])

    ahead = (1.0, 0.0, 0.0)
    assert ended(at())[0] == 0
    done, reward, success, cut = ended(at(x=9.25, velocity=ahead))
    assert (done, success, cut) == (1, 1, 0)
    assert reward == pytest.approx(5.0 + 0.0985, abs=1e-3)
    for body, placed in (
        (at(velocity=ahead), course(o0=(0.55, 0.0))),  # 0.3 and 0.2 m of radii: 0.05 m between them
        (at(velocity=ahead), course(o8=(0.48, 0.0))),
        (at(y=3.25, velocity=(0.0, 1.0, 0.0)), None),
        (at(x=-1.25, velocity=(-1.0, 0.0, 0.0)), None),
        (at(z=0.25, velocity=(0.0, 0.0, -1.0)), None),
        (at(z=2.75, velocity=(0.0, 0.0, 1.0)), None),
        (dataclasses.replace(at(), attitude=jnp.array([0.6, 0.8, 0.0, 0.0])), None),  # on its back
    ):
        done, reward, success, cut = ended(body, placed)
        assert (done, success, cut) == (1, 0, 0)
        assert reward < -4.7
    state = start(course(), at())
    state = dataclasses.replace(state, data={**state.data, "t": jnp.asarray(TASK.settings.limit - 1, jnp.int32)})
    last = step(state, HOVER)
    assert (float(last.done), float(last.info["truncation"])) == (1, 1)


def test_the_angle_is_between_heading_and_velocity_where_it_moves():
    angles = [
        float(step(start(course(), at(angle=angle, velocity=v)), HOVER).metrics["angle"])
        for angle, v in ((0.5, (1.0, 0.0, 0.0)), (0.5, (0.0, -2.0, 0.0)), (0.5, (0.1, 0.0, 1.0)))
    ]
    np.testing.assert_allclose(angles, [np.rad2deg(0.5), 90 + np.rad2deg(0.5), np.nan], atol=1e-2)


@pytest.mark.parametrize("limit", [180.0, 30.0])
def test_the_first_heading_is_within_its_limit(limit):
    task = Flight(FlightSettings(heading=limit, height=5, width=7))
    seen = np.asarray(jax.jit(jax.vmap(task.reset))(jax.random.split(jax.random.key(0), 200)).obs["state"])
    c, s = seen[:, 4], seen[:, 5]
    angles = np.rad2deg(np.arctan2(s, c))
    assert 0.9 * limit < np.abs(angles).max() <= limit + 1e-3
    assert angles.min() < 0 < angles.max()


def test_it_is_an_environment_that_can_be_looked_at():
    assert check_task(TASK) == []
    assert TASK.observation_size == OWN + 35


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nearest", 12, "at most 9"),
        ("heading", 181.0, "at most 180"),
        ("view", 180.0, "below 180"),
        ("dt", 0.0, "positive"),
        ("height", 2, "at least 4"),
    ],
)
def test_impossible_settings_are_told(name, value, said):
    with pytest.raises(SettingsError, match=said):
        from_dict(FlightSettings, {name: value}, "task")
