"""A run whose samples come from a plant in another process: as in simulation, and ended and gone on with safely."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from support.guided import same
from support.plants import Process, free_port
from support.tiny import TRAIN

from dynamics.remote_plant import RemotePlant
from gps.cli.main import main
from gps.runs.evaluate import evaluate
from gps.runs.folder import RunFolder
from gps.runs.resume import load

OWN = ("plant_seconds", "answer_ms", "seconds", "iteration_seconds", "compiles")  # of a run on a plant, or of its time


@pytest.fixture(autouse=True)
def place(quick, monkeypatch, tmp_path):
    """Nothing is drawn, and nothing compiled twice."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def port():
    """One for all plants here: with another address everything would be compiled anew."""
    return free_port()


@pytest.fixture
def plant(port):
    """The plants of a test, the first of which runs."""
    plants = [Process(port)]
    yield plants
    for each in plants:
        each.end()


@pytest.fixture
def trained(capsys):
    """Trains; returns the status and what is said on standard error. What is printed last names the plant, if any."""

    def run(out, *options):
        capsys.readouterr()
        # where a plant fails before a checkpoint is due, there is one all the same
        status = main([*TRAIN, "--out", out, "--set=run.checkpoint_every=3", *options])
        said = capsys.readouterr()
        if status == 0 and options:
            assert (
                f"these are of the model; gps evaluate {out} --plant {options[0].partition('address=')[2]} " in said.out
            )
        return status, said.err

    return run


def at(plant):
    return f"--set=run.plant.address={plant.address}"


def rows(out):
    return [{k: v for k, v in row.items() if k not in OWN} for row in RunFolder.open(out).metrics.rows()]


def fails_at(monkeypatch, name, count, fail):
    """Before so many calls of that method of the plant, something happens once."""
    real, calls = getattr(RemotePlant, name), []

    def counted(self, *arguments):
        calls.append(name)
        if len(calls) == count:
            fail()
        return real(self, *arguments)

    monkeypatch.setattr(RemotePlant, name, counted)


@pytest.fixture
def whole(plant, trained):
    """The state of a run on a plant that nothing has interrupted, and its rows."""
    assert trained("whole", at(plant[0])) == (0, "")
    return load(RunFolder.open("whole")).state, rows("whole")


def assert_whole(out, whole):
    state, metrics = whole
    assert same(load(RunFolder.open(out)).state, state)
    assert rows(out) == metrics


def test_a_run_on_a_plant_is_the_run_in_simulation(whole, trained, plant):
    assert trained("simulated") == (0, "")
    for row, other in zip(whole[1], rows("simulated"), strict=True):
        np.testing.assert_allclose(row["cost"], other["cost"], rtol=1e-3)
        np.testing.assert_allclose(row["test_score"], other["test_score"], rtol=1e-2)
    told = RunFolder.open("whole")
    assert told.read_summary()["plant"] == plant[0].address
    assert "plant" not in RunFolder.open("simulated").read_summary()
    assert [row["answer_ms"] > 0 for row in told.metrics.rows()] == [False, True, False]


def test_a_plant_that_dies_ends_the_run_in_one_line_and_the_run_goes_on(whole, plant, trained, monkeypatch, port):
    with monkeypatch.context() as patched:
        fails_at(patched, "follow", 6, lambda: plant[0].signal(signal.SIGKILL))
        status, said = trained("run", at(plant[0]))
    assert status == 2
    assert said.startswith(f"gps: plant {plant[0].address}, episode ")
    assert said.endswith(": the connection was lost; run is saved: gps train --resume goes on\n")
    assert said.count("\n") == 1
    assert RunFolder.open("run").checkpoints.steps() == [2]
    plant[0].process.wait(30)
    plant.append(Process(port))
    assert trained("run", at(plant[1]), "--resume") == (0, "")
    assert_whole("run", whole)


