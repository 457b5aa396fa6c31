"""Settings of a run: defaults, names of one's own, and what is refused in words before anything is compiled."""

from __future__ import annotations

import dataclasses
import re

import pytest
from support.guided import MODEL_FREE, arm, build, tables, trained
from support.toys import Clock

from gps.entry import Entry
from gps.experiments.experiment import Experiment
from gps.experiments.lookup import TASKS
from gps.guiders.model_free.settings import TABLES
from gps.runs.resume import load
from gps.settings import SettingsError
from gps.tasks.doors.tiger import TigerDoorAltSettings


def test_every_guider_has_its_defaults_on_every_task_that_it_takes():
    for task, entry in TASKS.items():
        for table, own in entry.model_free["guider"].items():  # a key that no guider has would count for none
            assert set(own) <= {field.name for field in dataclasses.fields(TABLES[table])}
        for guider in MODEL_FREE:
            experiment = Experiment.resolve({"run": {"task": task, "guider": guider}})
            assert experiment == Experiment.resolve(experiment.to_dict())
    memory = Experiment.resolve({"run": {"task": "repeat-previous-easy", "guider": "gpo-clip"}}).guider
    assert (memory.networks.shared, memory.follow.weight, memory.learner.network.memory) == (False, 0.3, 64)
    doors = Experiment.resolve({"run": {"task": "tiger-door", "guider": "ppo"}})
    assert (doors.guider.ppo.environments, doors.run.iterations) == (128, 25)
    assert dataclasses.is_dataclass(doors.guider)
    rates = [
        Experiment.resolve({"run": {"task": "tiger-door", "guider": name}, **own}).guider.ppo.learning_rate
        for name, own in (
            ("gpo-clip", {}),
            ("gpo-naive", {}),
            ("gpo-naive", {"guider": {"ppo": {"learning_rate": 1.0}}}),
        )
    ]
    assert rates == [0.01, 0.003, 1.0]  # what a user sets comes last


# one's own, by "module:ENTRY"


def test_a_task_of_ones_own_is_trained_and_loaded_again(monkeypatch, quick, tmp_path):
    (tmp_path / "own_tasks.py").write_text(
        "from support.toys import Clock\nfrom gps.entry import Entry\n"
        "from gps.tasks.doors.tiger import TigerDoorSettings\n"
        "CLOCK = Entry(TigerDoorSettings(), lambda settings, name: Clock(ends=(0,), name=name), 'a toy')\n"
        "WRONG = Clock()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = trained(
        tmp_path / "run", tables("gpo-clip", "own_tasks:CLOCK", "task.listen_cost=0.3", "run.iterations=1")
    )
    run = load(folder)
    task = run.guider.task
    assert (task.name, task.ends, run.experiment.task.listen_cost) == ("own_tasks:CLOCK", (0,), 0.3)
    for name, message in (
        ("own_tasks:WRONG", "WRONG in own_tasks must be a gps.entry.Entry, not <support.toys.Clock"),
        ("own_tasks:", "must be a name of `gps list`, or module:ENTRY"),
        ("own_tasks:NONE", "module 'own_tasks' has no attribute 'NONE'"),
        ("no_such_tasks:CLOCK", "No module named 'no_such_tasks'; is the module's folder in PYTHONPATH?"),
    ):
        with pytest.raises(SettingsError, match=re.escape(message)):
            Experiment.resolve(tables("gpo-clip", name))


# refused before anything is compiled


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": {"task": "tiger-door", "guider": "badmm"}}, "tiger-door is not: take a model-free guider"),
        (tables("ppo", "tiger-door", "run.engine=mjx"), "tiger-door has physics of its own, or none"),
        (
            tables("gpo-clip", "tiger-door", "guider.learner.network.distribution=gaussian"),
            "whose actions are 3 choices: take 'categorical'",
        ),
        (
            arm("ppo", "guider.learner.network.distribution=categorical"),
            "whose actions are 2 numbers: take 'gaussian' or 'tanh-gaussian'",
        ),
        (
            tables("ppo", "tiger-door", "guider.ppo.minibatches=3"),
            "guider.ppo.minibatches = 3 does not divide the 16 sequences of an update (4 environments x 4 steps in "
            "sequences of 1): take one of 1, 2, 4, 8, 16",
        ),
        (
            tables("ppo", "tiger-door", "guider.learner.network.memory=4", "guider.ppo.minibatches=8"),
            "minibatches = 8 does not divide the 4 sequences",
        ),
        (
            tables("ppo", "tiger-door", "guider.learner.network.memory=4", "guider.ppo.window=3"),
            "guider.ppo.unroll = 4 is no multiple of guider.ppo.window = 3: take one of 1, 2, 4 for",
        ),
        (tables("ppo", "tiger-door", "guider.ppo.window=2"), "set guider.learner.network.memory, or take window = 0"),
        (
            tables("elf", "tiger-door", "guider.ppo.environments=3", "guider.ppo.minibatches=3"),
            "environments must be even for elf",
        ),
        (tables("ppo", "tiger-door", "guider.region.size=0.2"), "region"),
        (tables("dagger", "tiger-door", "guider.imitation.shared=true"), "shared"),
        (tables("gpo-naive", "tiger-door", "guider.penalty.target=0.1"), "penalty"),
        (tables("gpo-clip", "tiger-door", "guider.region.size=1.5"), "between 0 and 1 for form = 'delta', not 1.5"),
        (tables("gpo-clip", "tiger-door", "guider.region.form=ratio", "guider.region.size=0.5"), "above 1 for form"),
        (tables("gpo-penalty", "tiger-door", "guider.penalty.start=20"), "start must be at most largest = 10.0"),
        (tables("ppo", "tiger-door", "guider.ppo.discount=1.5"), "discount must be from 0 to 1, not 1.5"),
        (tables("ppo", "tiger-door", "guider.ppo.epochs=0"), "epochs must be at least 1"),
        (tables("ppo", "tiger-door", "guider.learner.network.activation=thanh"), "did you mean 'tanh'"),
        (tables("ppo-bc", "tiger-door", "guider.imitation.kl=backward"), "kl"),
        (
            tables("ppo", "tiger-door", "guider.learner.network.hidden=[]"),
            "hidden must name at least one positive width",
        ),
        (
            tables("elf", "tiger-door", "guider.teacher.updates=8"),
            "leave the learner none of 4 iterations of 2 updates",
        ),
    ],
)
def test_settings_that_are_impossible_are_refused_in_words(settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)) as error:
        build(settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("guider", [name for name in MODEL_FREE if name != "ppo"])
def test_a_guider_that_would_see_nothing_more_than_the_learner_is_refused(guider, monkeypatch):
    blind = Clock()
    blind.privileged_size = 0
    monkeypatch.setitem(TASKS, "blind", Entry(TigerDoorAltSettings(), lambda *_: blind, "a toy"))
    with pytest.raises(SettingsError, match=r"needs a privileged observation, which clock has not: take 'ppo'"):
        build(tables(guider, "blind"))
    assert build(tables("ppo", "blind")).networks.privileged == 0
