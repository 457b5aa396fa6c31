"""A MuJoCo model as triangles that a page can draw, and where its bodies are in physics states.

Each shape of a geom is a mesh of few triangles, with vertices in the frame of the body that it is fixed to; a page
moves them by the body's pose. What never moves in what is shown is given in the world's frame, once.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import mujoco
import numpy as np
from jaxtyping import Float, Int

from dynamics.camera import color_of
from gps.figures.render import STATE, put
from gps.figures.report.episodes import spread

SIDES, RINGS = 16, 5  # of round shapes: facets around the axis, and circles from a pole to the equator
MOST_FACES = 1500  # of a mesh; what has more is shown as its convex hull
MOST_LINES = 28  # of a height field's grid in each direction; of one with more, so many are shown
SHOWN_GROUPS = 3  # of geoms: 0 to 2, as MuJoCo's own viewer has it
DISTANCE = 1.7  # of the eye, in lengths of the longest side of what is seen
FLOOR = 1.0  # m, half the side of a plane without an end

_ANGLES = np.linspace(0, np.pi / 2, RINGS)
QUARTER = np.stack([np.sin(_ANGLES), np.cos(_ANGLES)], 1)  # of a circle: distance from the axis, height

Mesh = tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]  # vertices in m, and triangles of their indices


@dataclass(frozen=True)
class Part:
    """A geom."""

    body: int
    name: str  # its own, or that of its body
    color: str  # "#rrggbb"
    mesh: Mesh  # in the body's frame


def parts_of(model: mujoco.MjModel) -> list[Part]:
    """The geoms that are shown; signed distance fields are left out."""
    parts = []
    for g in range(model.ngeom):
        shape, color = SHAPES.get(int(model.geom_type[g])), _color(model, g)
        if shape is None or color is None or model.geom_group[g] >= SHOWN_GROUPS:
            continue
        vertices, triangles = shape(model, g)
        body = int(model.geom_bodyid[g])
        name = model.geom(g).name or model.body(body).name
        vertices = vertices @ rotation(model.geom_quat[g]).T + model.geom_pos[g]
        parts.append(Part(body, name, color, (vertices, triangles)))
    return parts


def poses(
    model: mujoco.MjModel, states: Float[np.ndarray, "F nstate"]
) -> tuple[Float[np.ndarray, "F B 3"], Float[np.ndarray, "F B 4"]]:
    """Positions (m) and quaternions of all bodies in physics states."""
    data = mujoco.MjData(model)
    places, turns = np.empty((len(states), model.nbody, 3)), np.empty((len(states), model.nbody, 4))
    for f, state in enumerate(states):
        mujoco.mj_setState(model, data, np.asarray(state, float), STATE)
        mujoco.mj_kinematics(model, data)
        places[f], turns[f] = data.xpos, data.xquat
    return places, turns


def rotation(quaternion: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    """The matrix of a unit quaternion (w x y z)."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def view(
    model: mujoco.MjModel, state: Float[np.ndarray, " nstate"], size: Float[np.ndarray, "3"]
) -> dict[str, dict[str, float]]:
    """Where the eye is and what is up, in plotly's words: as the first camera that stands still sees the scene.

    Args:
        size: of what is seen, in m; without a camera, a flat scene is seen from its side.
    """
    still = np.flatnonzero(model.cam_bodyid == 0)
    if len(still):
        data = mujoco.MjData(model)
        put(model, data, state)
        frame = data.cam_xmat[still[0]].reshape(3, 3)
        up, eye = frame[:, 1], frame[:, 2]  # a camera looks along its negative z axis
    else:
        eye, up = np.array([0.45, -0.8, 0.4]), np.array([0.0, 0.0, 1.0])
        thin = int(np.argmin(size))
        if size[thin] < 0.25 * size.max():
            eye = np.array([[1.0, 0.0, 0.3], [0.0, -1.0, 0.3], [0.0, -0.3, 1.0]])[thin]
            up = np.array([0.0, 1.0, 0.0]) if thin == 2 else up
    eye = DISTANCE * eye / np.linalg.norm(eye)
    return {name: dict(zip("xyz", axis.round(4).tolist(), strict=True)) for name, axis in (("eye", eye), ("up", up))}


def _color(model: mujoco.MjModel, g: int) -> str | None:
    """What lets light through is paler, and None is invisible."""
    red_green_blue, opacity = np.split(color_of(model, g), [3])
    if opacity <= 0.02:
        return None
    levels = np.clip(np.round(255 * (1 - opacity * (1 - red_green_blue))), 0, 255).astype(int)
    return "#" + "".join(f"{level:02x}" for level in levels)


