"""What a camera of a model sees, cast ray by ray in JAX: inside a compiled program, on any device, for both engines.

Pixels have the colour of the nearest geom along their ray: the geom's own, flat, darker where the surface is turned
away from the ray. There are no shadows and no textures. `dynamics.rays` has the geometry.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dynamics import rays
from dynamics.kinematics import Kinematics, attached

Shape = tuple[Any, Any, Any, Any]  # sizes, place, rotation and colour of a geom
BACKGROUND = (0.0, 0.0, 0.0)
_DEFAULT = (0.5, 0.5, 0.5, 1.0)  # rgba of a geom that says none
_AMBIENT = 0.3  # share of a colour that is there at any angle


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
            if int(model.geom_type[i]) not in _KINDS:
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
        colors, scene = [jnp.asarray(BACKGROUND)], {}
        for kind, shapes in self._shapes(body, marks).items():
            *scene[kind], own = (jnp.asarray(jnp.stack(values), float) for values in zip(*shapes, strict=True))
            colors = [*colors, *own]
        fovy = float(self.model.camera(self.name).fovy[0])
        pixels = rays.pixels(self.height, self.width, fovy)
        depth, cosine, number = rays.cast(scene, *self._pose(body), pixels, self.far)
        shade = _AMBIENT + (1 - _AMBIENT) * cosine
        return jnp.stack(colors)[number] * shade[..., None], depth

    def _shapes(self, body, marks) -> dict[str, list[Shape]]:
        """All that there is to see, by its kind."""
        model = self.model
        shapes: dict[str, list[Shape]] = {}
        for i in self._visible():
            pose = attached(body(int(model.geom_bodyid[i])), model.geom_pos[i], model.geom_quat[i])
            shape = model.geom_size[i], *pose, color_of(self.model, i)[:3]
            shapes.setdefault(_KINDS[int(model.geom_type[i])], []).append(shape)
        for mark, place in zip(self.marks, marks, strict=True):
            shape = np.array([mark.radius, 0.0, 0.0]), place, np.eye(3), np.array(mark.color)
            shapes.setdefault("sphere", []).append(shape)
        return shapes

    def _visible(self) -> list[int]:
        """The geoms that MuJoCo's viewer shows: of groups 0 to 2, and not transparent."""
        model = self.model
        return [i for i in range(model.ngeom) if model.geom_group[i] <= 2 and color_of(self.model, i)[3] > 0]


def color_of(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, "4"]:
    """A geom's rgba: that of its material, if it has one, where its own is the default, as in MuJoCo's viewer."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    return model.mat_rgba[material] if material >= 0 and np.allclose(own, _DEFAULT) else own


_KINDS = {int(getattr(mujoco.mjtGeom, f"mjGEOM_{name.upper()}")): name for name in rays.KINDS}
