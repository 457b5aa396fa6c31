"""The guiders by name. Importing this module imports none of them, and no jax."""

from __future__ import annotations

import functools
from typing import Any

from gps.entry import Entry
from gps.guiders.model_free.methods import METHODS


def _defaults(name: str) -> Any:
    from gps.guiders.model_free.settings import SETTINGS

    return SETTINGS[name]()


def _build(name: str, task: Any, settings: Any) -> Any:
    from gps.guiders.model_free.guider import ModelFree

    return ModelFree(name, task, settings)


GUIDERS: dict[str, Entry] = {
    "badmm": Entry(
        "gps.guiders.model_based.badmm:BadmmSettings",
        "gps.guiders.model_based.badmm:badmm",
        "BADMM guided policy search: iLQR on fitted dynamics, augmented Lagrangian",
    ),
    "ilqr-known": Entry(
        "gps.guiders.model_based.ilqr_known:ilqr_known_settings",
        "gps.guiders.model_based.ilqr_known:ilqr_known",
        "badmm with the simulator's own derivatives in place of fitted dynamics",
    ),
    "mdgps": Entry(
        "gps.guiders.model_based.mdgps:MdgpsSettings",
        "gps.guiders.model_based.mdgps:mdgps",
        "mirror descent guided policy search: LQR on fitted dynamics, close to the learner",
    ),
    "dgps": Entry(
        "gps.guiders.model_based.dgps:DgpsSettings",
        "gps.guiders.model_based.dgps:dgps",
        "deterministic guided policy search: multipliers on the difference of trajectory and learner",
    ),
    "sgps": Entry(
        "gps.guiders.model_based.sgps:SgpsSettings",
        "gps.guiders.model_based.sgps:sgps",
        "stochastic guided policy search: a price of the divergence of controller and learner",
    ),
    "pi2": Entry(
        "gps.guiders.model_based.pi2:Pi2Settings",
        "gps.guiders.model_based.pi2:pi2",
        "path-integral policy improvement: controllers move towards their cheaper samples, without a model",
    ),
    "pilqr": Entry(
        "gps.guiders.model_based.pilqr:PilqrSettings",
        "gps.guiders.model_based.pilqr:pilqr",
        "LQR for the cost that the local model explains, path integrals for the rest, close to the learner",
    ),
    "pigps": Entry(
        "gps.guiders.model_based.pigps:PigpsSettings",
        "gps.guiders.model_based.pigps:pigps",
        "path integral guided policy search: mirror descent by path integrals on the learner's samples",
    ),
    "plato": Entry(
        "gps.guiders.model_based.plato:PlatoSettings",
        "gps.guiders.model_based.plato:plato",
        "a teacher that plans ahead from where it is, acts close to the learner and labels what it visits",
    ),
    **{
        name: Entry(functools.partial(_defaults, name), functools.partial(_build, name), method.about)
        for name, method in METHODS.items()
    },
}
