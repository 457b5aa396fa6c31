"""A run compiles once, goes on from what is whole, and reports what it has done."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import mujoco
import numpy as np
import pytest
from support.folders import flip
from support.guided import LONG, assert_same_run, rows_of, state_of

from gps.columns import Column
from gps.guiders.guider import DivergedError
from gps.runs import train
from gps.runs.checkpoints import CheckpointError
from gps.runs.folder import RunFolder
from gps.runs.train import columns_of
from gps.tasks.task import Score


@pytest.fixture(autouse=True)
def place(quick, monkeypatch, tmp_path):
    """Nothing is drawn, and nothing compiled twice."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where a simulation diverges


def largest(checkpoint: Path) -> Path:
    """Its largest file."""
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_damaged_checkpoint_is_named_and_passed_over(run_of, tmp_path, capsys):
    shutil.copytree(run_of(*LONG).path, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    (folder.path / "summary.json").unlink()
    files = [largest(folder.checkpoints.folder / name) for name in ("00000008", "00000006")]
    for file in files:
        flip(file, file.stat().st_size // 2)
    train.train(folder)
    shown = "".join(capsys.readouterr().out.split())
    for file in files:
        assert f"damagedcheckpointpassedover:{file}" in shown
    assert "resumedafteriteration4of8" in shown
    assert_same_run(folder, run_of(*LONG))


def test_without_a_whole_checkpoint_nothing_is_run_or_lost(run_of, tmp_path):
    shutil.copytree(run_of(*LONG).path, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    files = [largest(folder.checkpoints.folder / f"{step:08d}") for step in folder.checkpoints.steps()]
    assert len(files) == 3
    for file in files:
        flip(file, file.stat().st_size // 2)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as error:
        train.train(folder, quiet=True)
    assert all(str(file) in str(error.value) for file in files)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_finished_run_that_is_resumed_stays_as_it_is(run_of, tmp_path):
    shutil.copytree(run_of().path, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    before = (folder.path / "metrics.jsonl").read_bytes()
    train.train(folder, quiet=True)
    assert (folder.path / "metrics.jsonl").read_bytes() == before
    assert_same_run(folder, run_of())


def test_a_training_step_is_compiled_once(tiny, tmp_path, compiled, caplog):
    """In the first iteration, and not again for a state that comes from a checkpoint."""
    for known in compiled:
        known.clear()
    folder = RunFolder.create(tmp_path / "run", tiny("run.iterations=4"))

    def compilations() -> dict[str, int]:
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            train.train(folder, quiet=True)
        messages = [record.getMessage() for record in caplog.records]
        programs = ("collect", "update", "evaluate")
        return {name: sum(m.startswith(f"Compiling jit({name})") for m in messages) for name in programs}

    assert compilations() == {"collect": 1, "update": 1, "evaluate": 1}
    for step in (3, 4):
        shutil.rmtree(folder.checkpoints.folder / f"{step:08d}")
    assert compilations() == {"collect": 0, "update": 0, "evaluate": 0}


def test_the_seed_decides(run_of, tiny, tmp_path):
    again = RunFolder.create(tmp_path / "run", tiny())
    train.train(again, quiet=True)
    assert_same_run(again, run_of())
    other = run_of("run.seed=1")
    first, second = state_of(run_of()), state_of(other)
    for part in (".controllers.k", ".learner.policy.params['params']['input']['kernel']", ".duals.offset"):
        assert not np.any(first[part] == second[part])
    assert rows_of(other)[0]["cost"] != rows_of(run_of())[0]["cost"]


def test_evaluations_and_checkpoints_come_when_they_are_due(tiny, tmp_path):
    changes = ("run.iterations=5", "run.evaluate_every=3", "run.checkpoint_every=4")
    folder = RunFolder.create(tmp_path / "run", tiny(*changes))
    train.train(folder, quiet=True)
    assert ["test_score" in row for row in folder.metrics.rows()] == [False, False, True, False, True]
    assert folder.checkpoints.steps() == [4, 5]


def test_the_summary_says_what_was_done(tiny, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", tiny("run.seed=2"))
    simulator = folder.experiment.build().task.simulator
    simulate, simulated = simulator._simulate, 0

    def count(doubles, steps):
        nonlocal simulated
        simulated += len(doubles)
        return simulate(doubles, steps)

    monkeypatch.setattr(simulator, "_simulate", count)
    returned = train.train(folder, quiet=True)
    summary, rows = folder.read_summary(), folder.metrics.rows()
    assert summary == json.loads(json.dumps(returned))
    collected = 2 * 2 * 8  # targets x samples x horizon
    assert [row["steps"] for row in rows] == [collected, 2 * collected, 3 * collected]
    assert summary["env_steps"] == 3 * collected
    # what evaluations simulate is not counted: one in each iteration and one for the figures, 2 + 4 targets
    assert simulated == 3 * collected + 4 * (6 * 8)
    assert (summary["iterations"], summary["seed"], summary["engine"]) == (3, 2, "mujoco")
    for name in ("test_score", "test_score_worst", "train_score", "test_cost", "test_episodes"):
        assert summary[name] == rows[-1][name]
    assert 0 < summary["test_score"] < summary["test_score_worst"] < 42  # cm, the arm's two lengths
    assert summary["score"] == {"name": "distance", "unit": "cm", "more_is_better": False}
    assert summary["seconds_per_iteration"] == pytest.approx(np.mean([row["iteration_seconds"] for row in rows[1:]]))
    assert summary["wall_seconds"] >= sum(row["iteration_seconds"] for row in rows)
    assert rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"] < summary["wall_seconds"]
    assert (summary["diverged_samples"], summary["failed_fits"]) == (0, 0)
    versions = summary["versions"]
    assert (versions["jax"], versions["mujoco"], versions["numpy"]) == (
        jax.__version__,
        mujoco.__version__,
        np.__version__,
    )
    assert {"jaxlib", "mujoco-mjx", "flax", "optax"} <= set(versions)


def test_samples_that_diverge_are_counted_and_left_out(tiny, tmp_path, shared_programs, monkeypatch):
    """An arm that starts at 100 rad/s gains energy from the integrator until it is beyond all bounds."""
    folder = RunFolder.create(tmp_path / "run", tiny("task.start_noise=100", "run.seed=2"))
    programs = shared_programs(folder.experiment.build())
    collect, lost = programs.collect, []

    def watch(state, key):
        samples = collect(state, key)
        # a lost sample holds a copy of a sound one of its condition
        lost.append(sum(len(xs) - len(np.unique(xs, axis=0)) for xs in np.asarray(samples.xs)))
        return samples

    monkeypatch.setattr(programs, "collect", watch)
    summary = train.train(folder, quiet=True)
    rows = folder.metrics.rows()
    assert [row["diverged_samples"] for row in rows] == lost == [1, 1, 1]
    assert summary["diverged_samples"] == 3
    assert [name for name, leaf in state_of(folder).items() if not np.isfinite(leaf).all()] == []
    assert all(math.isfinite(cost) for row in rows for cost in row["cost"])


def test_a_condition_without_a_sound_sample_ends_the_run_in_words(tiny, tmp_path):
    folder = RunFolder.create(tmp_path / "run", tiny("task.start_noise=3000"))
    for _ in range(2):  # the second time from the checkpoint of the first
        with pytest.raises(DivergedError, match=r"all 2 samples of condition\(s\) \[0, 1\] diverged.*lower") as error:
            train.train(folder, quiet=True)
        assert "\n" not in str(error.value)
        assert [entry.name for entry in folder.checkpoints.folder.iterdir()] == ["00000000"]
        assert folder.metrics.rows() == []


def test_a_run_goes_on_from_where_a_condition_was_lost(run_of, tiny, tmp_path, shared_programs, monkeypatch):
    """To the same end, where the cause has gone; the checkpoint is of this very iteration, though not due."""
    folder = RunFolder.create(tmp_path / "run", tiny(*LONG))
    programs = shared_programs(folder.experiment.build())
    collect = programs.collect

    def lose(state, key):
        samples = collect(state, key)
        if state.iteration == 3:
            return dataclasses.replace(samples, weights=samples.weights.at[1].set(0.0))
        return samples

    with monkeypatch.context() as patch:
        patch.setattr(programs, "collect", lose)
        with pytest.raises(DivergedError, match=r"condition\(s\) \[1\]"):
            train.train(folder, quiet=True)
    assert folder.checkpoints.steps() == [2, 3]
    assert len(folder.metrics.rows()) == 3
    train.train(folder, quiet=True)
    assert_same_run(folder, run_of(*LONG))


def test_a_display_has_the_columns_of_the_guider_and_the_scores_of_the_task():
    row = {"iteration": 0, "kl": 0.25, "train_score": 1.0, "test_score": 2.0, "test_solved": 4, "learner_return": -9.0}
    row |= {"learner_return_sampled": -10.0, "steps": 100, "seconds": 1.0}
    control = {"cost": None, "final_cost": None, "train_contexts": np.zeros((3, 2)), "test_contexts": np.zeros((5, 2))}
    control["score"] = Score("angle", "rad")

    def shown(**task) -> str:
        guider = SimpleNamespace(columns=(Column("kl", "KL", ".2f"),), task=SimpleNamespace(**task))
        return "  ".join(f"{column.title} {column.text(row)} {column.unit}".rstrip() for column in columns_of(guider))

    assert shown() == "iter 1  KL 0.25  learner -9.00  sampled -10.0  steps 100  time 1.0 s"
    scores = "iter 1  KL 0.25  train 1.00 rad  test 2.00 rad"
    assert shown(**control) == f"{scores}  steps 100  time 1.0 s"
    assert shown(**control, solved=None) == f"{scores}  solved 4 of 5  steps 100  time 1.0 s"
