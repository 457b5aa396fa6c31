"""Going on with a run that is there, if its settings are those that are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gps import config
from gps.experiment import Experiment
from gps.run import RunFolder


def resumable(path: str | os.PathLike[str], asked: Mapping[str, Any]) -> tuple[RunFolder, int]:
    """The run at `path`, and how many iterations it is to have; nothing is changed.

    Args:
        asked: tables of settings, of which more iterations than the run's own may be asked for.

    Errors:
        SettingsError for fewer iterations, and for any other setting that differs from the run's own, naming both.
    """
    path = Path(path)
    folder = RunFolder.open(path)
    own = Experiment.resolve(folder.settings)
    before = config.flat(own.to_dict())
    changes = {name: value for name, value in config.flat(asked).items() if value != before.get(name)}
    iterations = changes.pop("run.iterations", own.run.iterations)
    for name, value in changes.items():
        raise config.SettingsError(f"{path} is a run with {name} = {before[name]}, not {value}; use a new --out")
    if iterations < own.run.iterations:
        raise config.SettingsError(
            f"{path} is a run of {own.run.iterations} iterations: ask for more, not {iterations}"
        )
    return folder, iterations


def resumed(path: str | os.PathLike[str], asked: Mapping[str, Any]) -> RunFolder:
    """The run at `path`, with more iterations if they are asked for; errors as in `resumable`."""
    folder, iterations = resumable(path, asked)
    if iterations > Experiment.resolve(folder.settings).run.iterations:
        config.write(folder.path / "config.toml", config.override(folder.settings, [f"run.iterations={iterations}"]))
        folder = RunFolder.open(path)
    return folder
