"""What a shell proposes for arguments: names of tasks, guiders and settings. Nothing else imports argcomplete.

eval "$(register-python-argcomplete gps)"  # in ~/.bashrc or ~/.zshrc
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from gps.errors import UserError
from gps.experiments.lookup import GUIDERS, TASKS


def complete(parser: argparse.ArgumentParser) -> None:
    """Where a shell asks, answer and end the process."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def tasks(argument: argparse.Action) -> None:
    """This argument is the name of a task."""
    _propose(argument, lambda **_: TASKS)


def guiders(argument: argparse.Action) -> None:
    """This argument is the name of a guider."""
    _propose(argument, lambda **_: GUIDERS)


def both(argument: argparse.Action) -> None:
    """This argument is the name of a task or of a guider."""
    _propose(argument, lambda **_: [*TASKS, *GUIDERS])


def settings(argument: argparse.Action) -> None:
    """This argument is an assignment of a setting of the task and the guider that the command line has by then."""

    def of(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        from gps.cli.explained import explained
        from gps.experiments.experiment import Experiment

        named = {name: value for name in ("task", "guider") if (value := getattr(parsed_args, name, None))}
        try:
            experiment = Experiment.resolve({"run": named})
        except UserError:
            return []
        tables = ("run", "task", "guider")
        return [f"{name}=" for table in tables for name, *_ in explained(getattr(experiment, table), f"{table}.")]

    _propose(argument, of)


def _propose(argument: argparse.Action, names: Any) -> None:
    setattr(argument, "completer", names)  # noqa: B010 (argcomplete looks for it; argparse does not know it)
