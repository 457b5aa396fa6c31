"""A run's metrics as event files of TensorBoard, beside metrics.jsonl, where `run.tensorboard` asks for them.

tensorboard --logdir runs
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gps.errors import not_installed
from gps.experiments.experiment import Experiment
from gps.runs.folder import TENSORBOARD, RunFolder
from gps.settings import SettingsError

Row = Mapping[str, Any]


def require_writer(experiment: Experiment) -> None:
    """Raise SettingsError where event files are asked for and the package that writes them is not installed."""
    if experiment.run.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise SettingsError(not_installed("run.tensorboard = true", "tensorboardX", "tensorboard"))


@contextmanager
def events(folder: RunFolder, rows: Sequence[Row]) -> Iterator[Callable[[Row], None]]:
    """Writes rows; those that the run has already are written first.

    A process writes all rows anew and deletes what earlier ones wrote, so that rows which a resumed run computes again
    are there once. Steps are those of the simulator. Of a list, such as a number per condition, there are the mean and
    a histogram.
    """
    if not folder.experiment.run.tensorboard:
        yield lambda _row: None
        return
    from tensorboardX import SummaryWriter

    place = folder.path / TENSORBOARD
    shutil.rmtree(place, ignore_errors=True)
    began = time.time() - (rows[-1]["seconds"] if rows else 0.0)
    with SummaryWriter(str(place), flush_secs=5) as writer:

        def write(row: Row) -> None:
            at = {"global_step": row["steps"], "walltime": began + row["seconds"]}
            for name, numbers in _numbers(row).items():
                writer.add_scalar(name, numbers.mean(), **at)
                if numbers.size > 1:
                    writer.add_histogram(name, numbers, **at)

        for row in rows:
            write(row)
        yield write


def _numbers(row: Row) -> dict[str, np.ndarray]:
    """The finite numbers of each quantity that has some."""
    found = {}
    for name, value in row.items():
        try:
            numbers = np.asarray(value, float).ravel()  # None, of a row that was read, is NaN
        except (TypeError, ValueError):
            continue
        if np.isfinite(numbers).any():
            found[name] = numbers[np.isfinite(numbers)]
    return found
