"""`gps check-task`: whether a task of one's own is what guiders need, told before anything is trained."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("check-task", help="say what is wrong with a task of one's own")
    parser.add_argument("task", metavar="module:ENTRY", help="an Entry in a Python module, or a name of gps list")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as task.horizon=100")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print a line for each finding; the exit status is 1 where there is one."""
    from gps.experiments.experiment import Experiment
    from gps.settings import override
    from gps.tasks.check import check_task

    experiment = Experiment.resolve(override({"run": {"task": options.task, "guider": "ppo"}}, options.set))
    findings = check_task(experiment.build_task())
    for finding in findings:
        print(finding)
    if not findings:
        print(f"{options.task}: nothing is wrong")
    return 1 if findings else 0
