"""The run folder: never overwritten, and readable after a kill at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from gps.runs.folder import RunError, RunExistsError, RunFolder
from gps.settings import SettingsError, read_toml

SETTINGS = {"seed": 1, "guider": {"name": "badmm", "rate": 0.5, "widths": [64, 64]}}


def of(settings: dict):
    """All that the folder of a run knows of an experiment."""
    return SimpleNamespace(to_dict=lambda: settings)


EXPERIMENT = of(SETTINGS)


class Killed(BaseException):
    pass


def strict(text: str):
    """JSON as any reader knows it, without Python's NaN and Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_a_new_run_opens_with_its_settings(tmp_path):
    path = tmp_path / "runs" / "first"
    made = RunFolder.create(path, EXPERIMENT)
    opened = RunFolder.open(str(path))
    assert made.settings == opened.settings == SETTINGS
    assert opened.path == path
    assert opened.figures == path / "figures"
    assert opened.figures.is_dir()
    assert opened.checkpoints.folder == path / "checkpoints"
    assert sorted(entry.name for entry in path.iterdir()) == ["checkpoints", "config.toml", "figures"]


def test_checkpoints_of_a_run_are_found_when_it_is_opened(tmp_path):
    RunFolder.create(tmp_path / "run", EXPERIMENT).checkpoints.save(4, {"w": np.arange(3)}, {"iteration": 4})
    restored = RunFolder.open(tmp_path / "run").checkpoints.restore({"w": np.zeros(3, np.int64)})
    assert restored.step == 4
    np.testing.assert_array_equal(restored.state["w"], [0, 1, 2])


def test_checkpoints_stay_where_they_are_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create("run", EXPERIMENT)
    run.checkpoints.save(1, {"w": np.arange(3)}, {})
    assert RunFolder.open(tmp_path / "run").checkpoints.steps() == [1]


def contents(path: Path) -> dict[Path, bytes | None]:
    return {entry: entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}


@pytest.mark.parametrize("inside", ["run", "checkpoints/00000001/arrays", "figures/a.png", "notes.txt", "figures"])
def test_a_place_that_is_taken_is_left_as_it_is(tmp_path, inside):
    path = tmp_path / "taken"
    if inside == "run":
        RunFolder.create(path, EXPERIMENT)
    else:
        (path / inside).parent.mkdir(parents=True)
        (path / inside).write_text("mine")  # also a file where a subfolder should be
    before = contents(path)
    with pytest.raises(RunExistsError) as error:
        RunFolder.create(path, of({"seed": 2}))
    assert str(path) in str(error.value)
    assert "another --out" in str(error.value)
    assert ("--resume" in str(error.value)) == (inside == "run")
    assert contents(path) == before


