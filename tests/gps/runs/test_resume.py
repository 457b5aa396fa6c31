"""A run goes on only from all that it has left on the disk; where a part is lost, it says so and changes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from support.folders import contents
from support.guided import rows_of, same, tables, trained
from support.processes import ENVIRONMENT
from support.toys import Clock

from gps.entry import Entry
from gps.experiments.experiment import Experiment
from gps.experiments.lookup import TASKS
from gps.runs import finish, train
from gps.runs import folder as run
from gps.runs.checkpoints import CheckpointError
from gps.runs.folder import RunError, RunFolder
from gps.runs.resume import load, resumed
from gps.settings import SettingsError, override, write_toml
from gps.tasks.doors.tiger import TigerDoorAltSettings

CHANGES = ("run.iterations=4", "run.checkpoint_every=2")


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return tmp_path_factory.mktemp("first") / "run"


@pytest.fixture
def finished(first, tiny, tmp_path) -> RunFolder:
    """A copy of a run of four iterations, with checkpoints of two and of four."""
    if not first.exists():
        train.train(RunFolder.create(first, tiny(*CHANGES)), quiet=True)
    shutil.copytree(first, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def refused(folder: RunFolder, tiny, message: str, error: type[Exception] = RunError):
    """By training as by asking for more iterations; the folder stays as it is."""
    before = contents(folder.path)
    with pytest.raises(error, match=message):
        train.train(folder, quiet=True)
    with pytest.raises(error, match=message):
        resumed(folder.path, tiny(*CHANGES, "run.iterations=6"))
    assert contents(folder.path) == before


def rewrite(folder: RunFolder, rows: list[dict]):
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def without_times(rows: list[dict]) -> list[dict]:
    times = ("seconds", "iteration_seconds", "compiles")
    return [{name: value for name, value in row.items() if name not in times} for row in rows]


def test_a_run_that_goes_on_may_ask_for_figures_or_none(finished, tiny, monkeypatch):
    drawn = []
    monkeypatch.setattr(finish, "draw", lambda *_: drawn.append(1))
    with pytest.raises(SettingsError, match=r"run\.checkpoint_every = 2, not 3"):
        resumed(finished.path, tiny("run.iterations=4", "run.checkpoint_every=3", "run.figures=false"))
    for asked, in_all in (("false", 0), ("true", 1)):
        folder = resumed(finished.path, tiny(*CHANGES, f"run.figures={asked}"))
        assert folder.experiment.run.figures == (asked == "true")
        rows = folder.metrics.rows()
        train.train(folder, quiet=True)
        assert folder.metrics.rows() == rows
        assert len(drawn) == in_all


@pytest.fixture
def clock(monkeypatch):
    """The toy, whose state holds a random key, as a task by name."""
    monkeypatch.setitem(TASKS, "clock", Entry(TigerDoorAltSettings(), lambda *_: Clock()))


@pytest.mark.parametrize(
    ("guider", "task", "changes"),
    [
        ("gpo-clip", "tiger-door", ()),
        ("sitt", "tiger-door", ("guider.learner.network.memory=3", "guider.sitt.minibatches=1")),
        (
            "dagger",
            "clock",
            ("guider.learner.network.memory=3",),
        ),  # the teacher is trained to its end between two checkpoints
    ],
)
def test_a_run_that_goes_on_ends_at_the_same_bits(guider, task, changes, quick, clock, tmp_path):
    settings = tables(guider, task, "run.checkpoint_every=2", *changes)
    whole = trained(tmp_path / "whole", settings)
    part = trained(tmp_path / "part", override(settings, ["run.iterations=2"]))
    write_toml(part.path / "config.toml", Experiment.resolve(settings).to_dict())
    part = RunFolder.open(part.path)
    train.train(part, quiet=True)
    run, other = load(whole), load(part)
    assert same((other.state, other.best, other.best_iteration), (run.state, run.best, run.best_iteration))
    assert rows_of(part) == rows_of(whole)
    assert [row["steps"] for row in rows_of(whole)] == [32, 64, 96, 128]
    assert whole.read_summary()["learner_return"] == rows_of(whole)[-1]["learner_return"]
    key = jax.random.fold_in(jax.random.key(0), 1)
    built = run.guider
    evaluated = quick(built).evaluate(built.policy(run.state), key).scores(built.task)
    assert evaluated["learner_return"] == pytest.approx(rows_of(whole)[-1]["learner_return"], rel=1e-5)
    assert run.experiment.run.guider == guider


# Metrics.


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([0, 1], "has the rows of 2 of the 4 iterations that were run: restore the file, or start anew"),
        ([], "has the rows of 0 of the 4"),
        ([0, 1, 3], "has the row of iteration 3 where that of 2 belongs"),
        ([1, 2, 3], "has the row of iteration 1 where that of 0 belongs"),
        ([0, 1, 1, 2, 3], "has the row of iteration 1 where that of 2 belongs"),
        ([0, 2, 1, 3], "has the row of iteration 2 where that of 1 belongs"),
    ],
)
def test_rows_that_are_lost_are_named(finished, tiny, drawing, kept, words):
    rows = finished.metrics.rows()
    rewrite(finished, [rows[i] for i in kept])
    refused(finished, tiny, rf"run/metrics\.jsonl {words}")
    with pytest.raises(RunError, match=rf"run/metrics\.jsonl {words}"):
        drawing(finished, None, None)


def test_metrics_that_are_missing_are_named(finished, tiny, drawing):
    (finished.path / "metrics.jsonl").unlink()
    words = (
        r"run/metrics\.jsonl is missing, with the rows of 4 iterations: restore the file, or start anew with another"
    )
    refused(finished, tiny, words)
    with pytest.raises(RunError, match=words):
        drawing(finished, None, None)


@pytest.mark.parametrize("name", ["iteration", "steps", "iteration_seconds"])
@pytest.mark.parametrize("value", [None, "2"])
def test_a_row_without_its_numbers_is_named(finished, tiny, name, value):
    rows = finished.metrics.rows()
    rows[2][name] = value
    rewrite(finished, rows)
    words = f"has the row of iteration {value} where" if name == "iteration" else f" 2 has no number '{name}': restore"
    refused(finished, tiny, words)


def test_rows_after_the_checkpoint_are_computed_again(finished):
    """Also where some of them are lost; the run ends as it did."""
    rows = finished.metrics.rows()
    for kept in ([0, 1], [0, 1, 2], [0, 1, 3]):
        shutil.rmtree(finished.checkpoints.folder / "00000004")
        rewrite(finished, [rows[i] for i in kept])
        train.train(finished, quiet=True)
        assert without_times(finished.metrics.rows()) == without_times(rows)


# Checkpoints.


@pytest.mark.parametrize("ended", [True, False])
def test_lost_checkpoints_do_not_start_a_run_anew(finished, tiny, ended):
    shutil.rmtree(finished.checkpoints.folder)
    if ended:  # then no number of rows is too few
        rewrite(finished, [])
    else:
        (finished.path / "summary.json").unlink()
        rewrite(finished, finished.metrics.rows()[:3])
    iterations = 4 if ended else 3
    refused(finished, tiny, f"run/checkpoints holds no checkpoint, and {iterations} iterations were run: restore that")


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_run_killed_before_its_first_checkpoint_begins_again(finished, rows):
    """The second row is written before the first checkpoint, so that a kill can come between the two."""
    shutil.rmtree(finished.checkpoints.folder)
    (finished.path / "summary.json").unlink()
    whole = finished.metrics.rows()
    rewrite(finished, whole[:rows])
    train.train(finished, quiet=True)
    assert without_times(finished.metrics.rows()) == without_times(whole)


def test_damaged_checkpoints_are_found_before_the_settings_change(finished, tiny):
    for record in finished.checkpoints.folder.glob("*/record.json"):
        record.write_text("{}")
    refused(finished, tiny, "no checkpoint is whole", CheckpointError)


def test_checkpoints_of_another_structure_are_found_before_the_settings_change(finished, tiny):
    finished.checkpoints.save(5, {"w": np.zeros(3)}, {"seconds": 1.0})
    refused(finished, tiny, r"another structure.*\n(.*\n)*.*'\['w'\]': saved float64\[3\]", CheckpointError)


def test_a_guider_that_can_not_be_built_is_found_before_the_settings_change(finished, tiny, monkeypatch):
    def impossible(*_, **__):
        raise SettingsError("guider.teacher.run = 'gone' is no run")

    monkeypatch.setattr(train.Experiment, "build", impossible)
    refused(finished, tiny, "'gone' is no run", SettingsError)


def test_nothing_is_checked_twice_where_the_settings_stay(finished, tiny, monkeypatch):
    monkeypatch.setattr(train.Experiment, "build", None)
    assert resumed(finished.path, tiny(*CHANGES)).settings == finished.settings


# One process at a time.


def test_a_run_that_another_process_trains_is_left_alone_until_that_is_killed(finished, tiny):
    code = f"""
