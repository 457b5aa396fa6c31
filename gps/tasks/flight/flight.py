"""`flight`: a quadrotor flies through a hall of random obstacles, which its learner sees by a depth camera alone.

Who knows all obstacles around may fly in any direction, wherever the camera looks: nothing in the reward asks for
that. Who sees has to look where it flies.

Source:
    Messikommer, Xing, Aljalbout, Scaramuzza, "Student-informed teacher training", ICLR 2025, arXiv 2412.09149, have
    such a task; its numbers are not published, and those here are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dynamics import rays
from gps.settings import check_at_least, check_positive
from gps.tasks.flight.course import BESIDE, CEILING, COUNT, HIGH, LENGTH, LOW, Course, draw
from gps.tasks.flight.quadrotor import GRAVITY, Body, facing, fly
from gps.tasks.task import ActionSpace, State

RATES = (1.5, 1.5, 1.5)  # rad/s, of roll, pitch and yaw at an action of 1
THRUST = 0.3  # by which an action of 1 is above the thrust that hovers, and one of -1 below it, as a share of that
OWN = 12  # numbers of what the learner knows of itself
EACH = 5  # numbers of what the guider knows of an obstacle
_MOVING = 0.5  # m/s, above which the direction of flight says something


@dataclass(frozen=True)
class FlightSettings:
    """The flight, what it pays, and what is seen."""

    dt: float = 0.1  # s, of a step
    limit: int = 120  # steps, after which an episode is truncated
    heading: float = 90.0  # degrees, most by which the first heading is off the hall's direction
    drag: float = 0.3  # 1/s
    radius: float = 0.2  # m, of the quadrotor: what is nearer than that is hit
    reached: float = 0.7  # m, horizontal distance to the goal within which it counts as reached
    speed: float = 2.0  # m/s, progress that is faster is not paid
    goal: float = 5.0  # reward at the goal; a metre of progress is 1
    hit: float = 5.0  # taken from the reward of a step that hits something
    near: float = 0.1  # cost of a step at the surface of an obstacle; it falls linearly to 0 at `margin`
    margin: float = 0.5  # m, beyond `radius`
    rates: float = 0.02  # cost of a step of full roll or pitch rate; yaw is free
    nearest: int = 6  # obstacles that the guider knows
    height: int = 24  # pixels
    width: int = 24  # pixels
    view: float = 90.0  # degrees, that the image's width takes
    far: float = 6.0  # m; what is deeper is seen as that deep

    def __post_init__(self):
        check_positive(self, "dt", "radius", "margin", "reached", "speed", "far", "view")
        check_at_least(self, 0, "drag", "goal", "heading", "hit", "near", "rates")
        check_at_least(self, 1, "limit", "nearest")
        check_at_least(self, 4, "height", "width")
        if self.nearest > COUNT:
            raise ValueError(f"nearest must be at most {COUNT}, as there are so many obstacles, not {self.nearest}")
        if self.heading > 180:
            raise ValueError(f"heading must be at most 180 degrees, not {self.heading}")
        if not self.view < 180:
            raise ValueError(f"view must be below 180 degrees, not {self.view}")


class Flight:
    """See `Environment` and `gps.tasks.images`. The camera is at the body, and looks along its x.

    Actions: thrust, roll rate, pitch rate and yaw rate, as shares of `THRUST` and `RATES`. Reward: metres of progress
    to the goal, `settings.goal` there, minus `settings.hit` for a hit, minus the costs of roll and pitch rates and of
    being near an obstacle. Goal and hit end the episode. Who comes within `radius` of an obstacle, a wall, floor or
    ceiling hits it, and who is on its back has hit something.

    Vectors are in the frame of the heading (x horizontal in the direction in which the camera looks, z up), lengths in
    units of 3 m (the offset to the goal: of `LENGTH`), velocities in units of 3 m/s.

    obs["state"] (12): offset to the goal (2), y in the hall, height above 1.5 m in m, cosine and sine of the heading in
    the hall's frame, velocity (3), body z (3). obs["privileged_state"] (5 each): of the nearest obstacles, the nearest
    first, offset to the middle (2), direction to the nearest point of the surface times exp(-its distance from the hull
    / 1 m) (2), and the mean half width in m.
    Metrics: "success", the goal is reached; "angle", in degrees between heading and horizontal velocity, NaN below
    0.5 m/s.
    """

    calls_host = False
    actions = ActionSpace(4)
    reported = ("angle",)

    def __init__(self, settings: FlightSettings, name: str = "flight"):
        self.name = name
        self.settings = settings
        self.horizon = settings.limit
        self.image_shape = (settings.height, settings.width, 1)
        self.observation_size = OWN + settings.height * settings.width
        across = np.tan(np.deg2rad(settings.view) / 2)
        fovy = 2 * np.rad2deg(np.arctan(across * settings.height / settings.width))
        self._pixels = rays.pixels(settings.height, settings.width, float(fovy))
        self.privileged_size = EACH * settings.nearest

    def reset(self, key: PRNGKeyArray) -> State:
        """Draw a course, and begin at rest."""
        course, beside, angle = jax.random.split(key, 3)
        y = BESIDE * jax.random.uniform(beside, minval=-1.0)
        place = jnp.stack([jnp.zeros(()), y, jnp.asarray(CEILING / 2)])
        heading = np.deg2rad(self.settings.heading) * jax.random.uniform(angle, minval=-1.0)
        return self.start(draw(course), facing(place, heading))

    def start(self, course: Course, body: Body) -> State:
        """Begin an episode there."""
        data = {"course": course, "body": body, "t": jnp.zeros((), jnp.int32)}
        zero = jnp.zeros(())
        metrics = {"success": zero, "angle": jnp.full((), jnp.nan)}
        return State(data, self._observe(data), zero, zero, metrics, {"truncation": zero})

    def step(self, state: State, action: Float[Array, "4"]) -> State:
        """Fly for `dt`."""
        own, course, t = self.settings, state.data["course"], state.data["t"] + 1
        action = jnp.clip(action, -1.0, 1.0)
        thrust, rates = GRAVITY * (1 + THRUST * action[0]), jnp.asarray(RATES) * action[1:]
        body = fly(state.data["body"], thrust, rates, own.dt, own.drag)
        before, distance = (jnp.linalg.norm(course.goal - at.place[:2]) for at in (state.data["body"], body))
        most = own.speed * own.dt
        gap = course.nearest(body.place[:2])[1].min() - own.radius
        hit = (gap < 0) | self._outside(body)
        there = (distance < own.reached) & ~hit
        reward = jnp.clip(before - distance, -most, most) - own.rates * (action[1] ** 2 + action[2] ** 2)
        reward = reward - own.near * jnp.clip(1 - gap / own.margin, 0.0, 1.0)
        reward = reward + jnp.where(there, own.goal, 0.0) - jnp.where(hit, own.hit, 0.0)
        data = {"course": course, "body": body, "t": t}
        over, late = there | hit, t >= own.limit
        metrics = {"success": there.astype(float), "angle": _angle(body)}
        ends = {"truncation": (late & ~over).astype(float)}
        return State(data, self._observe(data), reward, (over | late).astype(float), metrics, ends)

    def look(self, state: State) -> Float[Array, "H W 1"]:
        """What the camera sees in a state: depth, in shares of `far`."""
        body, far = state.data["body"], self.settings.far
        turn = jnp.stack([-body.turn[:, 1], body.turn[:, 2], -body.turn[:, 0]], axis=1)  # right, up, backwards
        depth, *_ = rays.cast(state.data["course"].scene(), body.place, turn, self._pixels, far)
        return depth[..., None] / far

    def _outside(self, body: Body) -> Array:
        """Beyond walls, floor or ceiling, or toppled."""
        low, high = jnp.array([*LOW, 0.0]) + self.settings.radius, jnp.array([*HIGH, CEILING]) - self.settings.radius
        outside = ((body.place < low) | (body.place > high)).any()
        return outside | (body.turn[2, 2] < 0)

    def _observe(self, data: dict[str, Any]) -> dict[str, Array]:
        body, course = data["body"], data["course"]
        c, s = body.heading
        seen = lambda v: jnp.stack([c * v[..., 0] + s * v[..., 1], c * v[..., 1] - s * v[..., 0]], axis=-1)  # noqa: E731
        place, up, velocity = body.place, body.turn[:, 2], body.velocity
        own = [
            seen(course.goal - place[:2]) / LENGTH,
            jnp.stack([place[1] / 3.0, place[2] - CEILING / 2, c, s]),
            jnp.append(seen(velocity), velocity[2]) / 3.0,
            jnp.append(seen(up), up[2]),
        ]
        surface, gap = course.nearest(place[:2])
        order = jnp.argsort(gap)[: self.settings.nearest]
        towards = surface / jnp.maximum(jnp.linalg.norm(surface, axis=-1), 1e-6)[:, None]
        closeness = towards * jnp.exp(self.settings.radius - gap)[:, None]
        known = [seen(course.middles - place[:2]) / 3.0, seen(closeness), course.sizes.mean(-1, keepdims=True)]
        obstacles = jnp.concatenate(known, axis=-1)[order]
        return {"state": jnp.concatenate(own), "privileged_state": obstacles.reshape(-1)}


def _angle(body: Body) -> Array:
    velocity = body.velocity[:2]
    speed = jnp.linalg.norm(velocity)
    along = velocity @ body.heading / jnp.maximum(speed, 1e-6)
    return jnp.where(speed > _MOVING, jnp.rad2deg(jnp.arccos(jnp.clip(along, -1.0, 1.0))), jnp.nan)