def test_a_file_in_the_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunExistsError, match="no run"):
        RunFolder.create(tmp_path / "file", EXPERIMENT)
    with pytest.raises(RunError, match="no such folder"):
        RunFolder.open(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_kill_while_the_folder_is_made_does_not_block_its_place(tmp_path, monkeypatch):
    """A death before each change to the disk in turn; then the same place is taken without more ado."""
    path, deaths = tmp_path / "run", 0
    while True:
        left = deaths

        def count(real):
            def counted(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return real(*args, **kwargs)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", count(Path.mkdir))
            patch.setattr(os, "fsync", count(os.fsync))
            patch.setattr(os, "replace", count(os.replace))
            try:
                RunFolder.create(path, EXPERIMENT)
                break
            except Killed:
                deaths += 1
        with pytest.raises(RunError, match=r"no such folder|no config\.toml"):
            RunFolder.open(path)
    assert deaths >= 4  # two folders, the text, its name
    assert RunFolder.open(path).settings == SETTINGS
    assert sorted(entry.name for entry in path.iterdir()) == ["checkpoints", "config.toml", "figures"]


def test_a_lock_takes_no_place_and_is_no_run(tmp_path):
    """What is left where a run was deleted but for its hidden files."""
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    with run.locked():
        pass
    assert (run.path / ".lock").read_bytes() == b""
    (run.path / "config.toml").unlink()
    with pytest.raises(RunError, match="is no run"):
        RunFolder.open(run.path)
    assert RunFolder.create(run.path, EXPERIMENT).settings == SETTINGS


def test_settings_that_are_not_toml_leave_a_place_that_can_be_used(tmp_path):
    with pytest.raises(TypeError):
        RunFolder.create(tmp_path / "run", of({"seed": None}))
    assert RunFolder.create(tmp_path / "run", EXPERIMENT).settings == SETTINGS


def test_open_says_what_is_missing_or_wrong(tmp_path):
    with pytest.raises(RunError, match=r"none is no run: there is no such folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunError, match=r"is no run: it has no config\.toml"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.toml").write_text("seed = 1\nbad line\n")
    with pytest.raises(SettingsError, match=r"config\.toml, line 2"):
        RunFolder.open(tmp_path)
    for empty in ("", "# seed = 1\n"):
        (tmp_path / "config.toml").write_text(empty)
        with pytest.raises(SettingsError, match=r"config\.toml holds no settings: restore the file, or start anew"):
            RunFolder.open(tmp_path)


def test_metrics_come_back_as_plain_values(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    assert run.read_metrics() == []
    run.append_metrics(
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
    run.append_metrics({"iteration": 1})
    rows = run.read_metrics()
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
    run.append_metrics({"iteration": 0})
    with pytest.raises(TypeError, match=r"'metrics\.guider\.odd' is a "):
        run.append_metrics({"iteration": 1, "guider": {"odd": [value]}})
    assert run.read_metrics() == [{"iteration": 0}]


def test_a_torn_last_line_is_ignored_wherever_it_is_torn(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    rows = [{"iteration": i, "cost": 1.5 * i, "name": "ä"} for i in range(3)]
    for row in rows:
        run.append_metrics(row)
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        assert run.read_metrics() == rows[:2]
        run.append_metrics({"iteration": 7})  # does not glue itself to the rest of the torn line
        assert run.read_metrics() == [*rows[:2], {"iteration": 7}]
        file.write_bytes(whole[:end])
        run.rewind_metrics(2)
        assert file.read_bytes() == whole[:start]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    for bad in (b'{"iteration": 1, "co\n', b"[1]\n", b"\xff\n"):
        (run.path / "metrics.jsonl").write_bytes(b'{"iteration": 0}\n' + bad + b'{"iteration": 2}\n')
        for reading in (run.read_metrics, lambda: run.rewind_metrics(1)):
            with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: not a JSON object"):
                reading()
        assert (run.path / "metrics.jsonl").read_bytes().count(b"\n") == 3


def test_rewind_drops_the_iterations_that_are_run_again(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", EXPERIMENT)
    run.rewind_metrics(0)
    assert not (run.path / "metrics.jsonl").exists()
    for iteration in (0, 1, 2, 3):
        run.append_metrics({"iteration": iteration, "cost": 0.1})
    run.append_metrics({"note": "without iteration"})
    before = (run.path / "metrics.jsonl").read_bytes()

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            run.rewind_metrics(2)
    assert (run.path / "metrics.jsonl").read_bytes() == before
    run.rewind_metrics(2)
    kept = before.splitlines(keepends=True)
    assert (run.path / "metrics.jsonl").read_bytes() == kept[0] + kept[1] + kept[4]
    run.append_metrics({"iteration": 2})
    assert [row.get("iteration") for row in run.read_metrics()] == [0, 1, None, 2]


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
    """Each line is on the disk when append_metrics returns; the reader never sees half of one."""
    code = """
import sys
from gps.runs.folder import RunFolder
run = RunFolder.open(sys.argv[1])
for iteration in range(10**6):
    run.append_metrics({"iteration": iteration, "padding": "x" * 20000})
    print(iteration, flush=True)
"""
    RunFolder.create(tmp_path / "run", EXPERIMENT)
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        while int(child.stdout.readline()) < 30:
            pass
    finally:
        child.kill()
        rest = child.communicate()[0].splitlines()
    reported = int(rest[-1]) if rest else 30
    rows = RunFolder.open(tmp_path / "run").read_metrics()
    assert [row["iteration"] for row in rows] == list(range(len(rows)))
    assert len(rows) - 1 in (reported, reported + 1)


def test_opening_a_run_executes_nothing_in_it(tmp_path, monkeypatch):
    """Code that lies in a run folder, or that a pickle would run, stays text."""
    marker = tmp_path / "executed"
    run = RunFolder.create(tmp_path / "run", of({"name": f"__import__('os').mkdir({str(marker)!r})"}))
    for name in ("__init__.py", "config.py", "sitecustomize.py", "conftest.py"):
        (run.path / name).write_text(f"import os; os.mkdir({str(marker)!r})")
    pickled = b"cos\nmkdir\n(S'" + str(marker).encode() + b"'\ntR."
    (run.path / "checkpoints" / "00000001").mkdir()
    (run.path / "checkpoints" / "00000001" / "record.json").write_bytes(pickled)
    monkeypatch.chdir(run.path)
    opened = RunFolder.open(".")
    assert opened.settings == run.settings == read_toml("config.toml")
    with pytest.raises(Exception, match=r"bytes have changed"):
        opened.checkpoints.restore({"w": np.zeros(1)})
    assert not marker.exists()
