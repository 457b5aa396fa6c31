"""A hall with pillars and boxes between a start and a goal, drawn at random.

The hall is 13 m long and 7 m wide, x along it and y to the left. Obstacles stand in a grid of 3 x 3 cells, one in
each, in rows at x = 2.5, 5 and 7.5 m. All of them reach from the floor to the ceiling, so that the way between them is
a matter of x and y.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dynamics.rays import Shapes

CEILING = 3.0  # m
LOW, HIGH = (-1.5, -3.5), (11.5, 3.5)  # corners of the hall, x and y, m
LENGTH = 10.0  # m, from start to goal along x
BESIDE = 2.0  # m, most of y at start and goal
PILLARS, BOXES = 5, 4
COUNT = PILLARS + BOXES
ROWS, ACROSS = (2.5, 5.0, 7.5), (-2.0, 0.0, 2.0)  # m, middles of the grid's cells in x and y
SHIFT = 1.0  # m, most by which a row is shifted in y
JITTER = 0.3  # m, most by which an obstacle is off the middle of its cell, in x and in y
RADII = (0.15, 0.35)  # m, of pillars
HALVES = (
    0.1,
    0.25,
)  # m, half lengths of boxes; their corners are no further out than the widest pillar, to a hand's breadth


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Course:
    """The obstacles, pillars first, and the goal."""

    middles: Float[Array, "9 2"]  # m
    sizes: Float[Array, "9 2"]  # m: the radius twice, or half lengths
    angles: Float[Array, "9"]  # rad, by which boxes are turned around z; 0 for pillars
    goal: Float[Array, "2"]  # m

    def nearest(self, place: Float[Array, "2"]) -> tuple[Float[Array, "9 2"], Float[Array, "9"]]:
        """From a place to the nearest point of each obstacle's surface, and the distance to it; negative inside."""
        offset = self.middles - place
        far = jnp.linalg.norm(offset[:PILLARS], axis=-1)
        gap = far - self.sizes[:PILLARS, 0]
        pillars = offset[:PILLARS] * (gap / jnp.maximum(far, 1e-6))[:, None]
        turns = _turns(self.angles[PILLARS:])
        halves = self.sizes[PILLARS:]
        at = -jnp.einsum("nji,nj->ni", turns, offset[PILLARS:])  # the place in each box's frame
        beyond = jnp.abs(at) - halves
        outside = jnp.linalg.norm(jnp.maximum(beyond, 0.0), axis=-1)
        distance = outside + jnp.minimum(beyond.max(-1), 0.0)
        boxes = jnp.einsum("nij,nj->ni", turns, jnp.clip(at, -halves, halves) - at)
        return jnp.concatenate([pillars, boxes]), jnp.concatenate([gap, distance])

    def scene(self) -> dict[str, Shapes]:
        """What a camera sees: the obstacles, the floor, the ceiling and the four walls."""
        middles = jnp.concatenate([self.middles, jnp.full((COUNT, 1), CEILING / 2)], axis=1)
        height = jnp.full((COUNT, 1), CEILING / 2)
        sizes = jnp.concatenate([self.sizes, height], axis=1)
        radius, half = sizes[:PILLARS, 0], height[:PILLARS, 0]
        pillars = jnp.stack([radius, half, half], axis=1), middles[:PILLARS], jnp.zeros((PILLARS, 1, 1)) + jnp.eye(3)
        turns = jnp.zeros((BOXES, 3, 3)).at[:, :2, :2].set(_turns(self.angles[PILLARS:])).at[:, 2, 2].set(1.0)
        boxes = sizes[PILLARS:], middles[PILLARS:], turns
        return {"cylinder": pillars, "box": boxes, "plane": _HALL}


def draw(key: PRNGKeyArray) -> Course:
    """Another course."""
    goal, rows, jitter, cells, radii, halves, angles = jax.random.split(key, 7)
    shifts = SHIFT * jax.random.uniform(rows, (len(ROWS), 1), minval=-1.0)
    x, y = jnp.broadcast_arrays(jnp.asarray(ROWS)[:, None], jnp.asarray(ACROSS) + shifts)
    middles = jnp.stack([x, y], axis=-1).reshape(COUNT, 2)
    middles = middles + JITTER * jax.random.uniform(jitter, (COUNT, 2), minval=-1.0)
    radius = jax.random.uniform(radii, (PILLARS, 1), minval=RADII[0], maxval=RADII[1])
    boxes = jax.random.uniform(halves, (BOXES, 2), minval=HALVES[0], maxval=HALVES[1])
    turned = jax.random.uniform(angles, (BOXES,), maxval=np.pi / 2)
    return Course(
        middles=middles[jax.random.permutation(cells, COUNT)],  # which cells have pillars
        sizes=jnp.concatenate([jnp.tile(radius, 2), boxes]),
        angles=jnp.concatenate([jnp.zeros(PILLARS), turned]),
        goal=jnp.stack([jnp.asarray(LENGTH), BESIDE * jax.random.uniform(goal, minval=-1.0)]),
    )


def _turns(angles: Float[Array, " n"]) -> Float[Array, "n 2 2"]:
    c, s = jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([jnp.stack([c, -s], axis=-1), jnp.stack([s, c], axis=-1)], axis=-2)


def _walls() -> Shapes:
    """Six planes, whose z looks into the hall: floor, ceiling, and walls at either end of x and y."""
    z = np.eye(3)
    about_x = lambda c, s: np.array([[1, 0, 0], [0, c, -s], [0, s, c]], float)  # noqa: E731
    about_y = lambda c, s: np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], float)  # noqa: E731
    turns = [z, about_x(-1, 0), about_y(0, 1), about_y(0, -1), about_x(0, -1), about_x(0, 1)]
    places = [(0, 0, 0), (0, 0, CEILING), (LOW[0], 0, 0), (HIGH[0], 0, 0), (0, LOW[1], 0), (0, HIGH[1], 0)]
    return np.zeros((6, 3)), np.array(places, float), np.stack(turns)  # pyright: ignore[reportReturnType]


_HALL = _walls()
