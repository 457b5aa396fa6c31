"""`gps list`: the tasks, the guiders and the runs that there are. Without --settings, no task or guider is imported."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gps.cli import completion
from gps.cli.explained import lines
from gps.errors import printable
from gps.experiments.lookup import GUIDERS, GYMNASIUM, TASKS, gymnasium_entry, unknown
from gps.settings import flat


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("list", help="the tasks, the guiders and the runs that there are")
    named = "a task or a guider, or a pattern such as 'reacher*': these alone, and no runs"
    completion.both(parser.add_argument("names", nargs="*", metavar="NAME", help=named))
    parser.add_argument("--settings", action="store_true", help="with all their settings, defaults and what they mean")
    parser.add_argument("--runs", default="runs", help="folder of runs (default: runs)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the lists."""
    tasks = {**TASKS, f"{GYMNASIUM}:NAME": gymnasium_entry("environment NAME, any that it has")}
    known = {**tasks, **GUIDERS}
    for name in options.names:
        if not fnmatch.filter(known, name):
            raise unknown("task or guider", name, known)
    asked = {match for name in options.names or ("*",) for match in fnmatch.filter(known, name)}
    if options.settings and not options.names:
        from gps.experiments.experiment import RunSettings

        print("runs:")
        _print_lines(lines(RunSettings(), "run.", " " * 6))
    for kind, entries in (("task", tasks), ("guider", GUIDERS)):
        shown = {name: entry for name, entry in entries.items() if name in asked}
        if shown:
            print(f"{kind}s:")
        for name, entry in shown.items():
            print(f"  {name:{_width(shown)}}{entry.about}")
            if options.settings:
                _print_lines(lines(entry.load().settings, f"{kind}.", " " * 6))
                _print_changes("model-based", dict(entry.model_based))
                _print_changes("model-free", dict(entry.model_free))
    if not options.names:
        _print_runs(options.runs)
    return 0


def _print_changes(kind: str, tables: dict[str, Any]) -> None:
    """What a task changes of the defaults of guiders of a kind, by the names that can be set."""
    if not tables:
        return
    print(f"      defaults on this task, for {kind} guiders that have them:")
    _print_settings({name: table for name, table in tables.items() if name != "methods"}, "  ")
    for guider, table in tables.get("methods", {}).items():
        print(f"      and for {guider}:")
        _print_settings(table, "  guider.")


def _print_runs(path: str) -> None:
    from gps.runs.folder import is_run

    runs = sorted(place for place in Path(path).glob("*") if place.is_dir() and is_run(place))
    print(f"runs in {path}/:" if runs else f"no runs in {path}/")
    names = [printable(run.name) for run in runs]
    for name, run in zip(names, runs, strict=True):
        print(f"  {name:{_width(names)}}{printable(' '.join(_about(run).split()))}")


def _width(names: Iterable[str]) -> int:
    """Of a column of names."""
    return max(map(len, names)) + 2


def _about(path: Path) -> str:
    from gps.runs.folder import RunFolder

    try:
        folder = RunFolder.open(path)
        own, done = folder.settings["run"], folder.metrics.count()  # as it stands: nothing is imported for it
        return f"{own['task']} by {own['guider']}, seed {own['seed']}: {done} of {own['iterations']} iterations"
    except (KeyError, TypeError):
        return "cannot be read: its config.toml lacks a setting of the table 'run'"
    except Exception as error:
        return f"cannot be read: {error}"  # one bad run does not hide the others


def _print_settings(settings: dict, prefix: str) -> None:
    _print_lines(f"      {name} = {value}" for name, value in flat(settings, prefix).items())


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
