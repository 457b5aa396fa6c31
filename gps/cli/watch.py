"""`gps watch`: follow a run that another process trains."""

from __future__ import annotations

import argparse
from typing import Any

from gps.cli.reading import TRUST, open_run


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("watch", help="follow a run that another process trains")
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    return parser


def run(options: argparse.Namespace) -> int:
    """Show the run's progress to its end."""
    from gps.runs.train import columns_of, title_of
    from gps.runs.watch import watch

    folder = open_run(options.run, options)
    watch(folder, title_of(folder.experiment), columns_of(folder.experiment.alone.build()))
    return 0
