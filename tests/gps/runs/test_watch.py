"""A run followed by another process: what it shows, and when it ends."""

from __future__ import annotations

import io

import pytest
from support.display import COLUMNS, row_of

from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.watch import POLL, SILENCE, watch


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(
        tmp_path / "run", Experiment.resolve({"run": {"task": "tiger-door", "guider": "ppo", "iterations": 4}})
    )


def watched(folder, *steps) -> list[str]:
    """The lines that are shown, where these functions are called one after the other as time passes."""
    left, stream = list(steps), io.StringIO()
    watch(folder, "a run", COLUMNS[:1], stream=stream, wait=lambda seconds: left.pop(0)())
    assert left == []
    return [line.split("  left")[0] for line in stream.getvalue().splitlines()]


def nothing():
    pass


def test_rows_are_shown_as_they_come_until_the_last_one(folder):
    folder.metrics.append(row_of(0))
    torn = folder.metrics.path.open("ab")

    def half():
        torn.write(b'{"iteration": 1, ')
        torn.flush()

    def rest():
        torn.write(b'"steps": 1}\n{"iteration": 2}\n')
        torn.close()

    shown = watched(folder, nothing, half, rest, lambda: folder.metrics.append(row_of(3)))
    assert shown == ["a run: 4 iterations, 1 done before", "iter 0", "iter 1", "iter 2", "iter 3"]


def test_a_run_that_has_ended_is_shown_whole(folder):
    for i in range(4):
        folder.metrics.append(row_of(i))
    assert watched(folder)[1:] == ["iter 0", "iter 1", "iter 2", "iter 3"]


def test_a_run_that_goes_back_to_a_checkpoint_is_followed(folder):
    for i in range(3):
        folder.metrics.append(row_of(i))
    shown = watched(
        folder, lambda: folder.metrics.rewind(1), *[lambda i=i: folder.metrics.append(row_of(i)) for i in (1, 2, 3)]
    )
    assert shown[4:] == ["note: resumed after iteration 1: later ones are computed again", "iter 1", "iter 2", "iter 3"]


@pytest.mark.parametrize(("slowest", "patience"), [(1.0, SILENCE), (40.0, 200.0)])
def test_silence_is_told_once_and_at_the_right_time(folder, slowest, patience):
    for i in range(3):
        folder.metrics.append(row_of(i) | {"iteration_seconds": slowest})
    polls = int(patience / POLL)
    shown = watched(
        folder, *[nothing] * (polls - 1), nothing, *[nothing] * 50, lambda: folder.metrics.append(row_of(3))
    )
    assert shown[4:] == [
        f"note: no row for {patience:.0f} s: does the process that trains {folder.path} still run?",
        "iter 3",
    ]
