"""Rays against planes, boxes, spheres, capsules and cylinders, by formulas, in JAX: what a camera is made of.

Each pixel has one ray, through its middle. The nearest shape along it gives the pixel's depth (the distance along the
camera's axis, as a depth camera measures it) and the cosine between ray and surface. A camera inside a shape sees it
from inside, planes are seen from above, as `mj_ray` has it.

There is a loop over the shapes of a kind, which all pixels go through together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Vector = tuple[Any, Any, Any]  # in the frame of a shape; the directions of rays are images (H W) of numbers
Hit = tuple[Array, Array]  # distance along each ray, infinite where there is none, and cosine between ray and surface
# All shapes of a kind: their sizes (n 3) as MuJoCo has them (half lengths, or radius and half length), places (n 3),
# and rotations (n 3 3) into the world's frame.
Shapes = tuple[Array, Array, Array]
_SMALL = 1e-12


def pixels(height: int, width: int, fovy: float) -> Vector:
    """Directions of rays in the camera's frame, one m deep: x to the right, y up, and it looks along -z.

    Args:
        fovy: the angle that the image's height takes, in degrees.
    """
    up = np.tan(np.deg2rad(fovy) / 2)
    across = up * width / height
    x = across * ((2 * np.arange(width) + 1) / width - 1)
    y = up * (1 - (2 * np.arange(height) + 1) / height)
    x, y = np.broadcast_arrays(x[None], y[:, None])
    return jnp.asarray(x, float), jnp.asarray(y, float), -1.0


def cast(
    scene: Mapping[str, Shapes],
    place: Array | np.ndarray,
    turn: Array | np.ndarray,
    pixels: Vector,
    far: float,
) -> tuple[Float[Array, "H W"], Float[Array, "H W"], Float[Array, "H W"]]:
    """Depth of the nearest shape in m, cosine between ray and surface, and its number, for each pixel.

    Numbers count from 1, through the kinds in their order. Where nothing is nearer, the depth is `far` and the others
    are 0.

    Args:
        scene: by kind, of `KINDS`.
        place: of the camera, in m.
        turn: its rotation into the world's frame.
    """
    x, y, z = pixels
    rays = tuple(turn[i, 0] * x + turn[i, 1] * y + turn[i, 2] * z for i in range(3))
    length = jnp.sqrt(x**2 + y**2 + z**2)
    nearest = jnp.full_like(length, far), jnp.zeros_like(length), jnp.zeros(length.shape, int)
    count = 1
    for kind, (sizes, places, turns) in scene.items():

        def see(nearest, shape, formula=KINDS[kind]):
            """A loop's body, as XLA compiles one formula much faster than many, and runs it no slower."""
            size, *pose, number = shape
            depth, cosine = formula(size, *_local(pose, place, rays))
            seen = depth, cosine, jnp.full_like(nearest[2], number)
            nearer = depth < nearest[0]
            return jax.tree.map(lambda new, old: jnp.where(nearer, new, old), seen, nearest), None

        numbers = count + jnp.arange(len(sizes))
        nearest, _ = jax.lax.scan(see, nearest, (sizes, places, turns, numbers))
        count += len(sizes)
    depth, cosine, number = nearest
    return depth, jnp.minimum(cosine / length, 1.0), number


def _local(pose, place, rays: Vector) -> tuple[Vector, Vector]:
    """Where rays begin and their directions, in the frame of a shape of a pose; by sums, as XLA fuses no products."""
    origin, turn = pose
    offset = [place[i] - origin[i] for i in range(3)]
    begin = tuple(sum(turn[i, j] * offset[i] for i in range(3)) for j in range(3))
    along = tuple(sum(turn[i, j] * rays[i] for i in range(3)) for j in range(3))
    return (begin[0], begin[1], begin[2]), (along[0], along[1], along[2])


# Each formula takes the sizes of a shape as MuJoCo has them, where rays begin and their directions, and gives the
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


KINDS: dict[str, Callable[..., Hit]] = {
    "plane": _plane,
    "sphere": _sphere,
    "capsule": _capsule,
    "cylinder": _cylinder,
    "box": _box,
}
