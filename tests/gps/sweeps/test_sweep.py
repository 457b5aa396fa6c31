"""Cells are run once, their results are those of their runs, and what fails stops nothing."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from gps.runs.folder import RunError, RunFolder
from gps.settings import SettingsError
from gps.sweeps.sweep import sweep

VARY = "guider.ppo.updates = [1, 2, 3]\nguider.ppo.clip = [0.1, 0.3]"


def score(experiment):
    """Best at updates = 2 and clip = 0.3."""
    return -abs(experiment.guider.ppo.updates - 2) + experiment.guider.ppo.clip + 0.01 * experiment.run.seed


@pytest.mark.parametrize("workers", [1, 3])
def test_cells_are_ranked_by_their_mean_over_seeds_and_run_once(plan, formula, tmp_path, workers):
    jobs, told = formula(score), []
    made = plan(VARY, values=f"seeds = 2\nworkers = {workers}")
    results, text = sweep(made, tmp_path / "out", tell=told.append)
    assert len(told) == len(results) == 6
    assert len(jobs.ran) == 12
    best = results[0]
    assert best.cell.changes == {"guider.ppo.updates": 2, "guider.ppo.clip": 0.3}
    np.testing.assert_allclose(float(best.value.value), 0.305)
    values = [float(result.value.value) for result in results]
    assert values == sorted(values, reverse=True)
    assert (tmp_path / "out/sweep.md").read_text() == f"# Sweep\n\n{text}"
    rows = list(csv.DictReader((tmp_path / "out/sweep.csv").open()))
    np.testing.assert_allclose([float(row["learner_return"]) for row in rows], values)
    assert (tmp_path / "out/sweep.png").exists()
    experiment = RunFolder.open(best.cell.paths[1]).experiment
    assert (experiment.run.seed, experiment.guider.ppo.updates) == (1, 2)

    again = formula(score)
    assert [result.cell for result in sweep(made, tmp_path / "out", tell=told.append)[0]] == [r.cell for r in results]
    assert again.ran == []
    wider = plan(VARY.replace("[1, 2, 3]", "[1, 2, 3, 4]"), values="seeds = 2")
    sweep(wider, tmp_path / "out", tell=told.append)
    assert sorted(again.ran) == sorted(f"updates=4,clip={c}-seed{s}" for c in (0.1, 0.3) for s in (0, 1))


def test_the_direction_can_be_turned(plan, formula, tmp_path):
    formula(score)
    results, _ = sweep(plan(VARY, values='direction = "min"'), tmp_path / "out", tell=lambda _: None)
    assert results[0].cell.changes["guider.ppo.updates"] != 2


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(plan, formula, tmp_path):
    jobs = formula(lambda experiment: None if experiment.guider.ppo.updates == 2 else score(experiment))
    results, text = sweep(plan(VARY), tmp_path / "out", tell=lambda _: None)
    assert [result.failed for result in results] == ["", "", "", "", "it diverged", "it diverged"]
    assert text.count("Failed: updates=2") == 2
    jobs = formula(score)
    results, _ = sweep(plan(VARY), tmp_path / "out", tell=lambda _: None)
    assert {name.partition(",")[0] for name in jobs.ran} == {"updates=2"}
    assert not any(result.failed for result in results)


def test_what_stops_a_sweep_stops_its_jobs(plan, formula, tmp_path):
    jobs = formula(score)

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(plan(VARY), tmp_path / "out", tell=interrupted)
    assert jobs.ran[-1] == "stopped"


def test_optuna_goes_on_where_it_was_stopped(plan, formula, tmp_path):
    made = plan("guider.ppo.updates = { low = 1, high = 60 }", values='search = "optuna"\ntrials = 6')
    jobs, told = formula(score), []

    def stop(line):
        told.append(line)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(made, tmp_path / "out", tell=stop)
    first = [name for name in jobs.ran if name != "stopped"]
    jobs = formula(score)
    results, _ = sweep(made, tmp_path / "out", tell=lambda _: None)
    assert jobs.ran
    assert not set(first) & set(jobs.ran)
    assert {f"{result.cell.name}-seed0" for result in results} == {*first, *jobs.ran}
    assert len(results) >= 5  # of six trials; the optimiser may come to a cell again


def test_optuna_is_told_what_comes_of_a_cell_that_failed_before(plan, formula, tmp_path):
    import optuna

    made = plan("guider.ppo.updates = [1, 2]", values='search = "optuna"\ntrials = 6')
    formula(lambda experiment: None if experiment.guider.ppo.updates == 2 else score(experiment))
    sweep(made, tmp_path, tell=lambda _: None)
    jobs = formula(score)
    sweep(made, tmp_path, tell=lambda _: None)
    assert jobs.ran == ["updates=2-seed0"]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.log")))
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
    assert {trial.params["guider.ppo.updates"] for trial in trials} == {0, 1}  # places in the list
    expected = [score(made.experiment({"guider.ppo.updates": 1 + t.params["guider.ppo.updates"]}, 0)) for t in trials]
    assert [trial.value for trial in trials] == expected


def test_mistakes_are_errors_before_anything_is_run(plan, formula, tmp_path):
    jobs = formula(score)
    with pytest.raises(SettingsError, match=r"unknown objective 'lerner_return'; did you mean 'learner_return'"):
        sweep(plan(VARY, values='objective = "lerner_return"'), tmp_path / "a", tell=lambda _: None)
    assert jobs.ran == []
    with pytest.raises(RunError, match=r"summary.json has no such number; it has learner_return"):
        sweep(plan(VARY, values='objective = "model_error"'), tmp_path / "a", tell=lambda _: None)
    assert jobs.ran == ["updates=1,clip=0.1-seed0", "stopped"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/sweep.csv").write_text("mine")
    with pytest.raises(RunError, match=r"sweep.csv exists and is of no sweep"):
        sweep(plan(VARY), tmp_path / "b", tell=lambda _: None)
    assert (tmp_path / "b/sweep.csv").read_text() == "mine"
    sweep(plan("guider.ppo.updates = [1]"), tmp_path / "c", tell=lambda _: None)
    with pytest.raises(SettingsError, match=r"is a run with guider.ppo.unroll = \d+, not 3; use a new --out"):
        sweep(plan("guider.ppo.updates = [1]", settings="guider.ppo.unroll = 3"), tmp_path / "c", tell=lambda _: None)


def test_cells_of_fewer_iterations_go_on(plan, formula, tmp_path, monkeypatch):
    formula(score)
    made = plan("guider.ppo.updates = [1, 2]")
    sweep(made, tmp_path / "out", tell=lambda _: None)
    jobs, asked = formula(score), []

    def resumed(path, experiment):
        asked.append((path.name, experiment.run.iterations))
        return RunFolder.open(path)

    monkeypatch.setattr("gps.comparisons.compare.resumed", resumed)
    longer = dataclasses.replace(made, base={**made.base, "run": {**made.base["run"], "iterations": 3}})
    sweep(longer, tmp_path / "out", tell=lambda _: None)
    assert asked == [("updates=1-seed0", 3), ("updates=2-seed0", 3)]
    assert jobs.ran == ["updates=1-seed0", "updates=2-seed0"]


def test_a_cell_that_optuna_proposes_again_is_run_once(plan, formula, tmp_path):
    jobs, told = formula(score), []
    made = plan("guider.ppo.updates = [1, 2]", values='search = "optuna"\ntrials = 8\nworkers = 3')
    results, _ = sweep(made, tmp_path / "out", tell=told.append)
    assert sorted(jobs.ran) == ["updates=1-seed0", "updates=2-seed0"]
    assert len(results) == len(told) == 2
    assert not any(result.failed for result in results)


def test_values_that_optuna_puts_together_and_that_can_not_be_stop_no_other(plan, formula, tmp_path):
    jobs = formula(lambda experiment: experiment.guider.ppo.updates + 0.1 * experiment.run.iterations)
    made = plan(
        "run.iterations = [10, 2]\nguider.ppo.updates = [4, 1]",
        values='search = "optuna"\ntrials = 30',
        settings="guider.teacher.updates = 5",
        guider="bc",
        iterations="",
    )
    results, _ = sweep(made, tmp_path / "out", tell=lambda _: None)
    failed = [result for result in results if result.failed]
    assert [result.cell.changes for result in failed] == [{"run.iterations": 2, "guider.ppo.updates": 1}]
    assert len(jobs.ran) == len(results) - 1 == 3
