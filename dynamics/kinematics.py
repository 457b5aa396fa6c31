"""Where bodies and sites are: forward kinematics as a differentiable function of the joints, the same for both engines.

Also coordinates of a configuration: what local models regress on and what differentiation takes. The positions of hinge
and slide joints are their own coordinates; of a ball or a free joint the quaternion is replaced by its rotation vector
(axis times angle, rad), which has three numbers and jumps where the body has turned by pi.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

FREE, BALL, SLIDE, HINGE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{name}")) for name in ("FREE", "BALL", "SLIDE", "HINGE")
)
Pose = tuple[Array | np.ndarray, Array | np.ndarray]  # position (3) in m, rotation (3 3) into the world's frame


class Kinematics:
    """Forward kinematics of one model, after `mj_kinematics`."""

    def __init__(self, model: mujoco.MjModel):
        self.model = model
        self._joints = [
            range(first, first + count) for first, count in zip(model.body_jntadr, model.body_jntnum, strict=True)
        ]

    def positions(self, qpos: Float[Array, " nq"], *names: str) -> Float[Array, "n 3"]:
        """World positions of sites or bodies, in metres; bodies moved by mocap stay where the model has them.

        Errors:
            ValueError for a name that the model does not have, or has for a site and for a body.
        """
        return jnp.stack([jnp.asarray(place) for place, _ in self._poses(qpos, names)])

    def rotations(self, qpos: Float[Array, " nq"], *names: str) -> Float[Array, "n 3 3"]:
        """Rotations of sites or bodies into the world's frame; errors as in `positions`."""
        return jnp.stack([jnp.asarray(turn) for _, turn in self._poses(qpos, names)])

    def bodies(self, qpos: Float[Array, " nq"], mocap: tuple[Array, Array] | None = None) -> Callable[[int], Pose]:
        """A function that gives the pose of body i; where nothing moves the body, its pose is of numpy's arrays.

        Args:
            mocap: positions (nmocap 3) in m and quaternions (nmocap 4) of mocap bodies; without, those of the model.
        """
        model = self.model
        known: dict[int, Pose] = {0: (np.zeros(3), np.eye(3))}

        def body(i: int) -> Pose:
            if i not in known:
                number = model.body_mocapid[i]
                if mocap is not None and number >= 0:
                    known[i] = mocap[0][number], _matrix(mocap[1][number], jnp)
                else:
                    known[i] = self._moved(i, qpos, body(model.body_parentid[i]))
            return known[i]

        return body

    def _poses(self, qpos, names) -> list[Pose]:
        model, body = self.model, self.bodies(qpos)

        def named(name: str) -> Pose:
            kind, i = self._find(name)
            if kind == "body":
                return body(i)
            return attached(body(model.site_bodyid[i]), model.site_pos[i], model.site_quat[i])

        return [named(name) for name in names]

    def _moved(self, i: int, qpos, parent: Pose) -> Pose:
        """The pose of body i, whose joints follow one another."""
        model = self.model
        place, turn = _after(parent, model.body_pos[i], _matrix(model.body_quat[i], np))
        for j in self._joints[i]:
            kind, at, anchor = model.jnt_type[j], model.jnt_qposadr[j], model.jnt_pos[j]
            if kind == FREE:
                place, turn = qpos[at : at + 3], _matrix(qpos[at + 3 : at + 7], jnp)
            elif kind == SLIDE:
                place = place + _times(turn, model.jnt_axis[j]) * (qpos[at] - model.qpos0[at])
            else:
                axis, angle = model.jnt_axis[j], qpos[at] - model.qpos0[at]
                own = _around(axis, angle) if kind == HINGE else _matrix(qpos[at : at + 4], jnp)
                turned = _times(turn, own)
                if anchor.any():
                    place = place + _times(turn - turned, anchor)
                turn = turned
        return place, turn

    def _find(self, name: str) -> tuple[str, int]:
        model = self.model
        found = {
            kind: mujoco.mj_name2id(model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
            for kind in ("site", "body")
        }
        has = [kind for kind, i in found.items() if i >= 0]
        if len(has) == 2:
            raise ValueError(f"{name!r} is the name of a site and of a body: rename one of them")
        if not has:
            known = [model.site(i).name for i in range(model.nsite)] + [model.body(i).name for i in range(model.nbody)]
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"the model has no site or body {name!r}{hint} (it has {', '.join(filter(None, known))})")
        return has[0], found[has[0]]


