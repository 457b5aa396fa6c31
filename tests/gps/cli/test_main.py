"""The command line as a whole: quick, and its mistakes are one line."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, PackageNotFoundError

import pytest
from support.processes import GPS, TESTS, finished, printed
from support.tiny import TRAIN

from gps.cli.main import main
from gps.experiments.lookup import TASKS
from gps.guiders.model_based.scaffold import ModelBased
from gps.settings import SettingsError


def test_the_installed_script_is_this_command_line():
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    assert EntryPoint("gps", project["scripts"]["gps"], "console_scripts").load() is main
    for command in (GPS, [*GPS[:2], "gps"]):
        done = finished(*command, "train", "reachr")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("gps: run: unknown task 'reachr'; did you mean 'reacher'?")
        assert done.stderr.count("\n") == 1


def unknown_version(_):
    raise PackageNotFoundError


def test_the_version_is_that_of_the_project(capsys, monkeypatch):
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    for known, answer in ((True, project["version"]), (False, "of a folder that is not installed")):
        if not known:
            monkeypatch.setattr("importlib.metadata.version", unknown_version)
        with pytest.raises(SystemExit) as end:
            main(["--version"])
        assert end.value.code in (0, None)
        assert capsys.readouterr().out == f"gps {answer}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "list",
        *(f"{name} --help" for name in ("train", "compare", "evaluate", "report", "export")),
    ],
)
def test_names_and_options_are_told_without_what_they_name(arguments):
    """Which is why they take 0.1 s: jax, mujoco and matplotlib together need 3 s."""
    code = f"""
import sys
from gps.cli.main import main
from gps.experiments.lookup import TASKS
try:
    print("status", main({arguments.split()!r}))
except SystemExit as error:
    print("status", error.code)
print([name for name in ("numpy", "jax", "mujoco", "flax", "matplotlib", "rich", "scipy") if name in sys.modules])
"""
    assert printed(code).splitlines()[-2:] == ["status 0", "[]"]


UNKNOWN = [
    (["train", "reachr"], "unknown task 'reachr'; did you mean 'reacher'? (or brax-reacher"),
    (["train", "xyz"], f"unknown task 'xyz' (`gps list` names all {len(TASKS)})"),
    (["train", "reacher", "--guider", "bdmm"], "unknown guider 'bdmm'; did you mean 'badmm'?"),
    (["train", "reacher", "--engine", "mujco"], "unknown engine 'mujco'; did you mean 'mujoco'?"),
    (
        ["train", "reacher", "--set", "guider.sampling.smples=3"],
        "unknown setting 'guider.sampling.smples'; did you mean 'samples'?",
    ),
    (
        ["train", "reacher", "--set", "guider.kl_step=3"],
        "unknown setting 'guider.kl_step'; did you mean 'guider.trust_region.kl_step'?",
    ),
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


@pytest.mark.parametrize(("arguments", "words"), UNKNOWN)
def test_an_unknown_name_is_answered_with_the_nearest_known_one(refused, arguments, words):
    assert words in refused(*arguments)


@pytest.mark.parametrize(("arguments", "words"), CONTRADICTIONS)
def test_an_argument_and_a_setting_that_contradict_each_other_are_refused(refused, arguments, words):
    assert words in refused(*arguments)


@pytest.mark.parametrize("command", ["evaluate", "plot", "report"])
def test_a_run_that_is_none_is_named(refused, command):
    assert "nowhere is no run: there is no such folder" in refused(command, "nowhere")


def test_a_mistake_of_ours_is_no_mistake_of_the_user(said, monkeypatch):
    """An error inside a program keeps its trace."""

    def broken(guider, samples):
        raise ValueError("shapes")

    monkeypatch.setattr(ModelBased, "check", broken)
    with pytest.raises(ValueError, match="shapes"):
        said(*TRAIN, "--out", "run")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "pendulum", "--set", ".=a\nb = 1"],
        ["train", "a\nb"],
        ["train", "reacher", "--set", "guider.a\nb.c=1"],
        ["train", "reacher", "--set", "run.seed.a\nb=1"],
        ["evaluate", "no\nsuch run"],
    ],
)
def test_line_breaks_in_what_was_typed_make_no_second_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_says_several_things_says_each_in_a_line(capsys, monkeypatch):
    def failing(_):
        raise SettingsError("one\n", "two")

    monkeypatch.setattr("gps.cli.listing.run", failing)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "gps: one\\n\ntwo\n"
