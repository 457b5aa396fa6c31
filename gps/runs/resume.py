"""Loading a run, and going on with it where its settings are those that are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from gps.experiments.experiment import Experiment, overlay
from gps.guiders.guider import Guider
from gps.runs import integrity
from gps.runs.folder import RunError, RunFolder
from gps.runs.programs import use_compilation_cache
from gps.settings import SettingsError, flat, override, write_toml


def resumable(path: str | os.PathLike[str], asked: Mapping[str, Any]) -> tuple[RunFolder, int]:
    """The run at `path`, and how many iterations it is to have; nothing is changed.

    Args:
        asked: tables of settings, of which more iterations than the run's own may be asked for.

    Errors:
        SettingsError for fewer iterations, and for any other setting that differs from the run's own, naming both.
    """
    path = Path(path)
    folder = RunFolder.open(path)
    own = Experiment.of(folder)
    iterations = asked.get("run", {}).get("iterations", own.run.iterations)
    before = flat(own.to_dict())
    run = {"run": {name: value for name, value in asked.get("run", {}).items() if name != "iterations"}}
    _same(path, before, flat(run), run)  # first: with another task or guider, the rest is of other settings
    _same(path, before, flat(Experiment.resolve(overlay(own.to_dict(), {**asked, **run})).to_dict()), asked)
    if iterations < own.run.iterations:
        raise SettingsError(f"{path} is a run of {own.run.iterations} iterations: ask for more, not {iterations}")
    return folder, iterations


def resumed(path: str | os.PathLike[str], asked: Mapping[str, Any]) -> RunFolder:
    """The run at `path`, with more iterations if they are asked for.

    Errors:
        As in `resumable` and `check`, and RunError while another process trains the run. All before its settings are
        changed; where they stay, `gps.runs.train` finds out what `check` would.
    """
    folder, iterations = resumable(path, asked)
    if iterations > Experiment.of(folder).run.iterations:
        with folder.locked():
            folder, iterations = resumable(path, asked)  # again: what has the lock may have changed it
            longer = override(folder.settings, [f"run.iterations={iterations}"])
            check(folder, Experiment.resolve(longer).build(begun=bool(folder.checkpoints.steps())))
            write_toml(folder.path / "config.toml", longer)
        folder = RunFolder.open(path)
    return folder


def _same(path: Path, before: Mapping[str, Any], wanted: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise SettingsError for a setting that was asked for and is another one in the run."""
    for name in flat(asked):
        if name != "run.iterations" and wanted[name] != before.get(name):
            raise SettingsError(f"{path} is a run with {name} = {before[name]}, not {wanted[name]}; use a new --out")


def check(folder: RunFolder, guider: Guider) -> None:
    """Find out whether a run can go on with this guider, without reading its arrays; nothing is changed.

    Errors:
        CheckpointError where there are checkpoints but none is whole, or the state is not of this guider; RunError
        where rows of the metrics or all checkpoints were lost.
    """
    integrity.check(folder, folder.checkpoints.newest(jax.eval_shape(guider.init, jax.random.key(0))))


def load(folder: RunFolder) -> tuple[Experiment, Guider, Any]:
    """A run's experiment, guider and state as of its last whole checkpoint.

    Errors:
        RunError where there is no checkpoint, yet or any more; CheckpointError where none is whole.
    """
    use_compilation_cache()
    experiment = Experiment.of(folder)
    guider = experiment.build(begun=True)
    like = jax.eval_shape(guider.init, jax.random.key(0))
    restored = folder.checkpoints.restore(like)
    if restored is None:
        integrity.check(folder, None)
        raise RunError(f"{folder.path} has no checkpoint yet: train it with gps train --resume")
    return experiment, guider, restored.state
