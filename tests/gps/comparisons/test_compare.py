"""Comparisons: which runs are made, made again or refused, and what the table says of their folders."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from support.tiny import SETTINGS

from gps.cli.main import main
from gps.comparisons.compare import compare
from gps.comparisons.statistics import Goals
from gps.experiments.lookup import GUIDERS
from gps.guiders.guider import DivergedError
from gps.guiders.model_based.scaffold import ModelBased
from gps.runs import finish
from gps.runs.checkpoints import CheckpointError
from gps.runs.folder import RunError, RunExistsError, RunFolder
from gps.settings import SettingsError

SMALL = ["run.engine=mujoco", "run.iterations=3", *SETTINGS]
BOTH = ("badmm", "other")


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path, shared_programs):
    """A second guider, nothing drawn at the end of a run, and a folder of the test's own."""
    monkeypatch.setitem(GUIDERS, "other", GUIDERS["badmm"])
    monkeypatch.setattr(finish, "draw", lambda *_: [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """Runs that take no time, by name, in the order in which they were trained.

    The return of seed s is -8 * (s + 1) / iteration, the score as much without the sign, and s of 4 test episodes are
    solved; the other guider takes ten times the steps. A run whose name is in `diverging` diverges in its second
    iteration.
    """

    def quick(folder, *, quiet=False, programs=None):
        run = folder.settings["run"]
        quick.names.append(folder.path.name)
        folder.rewind_metrics(0)
        for i in range(run["iterations"]):
            if i == 1 and folder.path.name in quick.diverging:
                raise DivergedError("condition 1 lost all its samples")
            bad = 8 * (run["seed"] + 1) / (i + 1)
            steps = (i + 1) * (100 if run["guider"] == "badmm" else 1000)
            row = {"iteration": i, "steps": steps, "iteration_seconds": 2.0}
            row |= {"test_solved": run["seed"], "test_episodes": 4}
            folder.append_metrics(row | {"learner_return": -bad, "test_score": bad})
        like = jax.eval_shape(programs.guider.init, jax.random.key(0))
        state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        folder.checkpoints.save(run["iterations"], state, {"seconds": 0.0})
        folder.write_summary({"iterations": run["iterations"], "score": {"name": "distance", "unit": "cm"}})

    quick.names, quick.diverging = [], set()
    monkeypatch.setattr("gps.comparisons.compare.train", quick)
    return quick


def compared(*changes, tasks=("reacher",), guiders=BOTH, seeds=2, **options):
    return compare(tasks, guiders, seeds, settings=[*SMALL, *changes], **options)


def contents(path: Path) -> dict[Path, bytes | None]:
    return {entry: entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}


# What is run.


def test_every_guider_is_trained_on_every_task_with_every_seed(trained):
    found = compared(tasks=("reacher", "reacher-pomdp"), out="all")
    pairs = [(task, guider) for task in ("reacher", "reacher-pomdp") for guider in BOTH]
    assert trained.names == [f"{task}-{guider}-seed{seed}" for task, guider in pairs for seed in (0, 1)]
    assert [(result.task, result.guider) for result in found.results] == pairs
    assert found.files == tuple(Path("all", f"comparison.{kind}") for kind in ("md", "csv", "png", "pdf"))
    assert all(file.stat().st_size > 100 for file in found.files)
    settings = RunFolder.open("all/reacher-pomdp-other-seed1").settings
    assert settings["run"] | {"task": "reacher-pomdp", "guider": "other", "seed": 1, "iterations": 3} == settings["run"]
    assert (settings["task"]["horizon"], settings["task"]["hide_velocity"]) == (8, True)


def test_what_is_finished_is_not_run_again(trained):
    first = compared()
    assert Path("runs/compare-reacher/reacher-badmm-seed0").is_dir()
    trained.names.clear()
    again = compared()
    assert trained.names == []
    assert again.text == first.text
    compared(seeds=3)
    assert trained.names == ["reacher-badmm-seed2", "reacher-other-seed2"]
    trained.names.clear()
    Path("runs/compare-reacher/reacher-other-seed1/summary.json").unlink()
    compared(seeds=3)
    assert trained.names == ["reacher-other-seed1"]


def test_more_iterations_go_on_with_the_runs_that_are_there(trained):
    compared()
    trained.names.clear()
    found = compared("run.iterations=4")
    assert len(trained.names) == 4
    assert found.result("reacher", "badmm").steps == 400
    assert RunFolder.open("runs/compare-reacher/reacher-badmm-seed0").settings["run"]["iterations"] == 4
    with pytest.raises(SettingsError, match="is a run of 4 iterations: ask for more, not 3"):
        compared()


def test_settings_that_can_be_read_once_are_for_all_runs(trained):
    mine = {"other": (one for one in ["guider.sampling.samples=3"])}
    compare(("reacher", "reacher-pomdp"), BOTH, 1, settings=(one for one in SMALL), settings_for=mine, out="out")
    for task in ("reacher", "reacher-pomdp"):
        for guider, samples in (("badmm", 2), ("other", 3)):
            settings = RunFolder.open(f"out/{task}-{guider}-seed0").settings
            assert (settings["run"]["iterations"], settings["guider"]["sampling"]["samples"]) == (3, samples)


def test_settings_can_be_for_one_guider_or_one_task(trained):
    only = {"other": ["run.iterations=2", "guider.sampling.samples=3"], "reacher-pomdp": ["task.history=4"]}
    compared(tasks=("reacher", "reacher-pomdp"), seeds=1, settings_for=only, out="out")
    for task in ("reacher", "reacher-pomdp"):
        for guider, iterations, samples in (("badmm", 3, 2), ("other", 2, 3)):
            settings = RunFolder.open(f"out/{task}-{guider}-seed0").settings
            assert (settings["run"]["iterations"], settings["guider"]["sampling"]["samples"]) == (iterations, samples)
            assert settings["task"]["history"] == (1 if task == "reacher" else 4)


def test_a_run_that_diverges_is_named_and_the_others_go_on(trained):
    trained.diverging = {"reacher-badmm-seed1"}
    found = compared(seeds=3)
    assert len(trained.names) == 6
    assert found.failed == ("reacher by badmm, seed 1: condition 1 lost all its samples",)
    result = found.result("reacher", "badmm")
    assert (result.seeds, result.finished, result.final_return.count) == (3, 2, 2)
    assert result.final_return.value == pytest.approx((-8 / 3 - 24 / 3) / 2)
    assert "| 2 of 3 |" in found.text
    assert found.failed[0] in found.text
    trained.names.clear()
    trained.diverging = set()
    assert compared(seeds=3).failed == ()
    assert trained.names == ["reacher-badmm-seed1"]  # the same command tries it again


# What is refused, before anything is run or changed.


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
    (["guider.sampling.samples=1"], {}, "^reacher by badmm: guider.sampling: samples must be at least 2.* not 1"),
    (["run.seed=3"], {}, "a comparison chooses run.task, run.guider and run.seed itself"),
    (["run.task=reacher-pomdp"], {}, "a comparison chooses run.task"),
    ([], {"tasks": ("reacher", "reachr")}, "reachr by badmm: .*unknown task 'reachr'; did you mean 'reacher'"),
    ([], {"guiders": ("badmm", "othr")}, "reacher by othr: .*unknown guider 'othr'; did you mean 'other'"),
    ([], {"seeds": 0}, "seeds must be at least 1, not 0"),
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
    rows = RunFolder.open(path).read_metrics()
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


# What is said of it.


def test_the_table_holds_the_numbers_of_the_folders(trained):
    found = compared(seeds=5, goals=Goals(-10.0, 4.0))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.text.splitlines() if line[:1] == "|"]
    assert len({len(line) for line in found.text.splitlines() if line[:1] == "|"}) == 1  # aligned
    columns = ["task", "guider", "seeds", "steps", "final return", "area under return", "steps to return -10"]
    assert lines[0] == [*columns, "test distance (cm)", "solved", "steps to 4 cm", "training (s)"]
    final = 8 * (2 + 3 + 4) / 3 / 3  # of the seeds between the quartiles, in the third iteration
    assert lines[2][:4] == ["reacher", "badmm", "5", "300"]
    assert lines[2][4].startswith(f"-{final:.2f} [-")
    # -10 is reached at 100, 200 and 300 steps, and never by seeds 3 and 4; 4 cm at 200 steps by seed 0 alone
    assert lines[2][6] == "200 [100, 300], 3 of 5"
    assert lines[2][7].startswith(f"{final:.2f} [")
    assert lines[2][8] == "50 % (10 of 20)"
    assert lines[2][9] == "200, 1 of 5"
    assert lines[2][10] == "6.00 [6.00, 6.00]"
    assert lines[3][1:4] == ["other", "5", "3.0k"]
    assert lines[2][5] == lines[2][4]  # the other guider begins where badmm has ended
    # trapezoids over the logarithm of 1000, 2000 and 3000 steps, where seed s has -8, -4 and -8/3 times s + 1
    widths = np.diff(np.log([1, 2, 3]))
    assert lines[3][5].startswith(f"-{3 * (widths @ [6, 10 / 3]) / widths.sum():.1f} [-")
    assert "steps from 1000, where all have been evaluated, to 3000" in found.text
    for words in ("Interquartile means", "95 %", "with fewer than 4 it is the mean", "a failed run counts as one"):
        assert words in found.text
    written = Path(found.files[0]).read_text()
    assert found.text in written
    assert "![Learning curves](comparison.png)" in written


def test_the_csv_holds_them_as_plain_numbers(trained):
    trained.diverging = {f"reacher-other-seed{seed}" for seed in range(4)}
    found = compared(seeds=4)
    with open(found.files[1], newline="") as file:
        badmm, other = csv.DictReader(file)
    assert (badmm["task"], badmm["guider"], badmm["seeds"], badmm["finished"]) == ("reacher", "badmm", "4", "4")
    result = found.result("reacher", "badmm")
    for name, estimate in (
        ("final_return", result.final_return),
        ("area_under_return", result.area),
        ("final_score", result.final_score),
        ("training_seconds", result.seconds),
    ):
        numbers = [float(badmm[f"{name}{end}"]) for end in ("", "_low", "_high", "_seeds")]
        expected = [estimate.value, estimate.low, estimate.high, estimate.count]
        np.testing.assert_allclose(numbers, expected)
    assert (badmm["steps_to_return"], badmm["steps_to_return_seeds"]) == ("", "0")
    assert (badmm["score"], badmm["unit"], badmm["solved"], badmm["episodes"]) == ("distance", "cm", "6", "16")
    assert (other["finished"], other["final_return"], other["steps"]) == ("0", "", "")
    row = next(line for line in found.text.splitlines() if "| other" in line)
    assert [cell.strip() for cell in row.split("|")[3:-1]] == ["0 of 4", "-", "-", "-", "-", "-", "-"]


def test_a_task_without_scores_has_no_columns_for_them(trained, monkeypatch):
    keep = RunFolder.append_metrics
    returns = lambda folder, row: keep(folder, {k: v for k, v in row.items() if not k.startswith("test_")})  # noqa: E731
    monkeypatch.setattr(RunFolder, "append_metrics", returns)
    found = compared()
    header = found.text.splitlines()[0]
    assert "final return" in header
    assert not {"cm", "score", "solved"} & set(re.findall(r"\w+", header))


def test_tasks_with_other_scores_stand_in_one_table(trained, monkeypatch):
    keep = RunFolder.write_summary

    def angles(folder, summary):
        other = {"score": {"name": "angle", "unit": "rad", "more_is_better": True}}
        keep(folder, {**summary, **(other if folder.settings["run"]["task"] == "reacher-pomdp" else {})})

    monkeypatch.setattr(RunFolder, "write_summary", angles)
    found = compared(tasks=("reacher", "reacher-pomdp"), guiders=["badmm"], goals=Goals(score=4.0))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.text.splitlines() if line[:1] == "|"]
    place = lines[0].index("test score")
    assert [line[place].split(", ")[-1] for line in lines[2:]] == ["distance (cm)", "angle (rad)"]
    assert lines[0][place + 2] == "steps to score 4"
    # 8, 4 and 8/3, and twice as much: the former falls to 4 after 200 steps, both are above it from the start
    assert [line[place + 2] for line in lines[2:]] == ["200, 1 of 2", "100 [100, 100], 2 of 2"]


