"""`gps report`: a run as one HTML page, or several runs compared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gps.cli.reading import add_checkpoint, load_run, open_run
from gps.errors import UserError


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("report", help="make one HTML page of a run, or of several runs compared")
    parser.add_argument("runs", nargs="+", metavar="run", help="a run's folder; several are compared")
    add_checkpoint(parser)
    parser.add_argument("--out", help="the file (default: RUN/figures/report.html; of several runs report.html)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the page, and print its name."""
    several = len(options.runs) > 1
    if several and (options.step is not None or options.allow_older):
        raise UserError(
            "report: --step and --allow-older choose a checkpoint of one run, and several runs are compared"
        )
    from gps.files import told, write_text

    text = _compared(options) if several else _one(options)
    out = Path(options.out or ("report.html" if several else Path(options.runs[0]) / "figures" / "report.html"))
    with told(out.parent, "made"):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print(out)
    return 0


def _one(options: argparse.Namespace) -> str:
    from gps.runs.finish import to_stderr
    from gps.runs.report import of_run, read

    folder = open_run(options.runs[0], options)
    files, loaded = read(folder), None
    if folder.checkpoints.steps():
        loaded = load_run(folder, options)
        to_stderr(str(loaded))
    else:
        to_stderr("note: the run has no checkpoint yet, and so the page has no episodes")
    return of_run(files, loaded, to_stderr)


def _compared(options: argparse.Namespace) -> str:
    from gps.runs.finish import to_stderr
    from gps.runs.report import of_runs, read, score_of

    folders = [open_run(path, options) for path in options.runs]
    files = [read(folder, name) for folder, name in zip(folders, _names(options.runs), strict=True)]
    return of_runs(files, [score_of(folder) for folder in folders], to_stderr)


def _names(paths: list[str]) -> list[str]:
    """Those of the folders, or their whole paths where two have the same name."""
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else paths