def _box(model, g) -> Mesh:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    sides = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    triangles = [(a, b, c) for side in sides for a, b, c in ((side[0], *side[1:3]), (side[0], *side[2:]))]
    return corners * model.geom_size[g], np.array(triangles)


def _plane(model, g) -> Mesh:
    half = np.where(model.geom_size[g][:2] > 0, model.geom_size[g][:2], FLOOR)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    return corners * [*half, 0], np.array([(0, 1, 2), (0, 2, 3)])


def _ellipsoid(model, g) -> Mesh:
    vertices, triangles = _ball()
    return vertices * model.geom_size[g], triangles


def _sphere(model, g) -> Mesh:
    vertices, triangles = _ball()
    return vertices * model.geom_size[g][0], triangles


def _capsule(model, g) -> Mesh:
    radius, half, _ = model.geom_size[g]
    return _round(np.concatenate([radius * QUARTER + [0, half], radius * QUARTER[::-1] * [1, -1] - [0, half]]))


def _cylinder(model, g) -> Mesh:
    radius, half, _ = model.geom_size[g]
    return _round(np.array([[0, half], [radius, half], [radius, -half], [0, -half]]))


def _mesh(model, g) -> Mesh:
    number = model.geom_dataid[g]
    at, count = model.mesh_vertadr[number], model.mesh_vertnum[number]
    first, faces = model.mesh_faceadr[number], model.mesh_facenum[number]
    vertices, triangles = model.mesh_vert[at : at + count].astype(float), model.mesh_face[first : first + faces]
    if faces <= MOST_FACES:
        return vertices, np.array(triangles)
    from scipy.spatial import ConvexHull  # 0.4 s to import, and few models need it

    hull = ConvexHull(vertices)
    kept = np.sort(hull.vertices)
    return vertices[kept], np.searchsorted(kept, hull.simplices)


def _hfield(model, g) -> Mesh:
    """The surface alone, each cell of the grid as two triangles, split as MuJoCo splits it."""
    number = model.geom_dataid[g]
    rows, columns, at = model.hfield_nrow[number], model.hfield_ncol[number], model.hfield_adr[number]
    length, width, height, _ = model.hfield_size[number]
    down, across = spread(rows, MOST_LINES), spread(columns, MOST_LINES)
    heights = model.hfield_data[at : at + rows * columns].reshape(rows, columns)[np.ix_(down, across)]
    y, x = np.meshgrid(width * (2 * down / (rows - 1) - 1), length * (2 * across / (columns - 1) - 1), indexing="ij")
    corner = np.arange(heights.size).reshape(heights.shape)
    a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return np.stack([x, y, height * heights], -1).reshape(-1, 3), triangles


def _ball() -> Mesh:
    """Of radius 1."""
    return _round(np.concatenate([QUARTER, QUARTER[-2::-1] * [1, -1]]))


def _round(outline: Float[np.ndarray, "R 2"]) -> Mesh:
    """The surface that an outline (distance from the axis, height) sweeps around the z axis; its ends are poles."""
    around = 2 * np.pi * np.arange(SIDES) / SIDES
    rings = [np.stack([r * np.cos(around), r * np.sin(around), np.full(SIDES, z)], 1) for r, z in outline[1:-1]]
    ends = np.array([[0, 0, outline[0, 1]], [0, 0, outline[-1, 1]]])
    upper, lower, last = SIDES * len(rings), SIDES * len(rings) + 1, SIDES * (len(rings) - 1)
    triangles = []
    for i in range(SIDES):
        j = (i + 1) % SIDES
        triangles += [(upper, i, j), (lower, last + j, last + i)]
        for ring in range(0, last, SIDES):
            triangles += [(ring + i, ring + SIDES + i, ring + j), (ring + j, ring + SIDES + i, ring + SIDES + j)]
    return np.concatenate([*rings, ends]), np.array(triangles)


SHAPES: Mapping[int, Callable[[mujoco.MjModel, int], Mesh]] = MappingProxyType(
    {
        int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")): shape
        for name, shape in (
            ("PLANE", _plane),
            ("BOX", _box),
            ("SPHERE", _sphere),
            ("CAPSULE", _capsule),
            ("CYLINDER", _cylinder),
            ("ELLIPSOID", _ellipsoid),
            ("MESH", _mesh),
            ("HFIELD", _hfield),
        )
    }
)