# The command line.


def test_the_command_line_compares_and_says_where(trained, capsys):
    sets = [f"--set={setting}" for setting in SMALL]
    command = ["compare", "reacher", "--guiders", *BOTH, "--seeds", "2", *sets, "--out", "out"]
    more = ["--iterations", "4", "--set-for", "other", "guider.sampling.samples=3", "--threshold", "-5"]
    del command[command.index("--set=run.iterations=3")]
    assert main([*command, *more, "--distance-threshold", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 runs in out, 0 of them finished before"
    assert any("1/4" in line and line.endswith("reacher by badmm, seed 1") for line in said)
    assert said[-4:] == [f"out/comparison.{kind}" for kind in ("md", "csv", "png", "pdf")]
    (header,) = (line for line in said if line.startswith("| task"))
    assert "steps to return -5" in header
    assert "steps to 3 cm" in header
    assert RunFolder.open("out/reacher-other-seed0").settings["guider"]["sampling"]["samples"] == 3
    assert RunFolder.open("out/reacher-other-seed0").settings["run"]["iterations"] == 4

    trained.diverging = {"reacher-badmm-seed2"}
    command[command.index("2")] = "3"
    assert main([*command, *more]) == 1
    assert "failed: reacher by badmm, seed 2: condition 1 lost all its samples" in capsys.readouterr().out
    assert main([*command, *more, "--set", "task.horizon=9"]) == 2
    error = capsys.readouterr().err
    assert error == "gps: out/reacher-badmm-seed0 is a run with task.horizon = 8, not 9; use a new --out\n"


def test_two_seeds_are_trained_stopped_and_gone_on_with(capsys, monkeypatch):
    """A real comparison, with Ctrl-C in the middle of its second run."""
    command = ["compare", "reacher", "--guiders", "badmm", "--seeds", "2", *(f"--set={setting}" for setting in SMALL)]
    check, calls = ModelBased.check, []

    def interrupt(guider, samples):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return check(guider, samples)

    with monkeypatch.context() as patch:
        patch.setattr(ModelBased, "check", interrupt)
        assert main([*command, "--out", "out"]) == 130
    assert capsys.readouterr().err == "gps: stopped; the same command goes on from the last checkpoint of each run\n"
    assert main([*command, "--out", "out"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "2 runs in out, 1 of them finished before"
    found = compared(guiders=["badmm"], out="out").result("reacher", "badmm")
    assert (found.finished, found.steps) == (2, 3 * 32)
    last = [RunFolder.open(f"out/reacher-badmm-seed{seed}").read_metrics()[-1] for seed in (0, 1)]
    scores = [row["test_score"] for row in last]
    assert found.final_score.value == pytest.approx(np.mean(scores))
    assert (found.final_score.low, found.final_score.high) == pytest.approx(tuple(sorted(scores)))
    np.testing.assert_array_equal(found.curve.steps, [32, 64, 96])
