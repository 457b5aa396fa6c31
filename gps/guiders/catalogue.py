"""The guiders by name. Importing this module imports none of them, and no jax."""

from __future__ import annotations

import functools
from typing import Any

from gps.entry import Entry
from gps.guiders.model_free.methods import METHODS

_ABOUT = {
    "gpo-naive": "GPO: the guider improves by PPO, the learner imitates, the guider starts anew as the learner",
    "gpo-penalty": "GPO: guider and learner improve by PPO, a penalty holds the guider to the learner",
    "gpo-clip": "GPO: guider and learner improve by PPO, the guider is clipped to a region around the learner",
    "gpo-clip-supervised": "gpo-clip whose learner imitates and does nothing else",
    "gpo-ablation": "gpo-penalty whose learner does not imitate",
    "ppo": "PPO on what the learner sees; no guider",
    "ppo-asym": "PPO on what the learner sees, with a value function that sees everything",
    "ppo-bc": "the guider improves by PPO and acts, the learner imitates it",
    "a2d": "the guider improves by PPO while the learner acts and imitates it",
    "advisor-co": "ADVISOR with a guider that learns along: imitation where the learner can, PPO where it can not",
    "advisor": "ADVISOR with a teacher that was trained first",
    "dagger": "DAgger: a teacher that was trained first labels what the learner visits",
    "bc": "behaviour cloning of a teacher that was trained first",
    "elf": "ELF: an imitator's value shapes the reward of a learner that explores",
}


def _defaults(name: str) -> Any:
    from gps.guiders.model_free.settings import DEFAULTS

    return DEFAULTS[name]


def _build(name: str, task: Any, settings: Any) -> Any:
    from gps.guiders.model_free.guider import ModelFree

    return ModelFree(name, task, settings)


GUIDERS: dict[str, Entry] = {
    "badmm": Entry(
        "gps.guiders.model_based.badmm:BadmmSettings",
        "gps.guiders.model_based.badmm:Badmm",
        "BADMM guided policy search: iLQR on fitted dynamics, augmented Lagrangian",
    ),
    "mdgps": Entry(
        "gps.guiders.model_based.mdgps:MdgpsSettings",
        "gps.guiders.model_based.mdgps:Mdgps",
        "mirror descent guided policy search: LQR on fitted dynamics, close to the learner",
    ),
    **{
        name: Entry(functools.partial(_defaults, name), functools.partial(_build, name), _ABOUT[name])
        for name in METHODS
    },
}
