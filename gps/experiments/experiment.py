"""The settings of one run: task + guider + seed + how long."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynamics.engines import ENGINES
from gps.experiments import lookup
from gps.guiders.guider import Guider
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.settings import TeacherFirst, TeacherSettings
from gps.runs.folder import RunFolder
from gps.settings import SettingsError, flat, from_dict, to_dict, unknown
from gps.tasks.task import Environment


@dataclass(frozen=True)
class RunSettings:
    """What a run is about, besides the settings of its task and its guider."""

    task: str = "reacher"  # a name of `gps list`, or one's own as "module:ENTRY"; see `gps.experiments.lookup.find`
    guider: str = "badmm"  # likewise
    engine: str = "auto"  # simulator: "mujoco" (C, all cores), "mjx" (on the device), or what fits the machine
    seed: int = 0
    iterations: int = 12
    evaluate_every: int = 1  # iterations between evaluations of the learner; the last one is always evaluated
    checkpoint_every: int = 1  # iterations between checkpoints; there is always one at the end

    def __post_init__(self):
        lookup.find("task", self.task)
        lookup.find("guider", self.guider)
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to {2**32 - 1}, not {self.seed}")
        for name in ("iterations", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Experiment:
    """All settings of a run, as in its config.toml."""

    run: RunSettings
    task: Any
    guider: Any

    @classmethod
    def resolve(cls, settings: Mapping[str, Any]) -> Experiment:
        """From the tables "run", "task" and "guider"; what they leave out takes the defaults of guider and task.

        Errors:
            SettingsError naming an unknown table, key, task, guider or engine and the nearest known one, or a
            value of the wrong type or outside its range.
        """
        for table in settings:
            if table not in ("run", "task", "guider"):
                raise unknown("table of settings", table, ("run", "task", "guider"))
        run = from_dict(RunSettings, settings.get("run", {}), "run")
        preset = lookup.defaults(run.task, run.guider)
        run = from_dict(RunSettings, overlay(preset.get("run", {}), settings.get("run", {})), "run")
        task, guide = lookup.find("task", run.task), lookup.find("guider", run.guider)
        if run.engine != "auto" and not task.engines:
            raise SettingsError(
                f"run.engine = {run.engine!r}: {run.task} has physics of its own, or none; leave it at 'auto'"
            )

        def complete(entry: lookup.Entry, where: str):
            own = overlay(to_dict(entry.defaults), preset.get(where, {}))
            return from_dict(type(entry.defaults), overlay(own, settings.get(where, {})), where)

        guider = complete(guide, "guider")
        _check_teaching(run, guider)
        return cls(run, complete(task, "task"), guider)

    @classmethod
    def of(cls, folder: RunFolder) -> Experiment:
        """That of a run; errors as in `resolve`, naming the folder."""
        try:
            return cls.resolve(folder.settings)
        except SettingsError as error:
            raise SettingsError(f"{folder.path / 'config.toml'}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain tables; `resolve` takes them back."""
        return {
            "run": to_dict(self.run),
            "task": to_dict(self.task),
            "guider": to_dict(self.guider),
        }

    @property
    def simulated(self) -> bool:
        """Whether there is a MuJoCo engine to choose."""
        return lookup.find("task", self.run.task).engines

    def build_task(self) -> Environment:
        """The task; with its simulator, if it has one, on the chosen engine."""
        engine = (self.run.engine,) if self.simulated else ()
        return lookup.find("task", self.run.task).build(self.task, *engine, self.run.task)

    def build(self, begun: bool = False) -> Guider:
        """The guider on its task.

        Args:
            begun: for a state from a checkpoint, in which a teacher from another run is already: its folder is not
                looked at, and may be gone.

        Errors:
            SettingsError for settings that are impossible together, before anything runs.
        """
        build = lookup.find("guider", self.run.guider).build
        if self.run.guider in METHODS and isinstance(self.guider, TeacherFirst) and self.guider.teacher.run:
            if begun:
                build = functools.partial(build, begun=True)
            else:
                self._check_teacher(self.guider.teacher)
        try:
            return build(self.build_task(), self.guider)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def _check_teacher(self, teacher: TeacherSettings) -> None:
        """Raise SettingsError where a teacher from another run has learned the same task with other settings."""
        other = Experiment.of(RunFolder.open(teacher.run))
        if other.run.task != self.run.task:
            return  # which the guider refuses, as it does without an experiment
        theirs, own = (flat(to_dict(task), "task.") for task in (other.task, self.task))
        for name, value in own.items():
            if theirs[name] != value:
                raise SettingsError(
                    f"guider.teacher.run = {teacher.run!r} has {name} = {theirs[name]}, and this run has {value}: "
                    "what the teacher sees or is rewarded for would be another"
                )


def _check_teaching(run: RunSettings, guider: Any) -> None:
    """Raise SettingsError where a run would end before its teacher is trained and the learner's turn comes."""
    if not isinstance(guider, TeacherFirst):
        return
    teacher = guider.teacher
    if not teacher.run and run.iterations * guider.ppo.updates <= teacher.updates:
        raise SettingsError(
            f"guider.teacher.updates = {teacher.updates} leave the learner none of {run.iterations} iterations "
            f"of {guider.ppo.updates} updates: take fewer, more iterations, or a teacher from guider.teacher.run"
        )


def overlay(base: Mapping[str, Any], changes: Any) -> Any:
    """`base` with `changes` over it, table by table; keys that `base` lacks stay, to be found by the checks."""
    if not isinstance(changes, Mapping):
        return changes
    result = dict(base)
    for key, value in changes.items():
        result[key] = overlay(base[key], value) if isinstance(base.get(key), Mapping) else value
    return result
