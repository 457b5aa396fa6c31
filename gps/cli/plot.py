"""`gps plot`: draw the figures of a run again."""

from __future__ import annotations

import argparse
from typing import Any

from gps.cli.reading import add_run, read_run


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("plot", help="draw the figures of a run again")
    add_run(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Draw, and print the names of the files."""
    from gps.runs.finish import draw, final_evaluation, to_stderr
    from gps.runs.programs import Programs

    folder, run = read_run(options)
    to_stderr(str(run))
    evaluation = final_evaluation(run.experiment, Programs(run.guider), run.guider, run.state)
    for path in draw(folder, run.guider.task, evaluation):
        print(path)
    return 0
