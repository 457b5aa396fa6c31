"""What a camera of a model sees, cast ray by ray in JAX: inside a compiled program, on any device, for both engines.

Each pixel has one ray, through its middle. The nearest geom along it gives the pixel's depth (the distance along the
camera's axis, as a depth camera measures it) and its colour (the geom's own, flat, darker where the surface is turned
away from the ray). There are no shadows and no textures. A camera inside a geom sees it from inside, planes are seen
from above, as `mj_ray` has it.

There is a loop over the geoms of a kind, which all pixels go through together.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dynamics.kinematics import Kinematics, attached

Vector = tuple[Any, Any, Any]  # in the frame of a geom; the directions of rays are images (H W) of numbers
Hit = tuple[Array, Array]  # distance along each ray, infinite where there is none, and cosine between ray and surface
Shape = tuple[Any, Any, Any, Any]  # sizes, place, rotation and colour of a geom
BACKGROUND = (0.0, 0.0, 0.0)
_DEFAULT = (0.5, 0.5, 0.5, 1.0)  # rgba of a geom that says none
_AMBIENT = 0.3  # share of a colour that is there at any angle
_SMALL = 1e-12


@dataclass(frozen=True)
class Mark:
    """A sphere that is drawn beside the geoms, where a caller says."""

    radius: float  # m
    color: tuple[float, float, float]  # red, green, blue, from 0 to 1


@dataclass(frozen=True)
class Camera:
    """A camera that an MJCF names, with pictures of its own size.

    Errors:
        ValueError for a camera that the model does not have or that follows something, an impossible size, and a
        visible geom for which there is no formula: meshes, height fields and ellipsoids.
    """

    model: mujoco.MjModel
    name: str
    height: int
    width: int
    far: float = 5.0  # m; what is deeper is background
    marks: tuple[Mark, ...] = ()

    def __post_init__(self):
        model, names = self.model, [self.model.camera(i).name for i in range(self.model.ncam)]
        if self.name not in names:
            known = f"it has {', '.join(names)}" if names else "it has none"
            raise ValueError(f"the model has no camera {self.name!r} ({known})")
        if model.camera(self.name).mode[0] != mujoco.mjtCamLight.mjCAMLIGHT_FIXED:
            raise ValueError(f"camera {self.name!r} follows something: its mode must be 'fixed'")
        if model.cam_projection[model.camera(self.name).id] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE:
            raise ValueError(f"camera {self.name!r} is orthographic: only perspective is cast here")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image must have at least one pixel, not {self.height} x {self.width}")
        if not 0.0 < self.far < np.inf:
            raise ValueError(f"far must be a positive distance in m, not {self.far}")
        for i in self._visible():
            if int(model.geom_type[i]) not in _FORMULAS:
                kind = mujoco.mjtGeom(int(model.geom_type[i])).name.removeprefix("mjGEOM_").lower()
                raise ValueError(
                    f"geom {model.geom(i).name or i} is of kind {kind}, which no camera here can see: give it to "
                    "geom group 3 or higher and put planes, spheres, capsules, cylinders or boxes in its place"
                )

    def rgb(
        self,
        qpos: Float[Array, " nq"],
        mocap: tuple[Array, Array] | None = None,
        marks: Float[Array, "n 3"] | tuple[()] = (),
    ) -> Float[Array, "H W 3"]:
        """Colours, from 0 to 1.

        Args:
            mocap: positions and quaternions of mocap bodies; without, those of the model.
            marks: where `self.marks` are, in m.
        """
        return self._cast(qpos, mocap, marks)[0]

    def depth(
        self,
        qpos: Float[Array, " nq"],
        mocap: tuple[Array, Array] | None = None,
        marks: Float[Array, "n 3"] | tuple[()] = (),
    ) -> Float[Array, "H W"]:
        """Depths in m, `far` where nothing is nearer; arguments as in `rgb`."""
        return self._cast(qpos, mocap, marks)[1]

    def seen(
        self, place: Float[Array, "3"], qpos: Float[Array, " nq"], mocap: tuple[Array, Array] | None = None
    ) -> Float[Array, "3"]:
        """A place of the world in the camera's frame, in m: to the right, up, and how far behind the camera."""
        at, turn = self._pose(self._kinematics.bodies(qpos, mocap))
        return jnp.matmul(turn.T, place - at, precision="highest")

    @cached_property
    def _kinematics(self) -> Kinematics:
        return Kinematics(self.model)

    def _pose(self, body) -> tuple[Array | np.ndarray, Array | np.ndarray]:
        camera = self.model.camera(self.name)
        return attached(body(int(camera.bodyid[0])), camera.pos, camera.quat)

    def _cast(self, qpos, mocap, marks) -> tuple[Array, Array]:
        """Colours and depths."""
        body = self._kinematics.bodies(qpos, mocap)
        place, turn = self._pose(body)
        x, y, z = self._rays()
        rays = tuple(turn[i, 0] * x + turn[i, 1] * y + turn[i, 2] * z for i in range(3))
        length = jnp.sqrt(x**2 + y**2 + z**2)
        first = jnp.full_like(length, self.far), jnp.zeros_like(length), jnp.zeros(length.shape, int)
        colors, nearest = [jnp.asarray(BACKGROUND)], first
        for formula, shapes in self._shapes(body, marks).items():

            def see(nearest, shape, formula=formula):
                """A loop's body, as XLA compiles one formula much faster than many, and runs it no slower."""
                size, *pose, number = shape
                depth, cosine = formula(size, *_local(pose, place, rays))
                seen = depth, cosine, jnp.full_like(nearest[2], number)
                nearer = depth < nearest[0]
                return jax.tree.map(lambda new, old: jnp.where(nearer, new, old), seen, nearest), None

            sizes, places, turns, own = (jnp.asarray(jnp.stack(values), float) for values in zip(*shapes, strict=True))
            nearest, _ = jax.lax.scan(see, nearest, (sizes, places, turns, len(colors) + jnp.arange(len(shapes))))
            colors = [*colors, *own]
        depth, cosine, number = nearest
        shade = _AMBIENT + (1 - _AMBIENT) * jnp.minimum(cosine / length, 1.0)
        return jnp.stack(colors)[number] * shade[..., None], depth

    def _rays(self) -> Vector:
        """Directions of rays in the camera's frame, one m deep: x to the right, y up, and it looks along -z."""
        up = np.tan(np.deg2rad(float(self.model.camera(self.name).fovy[0])) / 2)
        across = up * self.width / self.height
        x = across * ((2 * np.arange(self.width) + 1) / self.width - 1)
        y = up * (1 - (2 * np.arange(self.height) + 1) / self.height)
        x, y = np.broadcast_arrays(x[None], y[:, None])
        return jnp.asarray(x, float), jnp.asarray(y, float), -1.0

    def _shapes(self, body, marks) -> dict[Callable[..., Hit], list[Shape]]:
        """All that there is to see, by the formula that it takes."""
        model = self.model
        shapes: dict[Callable[..., Hit], list[Shape]] = {}
        for i in self._visible():
            pose = attached(body(int(model.geom_bodyid[i])), model.geom_pos[i], model.geom_quat[i])
            shape = model.geom_size[i], *pose, color_of(self.model, i)[:3]
            shapes.setdefault(_FORMULAS[int(model.geom_type[i])], []).append(shape)
        for mark, place in zip(self.marks, marks, strict=True):
            shape = np.array([mark.radius, 0.0, 0.0]), place, np.eye(3), np.array(mark.color)
            shapes.setdefault(_sphere, []).append(shape)
        return shapes

    def _visible(self) -> list[int]:
        """The geoms that MuJoCo's viewer shows: of groups 0 to 2, and not transparent."""
        model = self.model
        return [i for i in range(model.ngeom) if model.geom_group[i] <= 2 and color_of(self.model, i)[3] > 0]


