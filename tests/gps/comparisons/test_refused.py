"""What a comparison refuses, before anything is run or changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.compared import BOTH, SMALL, compared
from support.folders import contents

from gps.comparisons.compare import compare
from gps.comparisons.statistics import Goals
from gps.runs.checkpoints import CheckpointError
from gps.runs.folder import RunError, RunExistsError, RunFolder
from gps.settings import SettingsError


def refused(error: type[Exception], message: str, trained, *changes, **options) -> None:
    before = contents(Path())
    trained.names.clear()
    with pytest.raises(error, match=message):
        compared(*changes, **options)
    assert trained.names == []
    assert contents(Path()) == before


REFUSED = [
    (
        ["guider.sampling.smples=3"],
        {},
        "^reacher by badmm: unknown setting 'guider.*smples'; did you mean 'samples'.*--set-for",
    ),
    (["guider.sampling.samples=0"], {}, "^reacher by badmm: guider.sampling: samples must be at least 1.* not 0"),
    (["run.seed=3"], {}, "a comparison chooses run.task, run.guider and run.seed itself"),
    (["run.task=reacher-pomdp"], {}, "a comparison chooses run.task"),
    ([], {"tasks": ("reacher", "reachr")}, "reachr by badmm: .*unknown task 'reachr'; did you mean 'reacher'"),
    ([], {"guiders": ("badmm", "othr")}, "reacher by othr: .*unknown guider 'othr'; did you mean 'other'"),
    ([], {"seeds": 0}, "seeds must be at least 1, not 0"),
    ([], {"seeds": 10**9}, "seeds must be .* not 1000000000, and at most 10000"),
    ([], {"settings_for": {"othr": []}}, "unknown task or guider of this comparison 'othr'; did you mean 'other'"),
    ([], {"settings_for": {"other": ["nonsense"]}}, "reacher by other: cannot read the assignment 'nonsense'"),
    (
        ["guider.learner.linearization=differentiation"],
        {"tasks": ("reacher", "reacher-pomdp")},
        "reacher-pomdp by badmm: .*linearization = 'differentiation'.*reacher-pomdp stacks 6 frames",
    ),
]


@pytest.mark.parametrize(("changes", "options", "message"), REFUSED)
def test_mistakes_are_found_before_anything_is_made(trained, changes, options, message):
    refused(SettingsError, message, trained, *changes, **options)


def test_runs_with_other_settings_are_left_alone(trained):
    compared(guiders=("other",), seeds=1)
    name = "reacher-other-seed0 is a run with {} = {}, not {}; use a new --out"
    refused(SettingsError, name.format("guider.sampling.samples", 2, 3), trained, "guider.sampling.samples=3")
    defaults = [setting for setting in SMALL if not setting.startswith("task.horizon")]  # a default differs as well
    with pytest.raises(SettingsError, match=name.format("task.horizon", 8, 50)):
        compare(["reacher"], BOTH, 2, settings=defaults)


def test_a_folder_of_something_else_is_left_alone(trained):
    Path("out/reacher-other-seed1").mkdir(parents=True)
    Path("out/reacher-other-seed1/notes.txt").write_text("mine")
    refused(RunExistsError, "reacher-other-seed1 exists and holds something that is no run", trained, out="out")


def test_goals_are_checked_before_anything_is_made(trained):
    refused(SettingsError, "the return to reach must be finite, not nan", trained, goals=Goals(float("nan")))
    refused(SettingsError, "the score to reach must be finite, not inf", trained, goals=Goals(None, float("inf")))


def rewrite(path: Path, *, drop: int | None = None, **changes) -> None:
    """Take one row of a run's metrics out, or change its second row."""
    rows = RunFolder.open(path).metrics.rows()
    rows[1] |= changes
    lines = [json.dumps(row) + "\n" for i, row in enumerate(rows) if i != drop]
    (path / "metrics.jsonl").write_text("".join(lines))


DAMAGED = [
    (lambda path: rewrite(path, drop=2), r"metrics\.jsonl has the rows of 2 of the 3 iterations"),
    (lambda path: rewrite(path, drop=0), r"metrics\.jsonl has the row of iteration 1 where that of 0"),
    (lambda path: rewrite(path, iteration_seconds=None), "iteration 1 has no number 'iteration_seconds'"),
    (lambda path: (path / "metrics.jsonl").unlink(), r"metrics\.jsonl is missing, with the rows of 3"),
    (lambda path: (path / "config.toml").write_text(""), r"config\.toml holds no settings"),
]