from gps.runs.folder import RunFolder
import time
with RunFolder.open({str(finished.path)!r}).locked():
    print("locked", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "locked\n"
        refused(finished, tiny, "another process trains .*run: wait for its end, or start anew with another --out")
        assert len(finished.metrics.rows()) == 4  # a reader need not wait
        assert load(RunFolder.open(finished.path)).state is not None
    finally:
        child.kill()
        child.communicate()
    assert train.train(finished, quiet=True)["iterations"] == 4


def test_a_run_is_locked_from_its_start_to_its_end(tiny, tmp_path, monkeypatch):
    folder, locked = RunFolder.create(tmp_path / "run", tiny("run.iterations=1")), []

    def look(real):
        def looked(*arguments):
            with pytest.raises(RunError, match="another process trains"), RunFolder.open(folder.path).locked():
                pass
            locked.append(None)
            return real(*arguments)

        return looked

    monkeypatch.setattr(folder.metrics, "rewind", look(folder.metrics.rewind))  # its first change
    monkeypatch.setattr(folder, "write_summary", look(folder.write_summary))  # and its last
    train.train(folder, quiet=True)
    assert len(locked) == 3  # the summary is written before the figures and after them
    with RunFolder.open(folder.path).locked():
        pass


@pytest.mark.skipif(run.fcntl is None, reason="no locks here")
def test_where_there_are_no_locks_a_run_is_trained_without(finished, monkeypatch):
    def no_locks(*_):
        raise OSError("operation not supported")

    with finished.locked():
        monkeypatch.setattr(run.fcntl, "flock", no_locks)
        assert train.train(finished, quiet=True)["iterations"] == 4
        monkeypatch.setattr(run, "fcntl", None)
        assert train.train(finished, quiet=True)["iterations"] == 4


def test_a_run_of_another_task_or_guider_is_refused_before_its_other_settings_are_looked_at(tmp_path):
    settings = {"run": {"task": "tiger-door", "guider": "gpo-clip"}}
    own = RunFolder.create(tmp_path / "run", Experiment.resolve(settings)).experiment
    for asked, message in (
        ({"guider": {"rounds": 3}, "run": {"task": "tiger-door"}}, "unknown setting 'guider.rounds'"),
        ({"guider": {"rounds": 3}, "run": {"guider": "badmm"}}, "is a run with run.guider = gpo-clip, not badmm"),
        (
            {"task": {"ring": [0.05, 0.1]}, "run": {"task": "reacher"}},
            "is a run with run.task = tiger-door, not reacher",
        ),
        ({"guider": {"ppo": {"unroll": 9}}}, r"is a run with guider.ppo.unroll = 8, not 9; use a new --out"),
    ):
        with pytest.raises(SettingsError, match=message):
            resumed(tmp_path / "run", own.changed(asked))


def test_settings_are_the_same_where_they_mean_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"run": {"task": "tiger-door", "guider": "dagger"}, "guider": {"teacher": {"run": "runs/first"}}}
    own = RunFolder.create("run", Experiment.resolve(settings)).experiment
    assert resumed("run", own.changed(settings)).settings["guider"]["teacher"]["run"] == str(tmp_path / "runs/first")
    monkeypatch.chdir("run")
    with pytest.raises(SettingsError, match=r"is a run with guider.teacher.run = .*first, not .*run/runs/first"):
        resumed("../run", own.changed(settings))
