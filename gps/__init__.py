"""Guided policy search: one loop, two sources of guidance."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import controllers  # noqa: F401  (first: it sets OPENBLAS_NUM_THREADS before jax is imported)

if TYPE_CHECKING:
    from gps.runs.resume import Loaded

STARTED = time.time()  # seconds since the epoch; a run's wall time counts from here, imports included

# Loading a compiled program from the cache makes XLA's C++ side log a page of CPU features as an "error" on
# standard error, though it loads. The cache's folder has the CPU's features in its name (`gps.runs.programs.machine`),
# so that what is silenced here is never true. Python exceptions are not affected. Set it to 0 to see everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def load(run: str | os.PathLike[str], step: int | None = None, *, trust: bool = False) -> Loaded:
    """A run: its task, its learner as a function of numpy's arrays, and its controllers.

        run = gps.load("runs/reacher-badmm-seed0")
        action, memory = run.learner(observation)

    Args:
        run: its folder.
        step: iterations after which it is to be read; without, as of its newest checkpoint.
        trust: import the code that its settings name as module:NAME, such as a task of your own.

    Errors:
        As in `gps.runs.resume.load`, and UntrustedError for code that is not trusted.
    """
    from gps.runs.folder import EVERYTHING, RunFolder
    from gps.runs.resume import load as read

    return read(RunFolder.open(run, EVERYTHING if trust else ()), step)