def color_of(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, "4"]:
    """A geom's rgba: that of its material, if it has one, where its own is the default, as in MuJoCo's viewer."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    return model.mat_rgba[material] if material >= 0 and np.allclose(own, _DEFAULT) else own


def _local(pose, place, rays: Vector) -> tuple[Vector, Vector]:
    """Where rays begin and their directions, in the frame of a geom of a pose; by sums, as XLA fuses no products."""
    origin, turn = pose
    offset = [place[i] - origin[i] for i in range(3)]
    begin = tuple(sum(turn[i, j] * offset[i] for i in range(3)) for j in range(3))
    along = tuple(sum(turn[i, j] * rays[i] for i in range(3)) for j in range(3))
    return (begin[0], begin[1], begin[2]), (along[0], along[1], along[2])


# Each formula takes the sizes of a geom as MuJoCo has them, where rays begin and their directions, and gives the
# nearest hit before the camera: its distance in lengths of the direction, and |normal . direction|.


def _plane(size, o: Vector, d: Vector) -> Hit:
    """z = 0 within half lengths (0 for no end), seen from above."""
    t = -o[2] / jnp.minimum(d[2], -_SMALL)
    inside = jnp.asarray(True)
    for i in range(2):
        inside &= (size[i] <= 0) | (jnp.abs(o[i] + t * d[i]) <= size[i])
    return _first([(t, inside & (d[2] < 0))]), jnp.abs(d[2])


def _sphere(size, o: Vector, d: Vector) -> Hit:
    roots, cosine = _round(size[0], o, d)
    return _first(roots), cosine


def _capsule(size, o: Vector, d: Vector) -> Hit:
    """A cylinder without ends, and two half spheres."""
    radius, half = size[0], size[1]
    side, cosine = _tube(radius, half, o, d)
    best = _first(side)
    for end in (-half, half):
        moved = (o[0], o[1], o[2] - end)
        roots, own = _round(radius, moved, d)
        t = _first([(t, there & ((moved[2] + t * d[2]) * end >= 0)) for t, there in roots])
        best, cosine = jnp.minimum(best, t), jnp.where(t < best, own, cosine)
    return best, cosine


def _cylinder(size, o: Vector, d: Vector) -> Hit:
    radius, half = size[0], size[1]
    side, cosine = _tube(radius, half, o, d)
    best = _first(side)
    for end in (-half, half):
        t = (end - o[2]) / _nonzero(d[2])
        t = _first([(t, (o[0] + t * d[0]) ** 2 + (o[1] + t * d[1]) ** 2 <= radius**2)])
        best, cosine = jnp.minimum(best, t), jnp.where(t < best, jnp.abs(d[2]), cosine)
    return best, cosine


def _box(size, o: Vector, d: Vector) -> Hit:
    """Between three pairs of planes: the last one entered, or from inside the first one left."""
    enter, leave = jnp.asarray(-jnp.inf), jnp.asarray(jnp.inf)
    entered = left = jnp.zeros(())
    for i in range(3):
        along = _nonzero(d[i])
        one, other = (-size[i] - o[i]) / along, (size[i] - o[i]) / along
        near, far = jnp.minimum(one, other), jnp.maximum(one, other)
        entered, left = (jnp.where(near > enter, along, entered), jnp.where(far < leave, along, left))
        enter, leave = jnp.maximum(enter, near), jnp.minimum(leave, far)
    t = _first([(enter, enter <= leave), (leave, enter <= leave)])
    return t, jnp.abs(jnp.where(enter > 0, entered, left))


def _round(radius, o: Vector, d: Vector) -> tuple[list[tuple[Array, Array]], Array]:
    """Where rays enter and leave a ball, and the cosine, which is the same at both."""
    a = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    c = o[0] ** 2 + o[1] ** 2 + o[2] ** 2 - radius**2
    return _roots(a, b, c, radius)


def _tube(radius, half, o: Vector, d: Vector) -> tuple[list[tuple[Array, Array]], Array]:
    """The same of a cylinder around z, between -half and half."""
    a = jnp.maximum(d[0] ** 2 + d[1] ** 2, _SMALL)
    b = o[0] * d[0] + o[1] * d[1]
    c = o[0] ** 2 + o[1] ** 2 - radius**2
    roots, cosine = _roots(a, b, c, radius)
    return [(t, there & (jnp.abs(o[2] + t * d[2]) <= half)) for t, there in roots], cosine


def _roots(a: Array, b: Array, c: Array, radius) -> tuple[list[tuple[Array, Array]], Array]:
    """Of a t^2 + 2 b t + c = 0, and half of the derivative there over the radius."""
    discriminant = b**2 - a * c
    there = discriminant > 0
    root = jnp.sqrt(jnp.where(there, discriminant, 1.0))
    return [((-b - root) / a, there), ((-b + root) / a, there)], root / radius


def _first(hits: Sequence[tuple[Array, Array]]) -> Array:
    """The smallest positive one of distances that there are."""
    best = jnp.asarray(jnp.inf)
    for t, there in hits:
        best = jnp.minimum(best, jnp.where(there & (t > 0), t, jnp.inf))
    return best


def _nonzero(value: Array) -> Array:
    return jnp.where(jnp.abs(value) < _SMALL, _SMALL, value)


_FORMULAS: dict[int, Callable[..., Hit]] = {
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name.upper()}")): formula
    for name, formula in (
        ("plane", _plane),
        ("sphere", _sphere),
        ("capsule", _capsule),
        ("cylinder", _cylinder),
        ("box", _box),
    )
}