def coordinates(model: mujoco.MjModel, qpos: Float[Array, " nq"]) -> Float[Array, " nv"]:
    """The configuration without quaternions; see the top of this file."""
    if model.nq == model.nv:
        return qpos
    return jnp.concatenate(_by_joint(model, qpos, model.jnt_qposadr, 4, _rotation_vector))


def configuration(model: mujoco.MjModel, q: Float[Array, " nv"]) -> Float[Array, " nq"]:
    """The inverse of `coordinates`."""
    if model.nq == model.nv:
        return q
    return jnp.concatenate(_by_joint(model, q, model.jnt_dofadr, 3, _quaternion))


def _by_joint(model, values, addresses, size: int, convert) -> list[Array]:
    """The numbers of each joint, those of a rotation (`size` of them) converted."""
    parts = []
    for kind, at in zip(model.jnt_type, addresses, strict=True):
        straight = 3 if kind == FREE else 0 if kind == BALL else 1
        parts.append(values[at : at + straight])
        if kind in (FREE, BALL):
            parts.append(convert(values[at + straight : at + straight + size]))
    return parts


def attached(pose: Pose, place: np.ndarray, quaternion: np.ndarray) -> Pose:
    """The pose of what is fixed to a body of that pose, at a place and with a quaternion (w x y z) in its frame."""
    return _after(pose, place, _matrix(quaternion, np))


def _after(pose: Pose, place: np.ndarray, turn: Array | np.ndarray) -> Pose:
    """The pose of what has this pose in the frame of another one."""
    before, rotation = pose
    moved = before + _times(rotation, place) if place.any() else before
    return moved, rotation if np.array_equal(turn, np.eye(3)) else _times(rotation, turn)


def _times(a: Array | np.ndarray, b: Array | np.ndarray) -> Array | np.ndarray:
    """The matrix product in full precision, which a GPU's default for float32 is not; constants stay constants."""
    constant = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return a @ b if constant else jnp.matmul(a, b, precision="highest")


def _around(axis: np.ndarray, angle: Array) -> Any:
    """Rotation by an angle, in rad, around a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * (cross @ cross)


def _matrix(quaternion, xp) -> Any:
    """Rotation matrix of a quaternion (w x y z) of any length but zero; by numpy or by jax.numpy."""
    w, x, y, z = quaternion / xp.sqrt((quaternion**2).sum())
    return xp.stack(
        [
            xp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            xp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            xp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )


def _rotation_vector(quaternion: Float[Array, "4"]) -> Float[Array, "3"]:
    """Axis times angle, of at most pi; differentiable at the identity."""
    w, v = quaternion[0], quaternion[1:]
    w, v = jnp.abs(w), jnp.where(w < 0, -v, v)
    square = v @ v
    turned = square > 1e-12
    sine = jnp.sqrt(jnp.where(turned, square, 1.0))
    return v * jnp.where(turned, 2 * jnp.arctan2(sine, w) / sine, 2 / w)


def _quaternion(vector: Float[Array, "3"]) -> Float[Array, "4"]:
    """Unit quaternion of a rotation vector; differentiable at zero."""
    square = vector @ vector
    turned = square > 1e-12
    angle = jnp.sqrt(jnp.where(turned, square, 1.0))
    factor = jnp.where(turned, jnp.sin(angle / 2) / angle, 0.5)
    return jnp.concatenate([jnp.where(turned, jnp.cos(angle / 2), 1 - square / 8)[None], factor * vector])
