"""Physical parameters of a MuJoCo model by name, each multiplied by a factor exp(theta): positive, and 1 at theta = 0.

| name                    | what the factor multiplies                                                         |
|-------------------------|------------------------------------------------------------------------------------|
| `body_mass:BODY`        | mass and inertia of a body (kg, kg m^2); its shape and centre stay                 |
| `dof_damping:JOINT`     | damping of a joint (N s/m or Nm s/rad), of all its degrees of freedom              |
| `dof_armature:JOINT`    | inertia of a joint's drive (kg or kg m^2)                                          |
| `dof_frictionloss:JOINT`| dry friction of a joint (N or Nm)                                                  |
| `actuator_gain:ACTUATOR`| force of an actuator: its gain and its bias, so that a position servo keeps its goal |
| `geom_friction:GEOM`    | friction coefficients of a geom; of two in contact the larger counts               |

A name may hold `*` and `?`: `dof_damping:*` is the damping of every joint that has some. What has no name in the MJCF
goes by its number.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float, Int

from dynamics.action_range import FIXED

FIELDS = {  # of the model, which a factor of each kind multiplies; the first one is the nominal value
    "body_mass": ("body_mass", "body_inertia"),
    "dof_damping": ("dof_damping",),
    "dof_armature": ("dof_armature",),
    "dof_frictionloss": ("dof_frictionloss",),
    "actuator_gain": ("actuator_gainprm", "actuator_biasprm"),
    "geom_friction": ("geom_friction",),
}


@dataclass(frozen=True)
class Parameters:
    """p parameters of a model."""

    names: tuple[str, ...]
    nominal: Float[np.ndarray, " p"]  # their values in the model
    owners: dict[str, Int[np.ndarray, " rows"]]  # of each row of a field: the parameter that multiplies it; p for none

    def fields(self, model: mujoco.MjModel, theta: Any) -> dict[str, Any]:
        """The model's fields with factors exp(theta): numpy's for a theta of numpy, else jax's, differentiable."""
        xp = np if isinstance(theta, np.ndarray) else jnp
        factors = xp.append(xp.exp(theta), xp.ones(1, theta.dtype))
        return {name: (getattr(model, name).T * factors[owner]).T for name, owner in self.owners.items()}

    def adjusted(self, model: mujoco.MjModel, theta: Float[np.ndarray, " p"]) -> mujoco.MjModel:
        """A copy of the model with factors exp(theta), and the constants that MuJoCo derives from them anew."""
        changed = copy.deepcopy(model)
        for name, values in self.fields(model, np.asarray(theta, float)).items():
            getattr(changed, name)[:] = values
        mujoco.mj_setConst(changed, mujoco.MjData(changed))
        return changed


def select(model: mujoco.MjModel, patterns: Sequence[str]) -> Parameters:
    """The parameters of a model that have these names, in their order.

    A pattern with `*` or `?` leaves out what is zero in the model, which no factor changes.

    Errors:
        ValueError for no name at all, one that the model does not have (it says the nearest), and a parameter that is
        zero in the model.
    """
    known = {name: value for kind in FIELDS for name, value in _values(model, kind).items()}
    names: dict[str, None] = {}  # an ordered set
    for pattern in patterns:
        matches = [name for name, value in known.items() if value and (name == pattern or fnmatchcase(name, pattern))]
        if not matches and known.get(pattern) == 0.0:
            raise ValueError(
                f"parameter {pattern!r} is 0 in the model, and no factor changes that: give it a value there"
            )
        if not matches:
            raise ValueError(_unknown(pattern, known))
        names |= dict.fromkeys(matches)
    if not names:
        raise ValueError(f"there must be a parameter to identify, such as {', '.join(f'{kind}:*' for kind in FIELDS)}")
    index = {name: i for i, name in enumerate(names)}
    kinds = {name.partition(":")[0] for name in names}
    owners = {
        field: np.array([index.get(name, len(names)) for name in _rows(model, kind)])
        for kind in FIELDS
        if kind in kinds
        for field in FIELDS[kind]
    }
    return Parameters(tuple(names), np.array([known[name] for name in names]), owners)


def usual(model: mujoco.MjModel) -> tuple[str, ...]:
    """Patterns of all masses, dampings and gains that a model has."""
    kinds = ("body_mass", "dof_damping", "actuator_gain")
    return tuple(f"{kind}:*" for kind in kinds if any(_values(model, kind).values()))


def misjudged(model: mujoco.MjModel, share: float) -> mujoco.MjModel:
    """What a model is taken for: each of its masses, dampings and gains is more or less by this share of that.

    Which is more and which less is drawn at random, always the same.
    """
    parameters = select(model, usual(model))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(parameters.names))
    return parameters.adjusted(model, -np.log1p(share * signs))


def _rows(model: mujoco.MjModel, kind: str) -> list[str]:
    """For each row of a kind's fields the parameter's name; empty for an actuator that has no gain of its own."""
    if kind == "body_mass":
        named = [model.body(i) for i in range(model.nbody)]
    elif kind == "geom_friction":
        named = [model.geom(i) for i in range(model.ngeom)]
    elif kind == "actuator_gain":
        named = [model.actuator(i) for i in range(model.nu)]
        return [f"{kind}:{a.name or a.id}" if model.actuator_gaintype[a.id] == FIXED else "" for a in named]
    else:
        named = [model.joint(i) for i in model.dof_jntid]
    return [f"{kind}:{row.name or row.id}" for row in named]


def _values(model: mujoco.MjModel, kind: str) -> dict[str, float]:
    """The nominal values of a kind's parameters: the first number of their first rows."""
    values = getattr(model, FIELDS[kind][0])
    known: dict[str, float] = {}
    for name, row in zip(_rows(model, kind), values.reshape(len(values), -1), strict=True):
        if name:
            known.setdefault(name, float(row[0]))
    return known


def _unknown(pattern: str, known: dict[str, float]) -> str:
    kind, _, name = pattern.partition(":")
    if kind not in FIELDS or not name:
        close = get_close_matches(kind, FIELDS, n=1)
        hint = f"; did you mean '{close[0]}:{name or '*'}'?" if close else ""
        return f"unknown parameter {pattern!r}{hint} (kinds: {', '.join(f'{kind}:NAME' for kind in FIELDS)})"
    have = [other for other, value in known.items() if other.startswith(f"{kind}:") and value != 0.0]
    close = get_close_matches(pattern, have, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"the model has no parameter {pattern!r}{hint} (it has {', '.join(have) or f'no {kind} that is not zero'})"