def test_the_emergency_stop_at_the_plant_ends_the_run(whole, plant, trained, monkeypatch, port):
    with monkeypatch.context() as patched:
        fails_at(patched, "obey", 2, lambda: plant[0].signal(signal.SIGINT))
        status, said = trained("run", at(plant[0]))
    assert status == 2
    assert "it stopped: its emergency stop was pressed; run is saved" in said
    assert said.count("\n") == 1
    assert plant[0].said().endswith("emergency stop\n")
    plant[0].process.wait(30)
    plant.append(Process(port))
    assert trained("run", at(plant[1]), "--resume") == (0, "")
    assert_whole("run", whole)


def test_ctrl_c_at_the_trainer_stops_the_plant_which_serves_on(whole, plant, trained, monkeypatch):
    real, calls = RemotePlant.obey, []

    def interrupted(self, beginning, horizon, act):
        def counted(t, x, frame):
            calls.append(t)
            if len(calls) == 13:
                raise KeyboardInterrupt
            return act(t, x, frame)

        return real(self, beginning, horizon, counted)

    with monkeypatch.context() as patched:
        patched.setattr(RemotePlant, "obey", interrupted)
        status, said = trained("run", at(plant[0]))
    assert status == 2
    assert ": interrupted from the keyboard; run is saved: gps train --resume goes on" in said
    assert plant[0].line() == "stopped: interrupted from the keyboard"
    assert trained("run", at(plant[0]), "--resume") == (0, "")
    assert_whole("run", whole)


def test_a_learner_is_evaluated_on_the_plant(whole, plant, capsys):
    assert main(["evaluate", "whole", "--plant", plant[0].address, "--conditions", "3", "--seed", "4"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    loaded = load(RunFolder.open("whole"))
    task = loaded.task
    wanted = jax.jit(lambda c, key: evaluate(task, loaded.learner.policy, c, key))(
        task.test_contexts[:3], jax.random.key(4)
    )
    numbers = [float(number) for number in re.findall(r"[-+.\de]+(?= mean| median| worst)|(?<=cost )[-+.\de]+", line)]
    score = np.asarray(wanted.score)
    expected = [score.mean(), np.median(score), score.max(), np.mean(wanted.cost)]
    np.testing.assert_allclose(numbers, expected, rtol=2e-3)
    assert line.startswith("plant's  conditions (3): distance (cm) ")
    assert f"; solved {int(np.sum(wanted.solved))} of 3; " in line


def test_an_evaluation_on_a_plant_that_is_none_is_named(whole, capsys):
    for options, says in (
        (["--plant", "robot"], "evaluate: address must be one of ZeroMQ"),
        (["--plant", "tcp://127.0.0.1:9", "--conditions", "0"], "evaluate: conditions must be at least 1, not 0"),
    ):
        assert main(["evaluate", "whole", *options]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("guider", ["gpo-clip", "plato"])
def test_a_guider_without_controllers_is_refused(guider, capsys):
    assert main(["train", "reacher", "--guider", guider, "--set=run.plant.address=tcp://127.0.0.1:9"]) == 2
    assert f"a plant runs controllers, and '{guider}' has none to send; take a guider such as badmm" in (
        capsys.readouterr().err
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("address=robot", "run.plant: address must be one of ZeroMQ, such as tcp://robot:5555, not 'robot'"),
        ("timeout=0", "run.plant: timeout must be positive, not 0.0"),
    ],
)
def test_settings_that_are_none_are_named(setting, says, capsys):
    assert main(["train", "reacher", f"--set=run.plant.{setting}"]) == 2
    assert says in capsys.readouterr().err


def test_without_pyzmq_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zmq", None)
    monkeypatch.delitem(sys.modules, "dynamics.remote_plant")
    assert main(["train", "reacher", "--set=run.plant.address=tcp://127.0.0.1:9"]) == 2
    assert "pip install 'guided-policy-search[plant]'" in capsys.readouterr().err
