"""`gps train`: what it refuses, leaves alone and goes on with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.folders import contents
from support.tiny import OPTIONS, TRAIN

from gps.guiders.model_based.scaffold import ModelBased
from gps.runs import finish, processes
from gps.runs.folder import RunFolder


@pytest.mark.slow
def test_a_run_is_trained_listed_evaluated_and_drawn(said, tiny, drawing, monkeypatch):
    monkeypatch.setattr(finish, "draw", drawing)
    status, out, errors = said(*TRAIN)
    assert (status, errors) == (0, [])
    folder = RunFolder.open("runs/reacher-badmm-seed0")
    assert folder.experiment == tiny()
    summary = folder.read_summary()
    cm = {name: f"{summary[name]:.4g}" for name in ("test_score", "test_score_worst", "train_score")}
    assert out[-1].startswith(
        f"runs/reacher-badmm-seed0: test distance {cm['test_score']} cm (worst {cm['test_score_worst']}), "
        f"training {cm['train_score']} cm; solved {summary['test_solved']} of 4, 96 steps, 3 iterations, "
    )
    assert sum(line.startswith("iter") for line in out) == 3
    figures = {path.name: path.stat().st_size for path in folder.figures.iterdir()}
    assert {"learning_curves.png", "learning_curves.pdf", "paths.png", "paths.pdf", "animation.gif"} <= set(figures)
    assert min(figures.values()) > 1000

    shutil.rmtree(folder.figures)
    folder.figures.mkdir()
    status, out, errors = said("plot", folder.path)
    assert (status, errors) == (0, ["the learner after iteration 3 of 3"])
    assert sorted(Path(line).name for line in out) == sorted(figures)
    assert {path.name: path.stat().st_size for path in folder.figures.iterdir()}.keys() == figures.keys()

    status, out, errors = said("evaluate", folder.path, "--seed", "3")
    assert (status, errors, len(out), out[0]) == (0, [], 3, "the learner after iteration 3 of 3")
    for line, name, count in ((out[1], "train", 2), (out[2], "test", 4)):
        assert f"conditions ({count}): distance (cm) " in line
        mean, worst = (float(re.search(rf"([\d.]+) {word}", line)[1]) for word in ("mean", "worst"))
        assert mean == pytest.approx(summary[f"{name}_score"], rel=0.1)  # other noise in the start
        assert mean < worst
        assert f"; solved {summary[f'{name}_solved']} of {count}; cost " in line

    status, out, errors = said("list")
    assert (status, errors) == (0, [])
    assert "reacher-badmm-seed0" in out[-1]
    assert out[-1].endswith("reacher by badmm, seed 0: 3 of 3 iterations")


def test_a_run_that_is_to_have_no_figures_has_them_when_they_are_asked_for(said, monkeypatch):
    drawn = []
    monkeypatch.setattr(finish, "draw", lambda folder, *_: drawn.append(folder.path.name) or [])
    for name, figures in (("with", "true"), ("without", "false")):
        assert said(*TRAIN, "--set", f"run.figures={figures}", "--out", name)[0] == 0
        assert RunFolder.open(name).read_summary()["iterations"] == 3
    assert drawn == ["with"]
    assert said("plot", "without")[0] == 0
    assert drawn == ["with", "without"]


def test_a_run_whose_evaluation_diverges_has_no_number_and_yet_an_end(said, drawing, monkeypatch):
    """Some test targets start at a speed that the simulation does not survive; training goes on without them."""
    monkeypatch.setattr(finish, "draw", drawing)
    status, out, errors = said(*TRAIN, "--set", "task.start_noise=100", "--seed", "5", "--out", "run")
    assert (status, errors) == (0, [])
    assert any(line.startswith("run: test distance - cm (worst -), training ") for line in out)
    assert RunFolder.open("run").read_summary()["test_score"] is None


# Mistakes.

IMPOSSIBLE = [
    ("task.horizon=1", "task: horizon .* 1$"),
    ("task.horizon=2.5", "'task.horizon' must be an integer, not 2.5"),
    ("task.train_targets=0", "task: train_targets must be at least 1, not 0"),
    ("task.ring=[0.2, 0.1]", r"task: ring .* 0\.21, not \(0\.2, 0\.1\)"),
    ("task.ring=0.2", "'task.ring' must be a list"),
    ("task.start_noise=nan", "task: start_noise .* nan"),
    ("guider.sampling.samples=0", "guider.sampling: samples must be at least 1.* not 0"),
    ("guider.rounds=0", "guider: rounds must be at least 1, not 0"),
    ("guider.trust_region.kl_step=-1", r"guider.trust_region: kl_step must be positive, not -1\.0"),
    ("guider.trust_region.kl_step=nan", "guider.trust_region: kl_step must be positive, not nan"),
    ("guider.trust_region.tolerance=0", r"guider.trust_region: tolerance must be positive, not 0\.0"),
    (
        "guider.penalty.start=1e9",
        r"guider.penalty: start must be between least = .* and largest = .*, not 1000000000\.0",
    ),
    ("guider.penalty.least=5.0", r"guider.penalty: start must be between least = 5\.0 "),
    ("guider.sampling.by=nobody", "guider.sampling: unknown by 'nobody'; known: controllers, learner, both"),
    ("guider.learner.network.hidden=[]", "guider.learner.network: hidden must name at least one positive width"),
    ("guider.learner.training.updates=0", "guider.learner.training: updates must be .* 0$"),
    ("run.iterations=0", "run: iterations must be at least 1, not 0"),
    ("run.seed=-1", "run: seed must be from 0 to 4294967295, not -1"),
    ("nonsense", "cannot read the assignment 'nonsense'"),
    ("task=3", "the settings|'task' must be a table"),
]


@pytest.mark.parametrize(("assignment", "words"), IMPOSSIBLE)
def test_an_impossible_value_is_named_before_anything_is_made(refused, assignment, words):
    line = refused("train", "reacher", "--set", assignment)
    assert re.search(words, line), line


def test_impossible_combinations_are_named_before_anything_is_made(refused):
    arguments = ["train", "reacher-pomdp", "--set", "guider.learner.linearization=differentiation", "--out", "run"]
    line = refused(*arguments)
    assert "guider.learner.linearization = 'differentiation'" in line
    assert "reacher-pomdp stacks 6 frames" in line


def test_a_folder_that_cannot_be_written_is_one_line(said):
    Path("file").write_text("mine")
    status, _, errors = said(*TRAIN, "--out", "file/run")
    assert (status, len(errors)) == (2, 1)
    assert "file/run" in errors[0]
    assert Path("file").read_text() == "mine"


HUGE = [
    ("reacher", "badmm", "task.train_targets"),
    ("tiger-door", "ppo", "guider.ppo.environments"),
    ("tiger-door", "ppo", "guider.learner.network.memory"),
    ("autoencode-easy", "ppo", "task.decks"),
]


@pytest.mark.parametrize(("task", "guider", "name"), HUGE)
def test_what_needs_more_memory_than_there_is_is_named_before_anything_is_made(refused, task, guider, name):
    line = refused("train", task, "--guider", guider, "--set", f"{name}=1000000000")
    assert re.search(rf"this run would take .* memory.*: lower its largest settings \({name} = 1000000000[,)]", line), (
        line
    )


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 3000])
def test_a_value_that_can_not_be_read_is_named(refused, value):
    line = refused("train", "reacher", "--set", f"task.horizon={value}")
    assert "'task.horizon' can not be read: a number has too many digits, or a list too many levels" in line


# Runs that exist.


def test_a_run_that_ended_before_its_first_iteration_did_makes_room(said, finished, without_times, monkeypatch):
    """As after a mistake that is found when programs are compiled; a run that another process trains is left alone."""

    def broken(guider, samples):
        raise ValueError("shapes")

    with monkeypatch.context() as patch:
        patch.setattr(ModelBased, "check", broken)
        with pytest.raises(ValueError, match="shapes"):
            said(*TRAIN, "--seed", "3", "--out", "run2")
    with RunFolder.open("run2").locked():
        status, _, errors = said(*TRAIN, "--out", "run2")
        assert (status, errors[0][:37]) == (2, "gps: another process trains run2: wai")
    assert said(*TRAIN, "--out", "run2")[0] == 0
    assert without_times(Path("run2")) == without_times(finished)


def test_who_loses_the_race_of_two_that_resume_is_not_told_to_resume(said, finished, monkeypatch):
    """Both find no run; the other one makes it first, and trains it."""
    create = RunFolder.create

    def late(path, experiment):
        shutil.copytree(finished, path)
        return create(path, experiment)

    monkeypatch.setattr(RunFolder, "create", late)
    assert said(*TRAIN, "--out", "raced", "--resume")[0] == 0  # it has come to its end meanwhile
    assert "continue that run with --resume" in said(*TRAIN, "--out", "again")[2][0]


def test_lost_settings_are_named(said, finished):
    (finished / "config.toml").unlink()
    for arguments in ([], ["--resume"]):
        status, _, errors = said(*TRAIN, "--out", finished, *arguments)
        assert (status, errors[0]) == (
            2,
            "gps: run exists, and its config.toml is missing: restore the file, or start anew with another --out",
        )
    assert said("list", "--runs", ".")[1][-1] == "  run  cannot be read: run is no run: it has no config.toml"


def test_an_existing_run_is_never_overwritten(said, finished):
    before = contents(finished)
    for arguments in ([], ["--seed", "1"], ["--iterations", "9"]):
        status, _, errors = said(*TRAIN, "--out", finished, *arguments)
        assert (status, len(errors)) == (2, 1)
        assert "run exists: continue that run with --resume, or start anew with another --out" in errors[0]
    assert contents(finished) == before


def test_a_folder_of_something_else_is_left_alone(said):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    for arguments in ([], ["--resume"]):
        status, _, errors = said(*TRAIN, "--out", "mine", *arguments)
        assert (status, len(errors)) == (2, 1)
        assert "mine exists and holds something that is no run" in errors[0]
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


CHANGES = [
    (["--seed", "1"], "run.seed = 0, not 1"),
    (["--engine", "mjx"], "run.engine = mujoco, not mjx"),
    (["--set", "guider.sampling.samples=3"], "guider.sampling.samples = 2, not 3"),
    (["--set", "task.ring=[0.05, 0.19]"], "task.ring = [0.04, 0.2], not [0.05, 0.19]"),
    (["--set", "run.evaluate_every=2"], "run.evaluate_every = 1, not 2"),
    (["--iterations", "2"], "3 iterations: ask for more, not 2"),
]


def test_a_resumed_run_keeps_its_settings(said, finished):
    before = contents(finished)
    for change, words in CHANGES:
        status, _, errors = said("train", "reacher", "--resume", "--out", finished, *change)
        assert (status, len(errors)) == (2, 1), change
        assert words in errors[0]
    status, _, errors = said("train", "reacher-pomdp", "--resume", "--out", finished)
    assert status == 2
    assert "run.task = reacher, not reacher-pomdp" in errors[0]
    assert contents(finished) == before


def test_a_resumed_run_may_have_more_iterations(said, finished, without_times):
    """By either way of saying so; it then is the run that had as many from the start."""
    three = (finished / "metrics.jsonl").read_bytes()
    assert said("train", "reacher", "--resume", "--out", finished, "--iterations", "4")[0] == 0
    status, out, _ = said(*TRAIN[:4], *OPTIONS, "--resume", "--out", finished, "--set", "run.iterations = 5")
    assert status == 0
    assert any("resumed after iteration 4 of 5" in line for line in out)
    assert (finished / "metrics.jsonl").read_bytes().startswith(three)
    assert RunFolder.open(finished).settings["run"]["iterations"] == 5
    assert RunFolder.open(finished).read_summary()["env_steps"] == 5 * 32
    assert said(*TRAIN, "--iterations", "5", "--out", "whole")[0] == 0
    assert without_times(finished) == without_times(Path("whole"))


def test_resume_starts_a_run_where_there_is_none(said, finished, without_times):
    """Also where a kill has left the folder of a run without its settings: the same command always goes on."""
    Path("killed/checkpoints").mkdir(parents=True)
    for out in ("new", "killed"):
        assert said(*TRAIN, "--resume", "--out", out)[0] == 0
        assert without_times(Path(out)) == without_times(finished)


def test_an_interrupted_run_says_how_to_go_on(said, finished, without_times, monkeypatch):
    check, calls = ModelBased.check, []

    def interrupt(guider, samples):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return check(guider, samples)

    with monkeypatch.context() as patch:
        patch.setattr(ModelBased, "check", interrupt)
        status, _, errors = said(*TRAIN, "--out", "stopped")
    assert status == 130
    assert errors == ["gps: stopped; gps train --resume goes on from the last checkpoint"]
    assert RunFolder.open("stopped").checkpoints.steps() == [1, 2]
    assert said(*TRAIN, "--out", "stopped", "--resume")[0] == 0
    assert without_times(Path("stopped")) == without_times(finished)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--process", "1"], "--coordinator and --process belong to --processes N"),
        (["--processes", "auto", "--coordinator", "host:1"], "--coordinator and --process belong to --processes N"),
        (["--processes", "1"], '--processes must be a number from 2, or "auto", not 1'),
        (["--processes", "two"], '--processes must be a number from 2, or "auto", not two'),
        (["--processes", "2"], "--processes 2 needs --coordinator HOST:PORT of process 0, not None"),
        (["--processes", "2", "--coordinator", "host"], "--coordinator HOST:PORT of process 0, not host"),
        (["--processes", "2", "--coordinator", "host:1"], "--processes 2 needs --process from 0 to 1, not None"),
        (
            ["--processes", "2", "--coordinator", "host:1", "--process", "2"],
            "--processes 2 needs --process from 0 to 1, not 2",
        ),
    ],
)
def test_options_of_several_processes_that_do_not_fit_together_are_errors(options, message, said, monkeypatch):
    monkeypatch.setattr(processes, "join", lambda *_: pytest.fail("joined"))
    status, out, errors = said("train", "tiger-door", *options)
    assert (status, out) == (2, [])
    assert message in errors[0]
