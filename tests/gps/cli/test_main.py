"""The command line: what it prints, what it leaves on the disk, and what it says to mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gps.cli.main import main
from gps.experiments.lookup import GUIDERS
from gps.guiders.model_based.badmm import Badmm
from gps.runs import finish
from gps.runs.folder import RunFolder

SCRIPT = Path(sys.executable).with_name("gps")
TINY = [
    f"--set={setting}"
    for setting in (
        "task.horizon=8",
        "task.train_targets=2",
        "task.test_targets=4",
        "guider.samples=2",
        "guider.rounds=2",
        "guider.learner.hidden=[8, 8]",
        "guider.learner.training.updates=8",
    )
]
TRAIN = ["train", "reacher", "--engine", "mujoco", "--iterations", "3", *TINY]


@pytest.fixture
def drawing():
    return finish.draw


@pytest.fixture(autouse=True)
def quick(shared_programs, drawing, monkeypatch, tmp_path):
    """Nothing is drawn, nothing compiled twice; runs/ is made in a folder of the test's own."""
    monkeypatch.setattr(finish, "draw", lambda *_: [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys):
    """Runs a command; returns its status and the lines on standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def finished(said):
    """The folder of a finished run."""
    status, _, errors = said(*TRAIN, "--out", "run")
    assert (status, errors) == (0, [])
    return Path("run")


def contents(path: Path) -> dict[Path, bytes | None]:
    return {entry: entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}


def without_times(folder: Path) -> list[dict]:
    times = ("seconds", "iteration_seconds", "compiles")
    return [{k: v for k, v in row.items() if k not in times} for row in RunFolder.open(folder).read_metrics()]


# A run from its start to its figures.


@pytest.mark.slow
def test_a_run_is_trained_listed_evaluated_and_drawn(said, tiny, drawing, monkeypatch):
    monkeypatch.setattr(finish, "draw", drawing)
    status, out, errors = said(*TRAIN)
    assert (status, errors) == (0, [])
    folder = RunFolder.open("runs/reacher-badmm-seed0")
    assert folder.settings == tiny()
    summary = folder.read_summary()
    cm = {name: f"{100 * summary[name]:.2f}" for name in summary if "distance" in name}
    assert out[-1].startswith(
        f"runs/reacher-badmm-seed0: test distance {cm['test_distance_mean']} cm (largest {cm['test_distance_max']}), "
        f"training {cm['train_distance_mean']} cm, 96 steps, 3 iterations, "
    )
    assert sum(line.startswith("iter") for line in out) == 3
    figures = {path.name: path.stat().st_size for path in folder.figures.iterdir()}
    assert {"learning_curves.png", "learning_curves.pdf", "paths.png", "paths.pdf", "reaching.gif"} <= set(figures)
    assert min(figures.values()) > 1000

    shutil.rmtree(folder.figures)
    folder.figures.mkdir()
    status, out, errors = said("plot", folder.path)
    assert (status, errors) == (0, [])
    assert sorted(Path(line).name for line in out) == sorted(figures)
    assert {path.name: path.stat().st_size for path in folder.figures.iterdir()}.keys() == figures.keys()

    status, out, errors = said("evaluate", folder.path, "--seed", "3")
    assert (status, errors, len(out)) == (0, [], 2)
    for line, name, count in ((out[0], "train", 2), (out[1], "test", 4)):
        assert f"targets ({count})" in line
        mean, largest = (float(re.search(pattern, line)[1]) for pattern in (r"([\d.]+) cm mean", r"([\d.]+) largest"))
        assert mean == pytest.approx(100 * summary[f"{name}_distance_mean"], rel=0.1)  # other noise in the start
        assert mean < largest

    status, out, errors = said("list")
    assert (status, errors) == (0, [])
    assert "reacher-badmm-seed0" in out[-1]
    assert out[-1].endswith("reacher by badmm, seed 0: 3 of 3 iterations")


def test_the_list_names_what_there_is(said, finished):
    status, out, errors = said("list", "--settings")
    assert (status, errors) == (0, [])
    text = "\n".join(out)
    for line in ("tasks:", "guiders:", "  reacher ", "  reacher-pomdp ", "  badmm ", "no runs in runs/"):
        assert f"\n{line}" in f"\n{text}"
    for setting in ("task.horizon", "task.ring", "guider.samples", "guider.learner.training.updates"):
        assert re.search(rf"\n +{re.escape(setting)} = \S", text)
    shutil.copytree(finished, "others/broken")
    shutil.copytree(finished, "others/run")
    Path("others/broken/config.toml").write_text('[run]\ntask = "reachr"\n')
    status, out, errors = said("list", "--runs", "others")
    assert (status, errors) == (0, [])  # one bad run does not hide the others
    assert re.fullmatch(r"  broken +cannot be read: its config.toml lacks a setting of the table 'run'", out[-2])
    assert re.fullmatch(r"  run +reacher by badmm, seed 0: 3 of 3 iterations", out[-1])


def test_the_list_can_be_narrowed_to_names(said, finished):
    status, out, errors = said("list", "tiger-door", "gpo-clip", "--settings", "--runs", ".")
    assert (status, errors) == (0, [])
    assert [line for line in out if line[:3].strip()] == [
        "tasks:",
        "  tiger-door  open the door without the tiger, or listen first",
        "guiders:",
        f"  gpo-clip  {GUIDERS['gpo-clip'].about}",
    ]
    assert "      guider.region.size = 0.1" in out
    assert [line.split()[0] for line in said("list", "ppo", "bc")[1]] == ["guiders:", "ppo", "bc"]
    assert said("list", "ppo", "tiger-dor")[2][0].startswith(
        "gps: unknown task or guider 'tiger-dor'; did you mean 'tiger-door'?"
    )


def test_the_list_says_for_which_guiders_a_task_has_defaults_and_how_to_set_them(said):
    _, out, _ = said("list", "tiger-door", "reacher", "--settings")
    general = out.index("      defaults on this task, for every guider that has them but badmm and mdgps:", 20)
    naive = out.index("      and for gpo-naive:")
    assert general < out.index("        guider.penalty.start = 1.0") < naive
    assert out[naive + 1 : naive + 3] == [
        "        guider.ppo.learning_rate = 0.003",
        "      and for gpo-clip-supervised:",
    ]
    assert all(line.startswith(("run.", "guider.")) for line in map(str.strip, out[general:]) if " = " in line)


def test_a_run_with_a_long_name_stays_apart_from_what_is_said_of_it(said, finished):
    name = "a-name-of-more-than-thirty-two-characters"
    shutil.copytree(finished, f"others/{name}")
    shutil.copytree(finished, "others/short")
    assert said("list", "--runs", "others")[1][-2:] == [
        f"  {name}  reacher by badmm, seed 0: 3 of 3 iterations",
        f"  {'short':{len(name)}}  reacher by badmm, seed 0: 3 of 3 iterations",
    ]


def test_a_run_whose_evaluation_diverges_has_no_number_and_yet_an_end(said, drawing, monkeypatch):
    """Some test targets start at a speed that the simulation does not survive; training goes on without them."""
    monkeypatch.setattr(finish, "draw", drawing)
    status, out, errors = said(*TRAIN, "--set", "task.start_noise=100", "--seed", "5", "--out", "run")
    assert (status, errors) == (0, [])
    assert out[-1].startswith("run: test distance - cm (largest -), training ")
    assert RunFolder.open("run").read_summary()["test_distance_mean"] is None


def test_the_installed_script_is_this_command_line():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [SCRIPT, "train", "reachr"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gps: ")
    assert "unknown task 'reachr'; did you mean 'reacher'?" in done.stderr
    assert done.stderr.count("\n") == 1


# Mistakes.

UNKNOWN = [
    (["train", "reachr"], "unknown task 'reachr'; did you mean 'reacher'?"),
    (["train", "reacher", "--guider", "bdmm"], "unknown guider 'bdmm'; did you mean 'badmm'?"),
    (["train", "reacher", "--engine", "mujco"], "unknown engine 'mujco'; did you mean 'mujoco'?"),
    (["train", "reacher", "--set", "guider.smples=3"], "unknown setting 'guider.smples'; did you mean 'samples'?"),
    (["train", "reacher", "--set", "task.horzon=9"], "unknown setting 'task.horzon'; did you mean 'horizon'?"),
    (["train", "reacher", "--set", "run.sed=9"], "unknown setting 'run.sed'; did you mean 'seed'?"),
    (
        ["train", "reacher", "--set", "guider.learner.training.update=9"],
        "unknown setting 'guider.learner.training.update'; did you mean 'updates'?",
    ),
    (["train", "reacher", "--set", "guidr.samples=9"], "unknown table of settings 'guidr'; did you mean 'guider'?"),
]

CONTRADICTIONS = [  # the last error of each line is found only when there is no contradiction
    (["train", "reacher", "--set", "run.task=tiger-door"], "run.task is to be reacher, and tiger-door by --set"),
    (["train", "reacher", "--guider", "ppo", "--set", "run.guider=bc"], "run.guider is to be ppo, and bc by --set"),
    (["train", "reacher", "--seed", "5", "--set", "run.seed=4"], "run.seed is to be 5, and 4 by --set"),
    (["train", "reacher", "--seed", "0", "--set", "run={seed=4}"], "run.seed is to be 0, and 4 by --set"),
    (["train", "reacher", "--engine", "mjx", "--set", "run.engine=mujoco"], "run.engine is to be mjx, and mujoco"),
    (["train", "reacher", "--iterations", "3", "--set", "run.iterations=4"], "run.iterations is to be 3, and 4"),
    (["compare", "reacher", "--guiders", "ppo", "--iterations", "3", "--set", "run.iterations=4"], "to be 3, and 4 by"),
    (["train", "reacher", "--set", "run.guider=ppo", "--set", "guider.ppo.clp=1"], "unknown setting 'guider.ppo.clp'"),
    (["train", "reacher", "--seed", "5", "--set", "run.seed=5", "--set", "guider.x=1"], "unknown setting 'guider.x'"),
]

EVALUATIONS = [
    (["--seed", "99999999999999999999"], "seed must be from 0 to 4294967295, not 99999999999999999999"),
    (["--seed", "-5"], "seed must be from 0 to 4294967295, not -5"),
    (["--noise", "nan"], "noise must be finite and at least 0, not nan"),
    (["--noise", "inf"], "noise must be finite and at least 0, not inf"),
    (["--noise", "-1"], "noise must be finite and at least 0, not -1.0"),
]

IMPOSSIBLE = [
    ("task.horizon=1", "task: horizon .* 1$"),
    ("task.horizon=2.5", "'task.horizon' must be an integer, not 2.5"),
    ("task.train_targets=0", "task: train_targets must be at least 1, not 0"),
    ("task.ring=[0.2, 0.1]", r"task: ring .* 0\.21, not \(0\.2, 0\.1\)"),
    ("task.ring=0.2", "'task.ring' must be a list"),
    ("task.start_noise=nan", "task: start_noise .* nan"),
    ("guider.samples=1", "guider: samples must be at least 2.* not 1"),
    ("guider.rounds=0", "guider: rounds must be at least 1, not 0"),
    ("guider.kl_step=-1", r"guider: kl_step must be positive, not -1\.0"),
    ("guider.kl_step=nan", "guider: kl_step must be positive, not nan"),
    ("guider.kl_tolerance=0", r"guider: kl_tolerance must be positive, not 0\.0"),
    ("guider.penalty=1e9", r"guider: penalty must be between penalty_min = .* and penalty_max = .*, not 1000000000\.0"),
    ("guider.penalty_min=5.0", r"guider: penalty must be between penalty_min = 5\.0 "),
    ("guider.sampling=nobody", "guider: .*sampling.*nobody"),
    ("guider.learner.hidden=[]", "guider.learner: hidden must name at least one positive width"),
    ("guider.learner.training.updates=0", "guider.learner.training: updates must be .* 0$"),
    ("run.iterations=0", "run: iterations must be at least 1, not 0"),
    ("run.seed=-1", "run: seed must be from 0 to 4294967295, not -1"),
    ("nonsense", "cannot read the assignment 'nonsense'"),
    ("task=3", "the settings|'task' must be a table"),
]


def assert_refused(said, arguments, caplog) -> str:
    """One line on standard error, status 2, nothing on the disk, nothing compiled; returns the line."""
    with jax.log_compiles(), caplog.at_level("WARNING"):
        status, out, errors = said(*arguments)
    assert (status, out, len(errors)) == (2, [], 1)
    assert errors[0].startswith("gps: ")
    assert list(Path().iterdir()) == []
    messages = [record.getMessage() for record in caplog.records]
    compiled = {message.split()[1] for message in messages if message.startswith("Compiling")}
    assert compiled <= {"jit(convert_element_type)"}  # of the targets, when the task is built
    return errors[0]


@pytest.mark.parametrize(("arguments", "words"), UNKNOWN)
def test_an_unknown_name_is_answered_with_the_nearest_known_one(said, arguments, words, caplog):
    assert words in assert_refused(said, arguments, caplog)


@pytest.mark.parametrize(("arguments", "words"), CONTRADICTIONS)
def test_an_argument_and_a_setting_that_contradict_each_other_are_refused(said, arguments, words, caplog):
    assert words in assert_refused(said, arguments, caplog)


@pytest.mark.parametrize(("arguments", "words"), EVALUATIONS)
def test_an_impossible_evaluation_is_named(said, arguments, words, caplog):
    assert words in assert_refused(said, ["evaluate", "run", *arguments], caplog)


@pytest.mark.parametrize(("assignment", "words"), IMPOSSIBLE)
def test_an_impossible_value_is_named_before_anything_is_made(said, assignment, words, caplog):
    line = assert_refused(said, ["train", "reacher", "--set", assignment], caplog)
    assert re.search(words, line), line


def test_impossible_combinations_are_named_before_anything_is_made(said, caplog):
    arguments = ["train", "reacher-pomdp", "--set", "guider.linearization=differentiation", "--out", "run"]
    line = assert_refused(said, arguments, caplog)
    assert "linearization = 'differentiation'" in line
    assert "reacher-pomdp stacks 6 frames" in line


@pytest.mark.parametrize("command", ["evaluate", "plot"])
def test_a_run_that_is_none_is_named(said, command, caplog):
    assert "nowhere is no run: there is no such folder" in assert_refused(said, [command, "nowhere"], caplog)


def test_a_run_without_a_checkpoint_cannot_be_evaluated_yet(said, tiny):
    RunFolder.create("run", tiny())
    status, out, errors = said("evaluate", "run")
    assert (status, out) == (2, [])
    assert errors == ["gps: run has no checkpoint yet: train it with gps train --resume"]


def test_a_folder_that_cannot_be_written_is_one_line(said):
    Path("file").write_text("mine")
    status, _, errors = said(*TRAIN, "--out", "file/run")
    assert (status, len(errors)) == (2, 1)
    assert "file/run" in errors[0]
    assert Path("file").read_text() == "mine"


# Runs that exist.


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
    (["--set", "guider.samples=3"], "guider.samples = 2, not 3"),
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


def test_a_resumed_run_may_have_more_iterations(said, finished):
    """By either way of saying so; it then is the run that had as many from the start."""
    three = (finished / "metrics.jsonl").read_bytes()
    assert said("train", "reacher", "--resume", "--out", finished, "--iterations", "4")[0] == 0
    status, out, _ = said(*TRAIN[:4], *TINY, "--resume", "--out", finished, "--set", "run.iterations = 5")
    assert status == 0
    assert any("resumed after iteration 4 of 5" in line for line in out)
    assert (finished / "metrics.jsonl").read_bytes().startswith(three)
    assert RunFolder.open(finished).settings["run"]["iterations"] == 5
    assert RunFolder.open(finished).read_summary()["env_steps"] == 5 * 32
    assert said(*TRAIN, "--iterations", "5", "--out", "whole")[0] == 0
    assert without_times(finished) == without_times(Path("whole"))


def test_resume_starts_a_run_where_there_is_none(said, finished):
    """Also where a kill has left the folder of a run without its settings: the same command always goes on."""
    Path("killed/checkpoints").mkdir(parents=True)
    for out in ("new", "killed"):
        assert said(*TRAIN, "--resume", "--out", out)[0] == 0
        assert without_times(Path(out)) == without_times(finished)


def test_an_interrupted_run_says_how_to_go_on(said, finished, monkeypatch):
    check, calls = Badmm.check, []

    def interrupt(guider, samples):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return check(guider, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Badmm, "check", interrupt)
        status, _, errors = said(*TRAIN, "--out", "stopped")
    assert status == 130
    assert errors == ["gps: stopped; gps train --resume goes on from the last checkpoint"]
    assert RunFolder.open("stopped").checkpoints.steps() == [1, 2]
    assert said(*TRAIN, "--out", "stopped", "--resume")[0] == 0
    assert without_times(Path("stopped")) == without_times(finished)


def test_a_mistake_of_ours_is_no_mistake_of_the_user(said, monkeypatch):
    """An error inside a program keeps its trace."""

    def broken(guider, samples):
        raise ValueError("shapes")

    monkeypatch.setattr(Badmm, "check", broken)
    with pytest.raises(ValueError, match="shapes"):
        said(*TRAIN, "--out", "run")
