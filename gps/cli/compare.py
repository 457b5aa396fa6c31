"""`gps compare`: train guiders on the same tasks and seeds, and compare them."""

from __future__ import annotations

import argparse
from typing import Any

from gps.cli import completion
from gps.cli.train import settings_of

GO_ON = "; the same command goes on from the last checkpoint of each run"


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("compare", help="train guiders on the same tasks and seeds, and compare them")
    completion.tasks(parser.add_argument("tasks", nargs="+", metavar="task", help="see gps list"))
    completion.guiders(
        parser.add_argument("--guiders", nargs="+", required=True, metavar="GUIDER", help="see gps list")
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many; they are 0, 1, 2, ... (default: 5)")
    parser.add_argument("--iterations", type=int, help="of every run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run, as in train")
    parser.add_argument(
        "--set-for",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="for the runs of one guider or one task; comes after --set",
    )
    parser.add_argument("--threshold", type=float, help="return for which the steps to reach it are counted")
    parser.add_argument(
        "--score-threshold",
        "--distance-threshold",
        type=float,
        metavar="SCORE",
        help="likewise, the mean test score, in the unit of each task (centimetres of the reacher)",
    )
    parser.add_argument(
        "--solved-threshold", type=float, metavar="PERCENT", help="likewise, the share of test episodes that are solved"
    )
    parser.add_argument("--out", help="folder of runs and results (default: runs/compare-TASK)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Compare; the exit status is 1 where a run diverged."""
    settings_of(options, "iterations")  # finds contradictions
    settings_for: dict[str, list[str]] = {}
    for name, assignment in options.set_for:
        settings_for.setdefault(name, []).append(assignment)
    iterations = [] if options.iterations is None else [f"run.iterations={options.iterations}"]

    from gps.comparisons.compare import compare
    from gps.comparisons.statistics import Goals

    comparison = compare(
        options.tasks,
        options.guiders,
        options.seeds,
        settings=[*iterations, *options.set],
        settings_for=settings_for,
        out=options.out,
        goals=Goals(options.threshold, options.score_threshold, options.solved_threshold),
    )
    print(f"\n{comparison.text}")
    for path in comparison.files:
        print(path)
    return 1 if comparison.failed else 0
