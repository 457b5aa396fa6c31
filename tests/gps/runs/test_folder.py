"""The run folder: never overwritten, and readable after a kill at any moment."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.deaths import Killed, dying_after

from gps.runs.folder import RunError, RunExistsError, RunFolder
from gps.settings import SettingsError, read_toml

SETTINGS = {"seed": 1, "guider": {"name": "badmm", "rate": 0.5, "widths": [64, 64]}}


def of(settings: dict):
    """All that the folder of a run knows of an experiment."""
    return SimpleNamespace(to_dict=lambda: settings)


EXPERIMENT = of(SETTINGS)


def test_a_new_run_opens_with_its_settings(tmp_path):
    path = tmp_path / "runs" / "first"
    made = RunFolder.create(path, EXPERIMENT)
    opened = RunFolder.open(str(path))
    assert made.settings == opened.settings == SETTINGS
    assert opened.path == path
    assert opened.figures == path / "figures"
    assert opened.figures.is_dir()
    assert opened.checkpoints.folder == path / "checkpoints"
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "checkpoints", "config.toml", "figures"]


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
        RunFolder.create(path, EXPERIMENT).metrics.append({"iteration": 0})
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
        count = dying_after(deaths)
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
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "checkpoints", "config.toml", "figures"]


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
