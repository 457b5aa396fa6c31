"""Metrics and the summary of a run: plain values, whole lines, also after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from support.folders import flip
from support.processes import ENVIRONMENT

from gps.runs.folder import RunError, RunFolder

EXPERIMENT = SimpleNamespace(to_dict=lambda: {"run": {"seed": 0}})  # all that the folder of a run knows of one


class Killed(BaseException):
    pass


def strict(text: str):
    """JSON as any reader knows it, without Python's NaN and Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_metrics_come_back_as_plain_values(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    assert run.metrics.rows() == []
    run.metrics.append(
        {
            "iteration": np.int64(0),
            "cost": jnp.float32(0.1),
            "per_condition": jnp.array([1.5, np.nan]),
            "matrix": np.array([[1.0, -np.inf], [np.inf, 2.0]]),
            "lists": [[1, (2.5, float("nan"))], []],
            "flag": np.bool_(True),
            "text": 'quote " line\nbreak \r ä \u2028',
            "none": None,
            "half": jnp.bfloat16(1.5),
        }
    )
    run.metrics.append({"iteration": 1})
    rows = run.metrics.rows()
    assert rows == [
        {
            "iteration": 0,
            "cost": float(np.float32(0.1)),
            "per_condition": [1.5, None],
            "matrix": [[1.0, None], [None, 2.0]],
            "lists": [[1, [2.5, None]], []],
            "flag": True,
            "text": 'quote " line\nbreak \r ä \u2028',
            "none": None,
            "half": 1.5,
        },
        {"iteration": 1},
    ]
    assert (type(rows[0]["iteration"]), type(rows[0]["flag"])) == (int, bool)
    lines = (run.path / "metrics.jsonl").read_bytes().decode().split("\n")
    assert [strict(line) for line in lines[:-1]] == rows


@pytest.mark.parametrize("value", [object(), 1j, b"bytes", {1, 2}])
def test_a_value_that_cannot_be_written_is_named_and_nothing_is_written(tmp_path, value):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    run.metrics.append({"iteration": 0})
    with pytest.raises(TypeError, match=r"'metrics\.guider\.odd' is a "):
        run.metrics.append({"iteration": 1, "guider": {"odd": [value]}})
    assert run.metrics.rows() == [{"iteration": 0}]


def test_a_torn_last_line_is_ignored_wherever_it_is_torn(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    rows = [{"iteration": i, "cost": 1.5 * i, "name": "ä"} for i in range(3)]
    for row in rows:
        run.metrics.append(row)
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        assert run.metrics.rows() == rows[:2]
        run.metrics.append({"iteration": 7})  # does not glue itself to the rest of the torn line
        assert run.metrics.rows() == [*rows[:2], {"iteration": 7}]
        file.write_bytes(whole[:end])
        run.metrics.rewind(2)
        assert file.read_bytes() == whole[:start]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    for bad in (b'{"iteration": 1, "co\n', b"[1]\n", b"\xff\n"):
        (run.path / "metrics.jsonl").write_bytes(b'{"iteration": 0}\n' + bad + b'{"iteration": 2}\n')
        for reading in (run.metrics.rows, lambda: run.metrics.rewind(1)):
            with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: not a JSON object"):
                reading()
        assert (run.path / "metrics.jsonl").read_bytes().count(b"\n") == 3


def test_rewind_drops_the_iterations_that_are_run_again(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    run.metrics.rewind(0)
    assert not (run.path / "metrics.jsonl").exists()
    for iteration in (0, 1, 2, 3):
        run.metrics.append({"iteration": iteration, "cost": 0.1})
    run.metrics.append({"note": "without iteration"})
    before = (run.path / "metrics.jsonl").read_bytes()

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            run.metrics.rewind(2)
    assert (run.path / "metrics.jsonl").read_bytes() == before
    run.metrics.rewind(2)
    kept = before.splitlines(keepends=True)
    assert (run.path / "metrics.jsonl").read_bytes() == kept[0] + kept[1] + kept[4]
    run.metrics.append({"iteration": 2})
    assert [row.get("iteration") for row in run.metrics.rows()] == [0, 1, None, 2]


def test_sums_name_the_row_that_has_changed(tmp_path):
    """Any bit of the rows that they are over; rows after these may be other ones."""
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    for iteration in range(4):
        run.metrics.append({"iteration": iteration, "cost": 0.5 * iteration})
        if iteration == 2:
            sums = run.metrics.sums()
    again = RunFolder.open(run.path).metrics
    assert again.sums() == run.metrics.sums() != sums
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    covered = len(b"".join(whole.splitlines(keepends=True)[:3]))
    for position in range(len(whole)):
        flip(file, position)
        if position >= covered:
            again.check(sums)
        else:
            line = whole[:position].count(b"\n") + 1
            with pytest.raises(RunError, match=rf"metrics\.jsonl, line {line}: it has changed since it was written"):
                again.check(sums)
        file.write_bytes(whole)
    file.write_bytes(whole[: covered - 1])
    with pytest.raises(RunError, match="line 3: it has changed"):
        again.check(sums)


def test_rows_are_counted_without_being_read(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    assert run.metrics.count() == 0
    for iteration in range(3):
        run.metrics.append({"iteration": iteration, "padding": "x" * 2**20})
    assert run.metrics.count() == 3
    (run.path / "metrics.jsonl").write_bytes(b'odd\n{}\n{"torn')
    assert run.metrics.count() == 2
    (run.path / "metrics.jsonl").write_bytes(b"{}\nodd\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: not a JSON object"):
        run.metrics.count()


def test_summary_is_whole_or_absent(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    with pytest.raises(RunError, match=r"no summary\.json: the run has not ended"):
        run.read_summary()
    run.write_summary({"cost": np.float32(0.5), "worst": float("inf"), "test": {"cm": jnp.array([1.0, 2.0])}})
    summary = {"cost": 0.5, "worst": None, "test": {"cm": [1.0, 2.0]}}
    assert run.read_summary() == strict((run.path / "summary.json").read_text()) == summary

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            run.write_summary({"cost": 9.0})
    assert run.read_summary() == summary
    for bad in ('{"cost": ', "[1]", "null"):
        (run.path / "summary.json").write_text(bad)
        with pytest.raises(RunError, match=r"summary\.json is not a JSON object .*: delete it, and the resumed run"):
            run.read_summary()


def test_a_killed_process_leaves_every_line_it_reported(tmp_path):
    """Each line is on the disk when `append` returns; the reader never sees half of one."""
    code = """
import sys
from gps.runs.folder import RunFolder
run = RunFolder.open(sys.argv[1])
for iteration in range(10**6):
    run.metrics.append({"iteration": iteration, "padding": "x" * 20000})
    print(iteration, flush=True)
"""
    RunFolder.create(tmp_path / "run", EXPERIMENT)
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        while int(child.stdout.readline()) < 30:
            pass
    finally:
        child.kill()
        rest = child.communicate()[0].splitlines()
    reported = int(rest[-1]) if rest else 30
    rows = RunFolder.open(tmp_path / "run").metrics.rows()
    assert [row["iteration"] for row in rows] == list(range(len(rows)))
    assert len(rows) - 1 in (reported, reported + 1)