def test_a_run_that_has_lost_something_is_found_before_anything_is_run(trained):
    compared(seeds=1)
    path = Path("runs/compare-reacher/reacher-other-seed0")
    shutil.rmtree("runs/compare-reacher/reacher-badmm-seed0")  # there is something to be run before it
    shutil.copytree(path, "whole")
    for ended in (True, False):
        for damage, message in DAMAGED:
            if not ended:
                (path / "summary.json").unlink()
            damage(path)
            error = SettingsError if "settings" in message else RunError
            refused(error, f"reacher-other-seed0/.*{message}", trained, seeds=1)
            shutil.rmtree(path)
            shutil.copytree("whole", path)


def test_a_summary_that_does_not_say_what_was_run_is_found_before_anything_is_run(trained):
    compared(seeds=1)
    summary = Path("runs/compare-reacher/reacher-other-seed0/summary.json")
    for text in ("{}", "[]", '{"iterations": null}', "{", "null", '{"iterations": "3"}'):
        summary.write_text(text)
        message = r"reacher-other-seed0/summary\.json .*: delete it, and the resumed run writes it again"
        refused(RunError, message, trained, seeds=1)
    summary.unlink()
    compared(seeds=1)
    assert trained.names == ["reacher-other-seed0"]
    assert json.loads(summary.read_text())["iterations"] == 3


def test_a_run_that_another_process_trains_is_found_before_anything_is_run(trained):
    compared()
    Path("runs/compare-reacher/reacher-other-seed1/summary.json").unlink()
    with RunFolder.open("runs/compare-reacher/reacher-other-seed1").locked():
        refused(RunError, "another process trains .*reacher-other-seed1", trained)
    compared()
    assert trained.names == ["reacher-other-seed1"]


def test_lost_checkpoints_matter_where_a_run_is_to_go_on(trained):
    compared(seeds=1)
    path = Path("runs/compare-reacher/reacher-other-seed0")
    record = path / "checkpoints/00000003/record.json"
    for error, message, lose in (
        (CheckpointError, "no checkpoint is whole:\n.*reacher-other-seed0", lambda: record.write_text("{}")),
        (RunError, "seed0/checkpoints holds no checkpoint, and 3 iterations", lambda: shutil.rmtree(record.parent)),
    ):
        lose()
        trained.names.clear()
        compared(seeds=1)
        assert trained.names == []  # its rows are all that is needed
        refused(error, message, trained, "run.iterations=4", seeds=1)
        (path / "summary.json").rename("kept")
        refused(error, message, trained, seeds=1)
        Path("kept").rename(path / "summary.json")


def test_results_of_which_the_table_is_lost_are_named(trained):
    Path("out").mkdir()
    Path("out/comparison.csv").write_text("of ours")
    message = r"out/comparison\.csv exists and is of no comparison: .*, or restore out/comparison\.md, which is missing"
    refused(RunError, message, trained, out="out")


def test_results_that_are_of_no_comparison_are_left_alone(trained):
    Path("out").mkdir()
    for kind in ("md", "csv", "png", "pdf"):
        file = Path(f"out/comparison.{kind}")
        for text in ("mine", "", "# Comparison\n\nof the two proposals\n"):
            file.write_text(text)
            refused(RunError, f"{file} exists and is of no comparison: use another --out", trained, out="out")
        file.unlink()
    compared(guiders=["other"], seeds=1, out="out")
    for kind in ("csv", "png", "pdf"):  # whatever a kill has left
        Path(f"out/comparison.{kind}").unlink()
    compared(guiders=["other"], seeds=1, out="out")
    assert len(list(Path("out").glob("comparison.*"))) == 4


def test_a_kill_while_the_figure_is_drawn_does_not_block_the_results(trained, monkeypatch):
    from gps.comparisons import figure as plot_compare

    def die(results, goals, path):
        path.with_name("comparison.png").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(plot_compare, "comparison", die)
        with pytest.raises(KeyboardInterrupt):
            compared(seeds=1)
    assert len(compared(seeds=1).files) == 4


def test_a_place_that_can_not_hold_the_results_is_named_before_anything_is_made(trained, monkeypatch):
    Path("file").write_text("mine")
    for out in ("file", "file/below/it"):
        refused(
            RunError, f"{out} can not be the folder of a comparison: .*file is no folder; use another", trained, out=out
        )
    Path("closed").mkdir()
    access = os.access  # which is asked, because root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    for out in ("closed", "closed/new"):
        refused(RunError, f"{out} can not be the folder .*closed can not be written; use another", trained, out=out)
