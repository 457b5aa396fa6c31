"""Rows of a run, and a process that shows them: `python -m support.display`, with "die" for one that ends too early."""

from __future__ import annotations

import sys

import numpy as np

from gps.columns import Column, count, short, span
from gps.runs.progress import Progress

COLUMNS = (
    Column("iteration", "iter", ".0f"),
    Column("cost", "cost", short),
    Column("cost", "min..max", span, whole=True),
    Column("kl_ratio", "KL/lim", ".2f"),
    Column("lambda_norm", "|lambda|", short),
    Column("penalty", "penalty", short),
    Column("learner_error", "learner", short),
    Column("train_score", "train", ".2f", "cm"),
    Column("test_score", "test", ".2f", "cm"),
    Column("steps", "steps", count),
    Column("seconds", "time", ".1f", "s"),
)


def row_of(iteration: int) -> dict:
    """A row of metrics with a number for every column."""
    return {
        "iteration": iteration,
        "cost": np.array([9.0, 16.0, 12.5]),
        "kl_ratio": np.float32(0.987),
        "lambda_norm": np.float64(0.0123),
        "penalty": 1e-5,
        "learner_error": 0.5,
        "train_score": 1.25,
        "test_score": 2.5,
        "steps": 12800,
        "seconds": 2.34,
        "unshown": 1,
    }


def show() -> None:
    """Fourteen rows; the last one lacks a number and has one that is NaN."""
    with Progress(14, "reacher with [badmm]", COLUMNS) as progress:
        progress.note("checkpoint 12 damaged [a/b], resuming from 11")
        for iteration in range(14):
            row = row_of(iteration)
            if iteration == 13:
                row["cost"] = [float("nan")]
                del row["penalty"]
                progress.note("controllers kept")
            progress.update(row)
        print("printed by others")
        if sys.argv[1:] == ["die"]:
            raise SystemExit("died")
    print("rich" in sys.modules)


if __name__ == "__main__":
    show()
