"""What can be run, by name: tasks, guiders, and what model-free guiders take as defaults on each task."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gps.guiders.model_based.badmm import BadmmSettings, badmm
from gps.guiders.model_based.mdgps import MdgpsSettings, mdgps
from gps.guiders.model_free.guider import ModelFree
from gps.guiders.model_free.settings import DEFAULTS
from gps.settings import SettingsError, unknown
from gps.tasks import presets
from gps.tasks.doors.tiger import TigerDoor, TigerDoorAlt, TigerDoorAltSettings, TigerDoorSettings
from gps.tasks.external.brax_envs import BRAX
from gps.tasks.external.playground_envs import PLAYGROUND
from gps.tasks.memory import FAMILY
from gps.tasks.mujoco.reacher import PARTIAL, Reacher, ReacherSettings


@dataclass(frozen=True)
class Entry:
    """A task or a guider."""

    defaults: Any  # its settings
    # A guider from (task, settings), a task from (settings, name), or (settings, engine, name) where `engines`.
    build: Callable[..., Any]
    about: str  # a line about it
    engines: bool = False  # of a task: there is an engine to choose
    # Of a task: tables of settings ("run", "guider") over the defaults of model-free guiders, as far as they have them.
    model_free: presets.Tables = field(default_factory=dict)


TASKS = {
    "reacher": Entry(
        ReacherSettings(), Reacher, "a two-link arm reaches for targets in the plane", True, model_free=presets.REACHING
    ),
    "reacher-pomdp": Entry(
        PARTIAL,
        Reacher,
        "the same; the learner sees noisy joint angles and no velocities",
        True,
        model_free=presets.REACHING,
    ),
    "tiger-door": Entry(
        TigerDoorSettings(), TigerDoor, "open the door without the tiger, or listen first", model_free=presets.DOORS
    ),
    "tiger-door-alt": Entry(
        TigerDoorAltSettings(),
        TigerDoorAlt,
        "what is best for who knows is not for who does not",
        model_free=presets.DOORS,
    ),
    **{name: Entry(*entry, model_free=presets.MEMORY) for name, entry in FAMILY.items()},
    **{name: Entry(*entry, model_free=presets.BRAX.get(name, presets.locomotion())) for name, entry in BRAX.items()},
    **{name: Entry(*entry, model_free=presets.locomotion()) for name, entry in PLAYGROUND.items()},
}

_MODEL_FREE = {
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

GUIDERS = {
    "badmm": Entry(BadmmSettings(), badmm, "BADMM guided policy search: iLQR on fitted dynamics, augmented Lagrangian"),
    "mdgps": Entry(
        MdgpsSettings(), mdgps, "mirror descent guided policy search: LQR on fitted dynamics, close to the learner"
    ),
    **{name: Entry(DEFAULTS[name], functools.partial(ModelFree, name), about) for name, about in _MODEL_FREE.items()},
}


def find(kind: str, name: str) -> Entry:
    """The "task" or the "guider" of a name; one's own has the name "module:ENTRY" of an `Entry` in a Python module.

    Errors:
        SettingsError for an unknown name, a module that can not be imported, and what is no `Entry` in it.
    """
    known = {"task": TASKS, "guider": GUIDERS}[kind]
    if name in known:
        return known[name]
    module, colon, entry = name.partition(":")
    if not colon:
        raise unknown(kind, name, known)
    if not module or not entry:
        raise SettingsError(f"{kind} {name!r} must be a name of `gps list`, or module:ENTRY for one of your own")
    try:
        found = getattr(importlib.import_module(module), entry, None)
    except ImportError as error:
        raise SettingsError(f"{kind} {name!r}: {error}; is the module's folder in PYTHONPATH?") from error
    if not isinstance(found, Entry):
        raise SettingsError(
            f"{kind} {name!r}: {entry} in {module} must be a gps.experiments.lookup.Entry, not {found!r}"
        )
    return found


def defaults(task: str, guider: str) -> dict[str, Any]:
    """Tables "run" and "guider" of settings that a guider takes on a task over its own defaults."""
    preset, own = find("task", task).model_free, find("guider", guider).defaults
    return presets.of(preset, guider, own) if guider in _MODEL_FREE else {}
