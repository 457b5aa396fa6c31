"""A teacher from another run: taken once and whole, or refused in words."""

from __future__ import annotations

import jax
import pytest
from support.guided import arm, rows_of, same, tables, trained

from gps.experiments.experiment import Experiment
from gps.guiders.guider import iterate
from gps.runs import train
from gps.runs.folder import RunFolder
from gps.runs.resume import load, resumed, shapes_of
from gps.runs.teacher import with_teacher
from gps.settings import SettingsError, override

pytestmark = pytest.mark.usefixtures("quick")


def begun(settings: dict):
    """A guider and its first state, the teacher in it."""
    experiment = Experiment.resolve(settings)
    guider = experiment.build()
    with_teacher(shapes_of(guider), experiment, guider)  # from shapes alone it finds the same errors
    return guider, with_teacher(guider.init(jax.random.key(9)), experiment, guider)


@pytest.mark.parametrize("guider", ["ppo-bc", "dagger"])
def test_a_teacher_is_taken_from_another_run(guider, tmp_path):
    """The teacher of ppo-bc is half of a shared network; it stays to the last bit while the learner is taught."""
    first = trained(tmp_path / "first", tables(guider, "tiger-door"))
    run = load(first)
    built, taught = run.guider, run.state
    assert built.networks.shared == (guider == "ppo-bc")
    student, state = begun(tables("dagger", "tiger-door", f'guider.teacher.run="{first.path}"'))
    start = state
    iteration = jax.jit(lambda state, key: iterate(student, state, key))
    for i in range(2):
        state, metrics = iteration(state, jax.random.key(i))
    assert same(state.params["guider"], taught.params["policy" if guider == "ppo-bc" else "guider"])
    assert same(state.normalizers["guider"], taught.normalizers["guider"])
    assert not same(state.params["learner"], start.params["learner"])
    assert float(metrics["kl_to_learner"]) > 0


def test_a_teacher_of_another_task_or_of_no_training_is_refused(monkeypatch, tmp_path):
    dear = trained(tmp_path / "dear", tables("ppo-bc", "tiger-door", "run.iterations=1", "task.listen_cost=0.4"))
    with pytest.raises(SettingsError, match=r"has task\.listen_cost = 0\.4, and this run has 0\.1: what the"):
        begun(tables("dagger", "tiger-door", f'guider.teacher.run="{dear.path}"'))

    # a run that was stopped while its teacher was trained
    short = ("run.iterations=3", "run.checkpoint_every=1")
    taught = tables("bc", "tiger-door", *short, "guider.ppo.updates=2", "guider.teacher.updates=4")
    folder = RunFolder.create(tmp_path / "early", Experiment.resolve(taught))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Progress, "update", stop)  # after the first iteration's checkpoint
    with pytest.raises(KeyboardInterrupt):
        train.train(folder, quiet=True)
    with pytest.raises(SettingsError, match="its teacher has had 2 of 4 updates: bring that run to its end"):
        begun(tables("dagger", "tiger-door", f'guider.teacher.run="{folder.path}"'))


def test_a_run_goes_on_where_its_teacher_is_gone(tmp_path):
    first = trained(tmp_path / "first", tables("ppo-bc", "tiger-door", "run.iterations=1"))
    settings = tables("dagger", "tiger-door", f'guider.teacher.run="{first.path}"', "run.iterations=1")
    student = trained(tmp_path / "student", settings)
    whole = trained(tmp_path / "whole", override(settings, ["run.iterations=2"]))
    first.path.rename(tmp_path / "elsewhere")
    train.train(resumed(student.path, Experiment.resolve(override(settings, ["run.iterations=2"]))), quiet=True)
    assert rows_of(student) == rows_of(whole)
    assert same(load(student).state, load(whole).state)


def test_a_teacher_is_found_from_another_folder_than_the_run_was_started_in(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = Experiment.resolve(tables("dagger", "tiger-door", "guider.teacher.run=runs/first")).guider.teacher.run
    assert found == str(tmp_path / "runs" / "first")


def test_a_teacher_that_does_not_fit_is_refused_in_words(tmp_path):
    alone = trained(tmp_path / "alone", tables("ppo", "tiger-door", "run.iterations=1"))
    alt = trained(tmp_path / "alt", tables("ppo-bc", "tiger-door-alt", "run.iterations=1"))
    naive = trained(tmp_path / "naive", tables("gpo-naive", "tiger-door", "run.iterations=1"))
    door = trained(tmp_path / "door", tables("ppo-bc", "tiger-door", "run.iterations=1"))
    arms = trained(tmp_path / "arms", arm("badmm", "run.iterations=1"))
    for folder, changes, message in (
        (arms, (), "badmm keeps no privileged policy"),
        (alone, (), "ppo keeps no privileged policy"),
        (alt, (), "its teacher has another task: tiger-door-alt, and this run has tiger-door"),
        (
            door,
            ("guider.learner.network.hidden=[9]",),
            r"its teacher has another network.hidden: \(8,\), and this run has \(9,\)",
        ),
        (naive, (), "gpo-naive keeps no privileged policy"),
    ):
        with pytest.raises(SettingsError, match=message):
            begun(tables("dagger", "tiger-door", f'guider.teacher.run="{folder.path}"', *changes))
    nowhere = tmp_path / "nowhere"
    with pytest.raises(SettingsError) as error:
        begun(tables("bc", "tiger-door", f'guider.teacher.run="{nowhere}"'))
    assert str(error.value) == f"guider.teacher.run = {nowhere}: {nowhere} is no run: there is no such folder"
