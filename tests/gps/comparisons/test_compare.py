"""Comparisons: which runs are made, made again or refused, and what the table says of their folders."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from support.compared import BOTH, SMALL, compared

from gps.cli.main import main
from gps.comparisons.compare import compare
from gps.comparisons.statistics import Goals
from gps.guiders.model_based.scaffold import ModelBased
from gps.runs.folder import RunFolder
from gps.runs.metrics import Metrics
from gps.settings import SettingsError

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


# What is said of it.


def test_the_table_holds_the_numbers_of_the_folders(trained):
    found = compared(seeds=5, goals=Goals(-10.0, 4.0, 75.0))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.text.splitlines() if line[:1] == "|"]
    assert len({len(line) for line in found.text.splitlines() if line[:1] == "|"}) == 1  # aligned
    columns = ["task", "guider", "seeds", "steps", "final return", "area under return", "steps to return -10"]
    assert lines[0] == [
        *columns,
        "test distance (cm)",
        "solved",
        "steps to 75 % solved",
        "steps to 4 cm",
        "training (s)",
    ]
    final = 8 * (2 + 3 + 4) / 3 / 3  # of the seeds between the quartiles, in the third iteration
    assert lines[2][:4] == ["reacher", "badmm", "5", "300"]
    assert lines[2][4].startswith(f"-{final:.2f} [-")
    # -10 is reached at 100, 200 and 300 steps, and never by seeds 3 and 4; 4 cm at 200 steps by seed 0 alone
    assert lines[2][6] == "200 [100, 300], 3 of 5"
    assert lines[2][7].startswith(f"{final:.2f} [")
    assert lines[2][8] == "50 % (10 of 20)"
    assert lines[2][9] == "100 [100, 100], 2 of 5"  # by seeds 3 and 4
    assert lines[2][10] == "200, 1 of 5"
    assert lines[2][11] == "6.00 [6.00, 6.00]"
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
    keep = Metrics.append

    def returns(metrics, row):
        keep(metrics, {k: v for k, v in row.items() if not k.startswith("test_")})

    monkeypatch.setattr(Metrics, "append", returns)
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
    last = [RunFolder.open(f"out/reacher-badmm-seed{seed}").metrics.rows()[-1] for seed in (0, 1)]
    scores = [row["test_score"] for row in last]
    assert found.final_score.value == pytest.approx(np.mean(scores))
    assert (found.final_score.low, found.final_score.high) == pytest.approx(tuple(sorted(scores)))
    np.testing.assert_array_equal(found.curve.steps, [32, 64, 96])
