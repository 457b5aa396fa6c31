"""Loading a run, and going on with it where its settings are those that are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from gps.experiments.experiment import MAY_CHANGE, Experiment
from gps.guiders.guider import Guider
from gps.runs import integrity
from gps.runs.best import saved_like
from gps.runs.checkpoints import CheckpointError, Restored
from gps.runs.export import Learner
from gps.runs.folder import RunError, RunFolder
from gps.runs.programs import use_compilation_cache
from gps.settings import SettingsError, write_toml
from gps.tasks.task import Environment
from policies.policy import Policy


def resumable(path: str | os.PathLike[str], asked: Experiment) -> RunFolder:
    """The run at `path`; nothing is changed.

    Args:
        asked: with the run's own settings, but for those of `MAY_CHANGE`; iterations may only be more.

    Errors:
        SettingsError for fewer iterations, and for any other setting that differs from the run's own, naming both.
    """
    folder = RunFolder.open(path, asked.code)
    own = folder.experiment
    for name, (has, wanted) in own.differences(asked).items():
        if name not in MAY_CHANGE:
            raise SettingsError(f"{path} is a run with {name} = {has}, not {wanted}; use a new --out")
    if asked.run.iterations < own.run.iterations:
        raise SettingsError(
            f"{path} is a run of {own.run.iterations} iterations: ask for more, not {asked.run.iterations}"
        )
    return folder


def resumed(path: str | os.PathLike[str], asked: Experiment) -> RunFolder:
    """The run at `path`, with more iterations, or with figures or none, if that is asked for.

    Errors:
        As in `resumable` and `check`, and RunError while another process trains the run. All before its settings are
        changed; where they stay, `gps.runs.train` finds out what `check` would.
    """
    folder = resumable(path, asked)
    if folder.experiment.differences(asked):
        with folder.locked():
            folder = resumable(path, asked)  # again: the process that had the lock may have changed it
            check(folder, asked.build())
            write_toml(Path(path) / "config.toml", asked.to_dict())
        folder = RunFolder.open(path, folder.trusted)
    return folder


def shapes_of(guider: Guider) -> Any:
    """The shapes of a guider's state: a state restored in the likeness of arrays is bound to their device, and every
    program is compiled anew for it.
    """
    return jax.eval_shape(guider.init, jax.random.key(0))


def check(folder: RunFolder, guider: Guider) -> None:
    """Find out whether a run can go on with this guider, without reading its arrays; nothing is changed.

    Errors:
        CheckpointError where there are checkpoints but none is whole, or the state is not of this guider; RunError
        where rows of the metrics or all checkpoints were lost.
    """
    with _settings_first(folder):
        newest = folder.checkpoints.newest(saved_like(guider, shapes_of(guider)))
    integrity.check(folder, newest, folder.experiment.run.first_checkpoint)


def restore(folder: RunFolder, guider: Guider, step: int | None = None) -> tuple[Restored | None, list[str]]:
    """The newest checkpoint that is whole, or that of a step, and notes for the user; errors as in `check`."""
    with _settings_first(folder):
        restored = folder.checkpoints.restore(saved_like(guider, shapes_of(guider)), step)
    return restored, integrity.check(folder, restored, folder.experiment.run.first_checkpoint)


@contextmanager
def _settings_first(folder: RunFolder) -> Iterator[None]:
    """Where a checkpoint is of another structure, name the setting that was changed, if one was."""
    try:
        yield
    except CheckpointError:
        newest = folder.checkpoints.newest()
        if newest:
            integrity.check_settings(folder, newest)
        raise


@dataclass(frozen=True)
class Loaded:
    """A run as of a checkpoint."""

    path: Path
    experiment: Experiment
    guider: Guider
    state: Any
    best: Policy  # of the best learner so far
    best_iteration: int | None  # in which it was evaluated, counted from 0; None where none was evaluated yet
    step: int  # iterations before the checkpoint
    notes: list[str]  # for the user

    @property
    def task(self) -> Environment:
        """What the learner acts in."""
        return self.guider.task

    @cached_property
    def learner(self) -> Learner:
        """The learner as a function of numpy's arrays."""
        return Learner(self.guider.policy(self.state), self.task)

    @property
    def controllers(self) -> Any:
        """The controllers of the training conditions (`controllers.types.LinearGaussian`, leading M); None without."""
        return getattr(self.state, "controllers", None)

    def chosen(self, best: bool) -> tuple[str, Learner]:
        """The last learner, or the best by its training conditions, and which it is in words.

        Errors:
            RunError where the best is asked for and none was evaluated yet.
        """
        if not best:
            return str(self), self.learner
        if self.best_iteration is None:
            raise RunError(f"{self.path}: no learner was evaluated yet, so that none is the best: leave --best out")
        return f"the best learner, of iteration {self.best_iteration + 1}", Learner(self.best, self.task)

    def __str__(self) -> str:
        return f"the learner after iteration {self.step} of {self.experiment.run.iterations}"


def load(folder: RunFolder, step: int | None = None, *, allow_older: bool = False) -> Loaded:
    """Read a run as of its newest checkpoint.

    Args:
        step: of the checkpoint to read, in place of the newest one.
        allow_older: where newer checkpoints were made than the newest that is whole, take that one.

    Errors:
        RunError where there is no checkpoint, yet or any more, or one that does not fit the run's other files, and
        where newer ones were made that are damaged or missing; CheckpointError where none is whole, or none of `step`.
    """
    use_compilation_cache()
    experiment = folder.experiment
    guider = experiment.alone.build()
    rows = folder.metrics.count()
    restored, notes = restore(folder, guider, step)
    if restored is None:
        raise RunError(f"{folder.path} has no checkpoint yet: train it with gps train --resume")
    if allow_older:
        notes += [f"damaged checkpoint passed over: {damage}" for damage in restored.skipped]
    elif step is None:
        integrity.check_newest(folder, rows, restored)
    saved, best_iteration = restored.state, restored.meta["best_iteration"]
    return Loaded(folder.path, experiment, guider, saved.state, saved.best, best_iteration, restored.step, notes)
