"""What commands that read a run have in common: which of its checkpoints they take, and what they may import for it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gps.runs.folder import RunFolder
    from gps.runs.resume import Loaded

TRUST = "import the code that the run's settings name as module:NAME, such as a task of your own, and so run it"


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run, and the options that all these commands have."""
    parser.add_argument("run", help="a run's folder")
    add_checkpoint(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint of a run is read, and what may be imported for it."""
    parser.add_argument("--step", type=int, help="the checkpoint after so many iterations, not the newest")
    parser.add_argument("--allow-older", action="store_true", help="if the newest checkpoint is lost, the one before")
    parser.add_argument("--trust", action="store_true", help=TRUST)


def add_best(parser: argparse.ArgumentParser) -> None:
    """Which of the two learners that a run keeps."""
    parser.add_argument("--best", action="store_true", help="the best learner by training conditions, not the last")


def read_run(options: argparse.Namespace) -> tuple[RunFolder, Loaded]:
    """The run of a command line, and what it was after that many iterations; notes go to standard error."""
    folder = open_run(options.run, options)
    return folder, load_run(folder, options)


def open_run(path: str, options: argparse.Namespace) -> RunFolder:
    """A run's folder, with what is trusted."""
    from gps.runs.folder import EVERYTHING, RunFolder

    return RunFolder.open(path, EVERYTHING if options.trust else ())


def load_run(folder: RunFolder, options: argparse.Namespace) -> Loaded:
    """What the run was after as many iterations as are asked for; notes go to standard error."""
    from gps.runs.finish import to_stderr
    from gps.runs.resume import load

    loaded = load(folder, options.step, allow_older=options.allow_older)
    for note in loaded.notes:
        to_stderr(f"note: {note}")
    return loaded
