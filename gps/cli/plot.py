"""`gps plot`: draw the figures of a run again."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("plot", help="draw the figures of a run again")
    parser.add_argument("run", help="a run's folder")
    return parser


def run(options: argparse.Namespace) -> int:
    """Draw, and print the names of the files."""
    from gps.runs.finish import draw, final_evaluation
    from gps.runs.folder import RunFolder
    from gps.runs.programs import Programs
    from gps.runs.resume import load

    folder = RunFolder.open(options.run)
    run = load(folder)
    evaluation = final_evaluation(run.experiment, Programs(run.guider), run.guider, run.state)
    for path in draw(folder, run.guider.task, evaluation):
        print(path)
    return 0
