"""Every guider by name: one contract, runs with their checkpoints, what is learned, and what is refused in words."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toys import Clock

from gps.experiments.experiment import Experiment
from gps.experiments.lookup import GUIDERS, TASKS, Entry
from gps.guiders.guider import iterate
from gps.guiders.model_free.settings import DEFAULTS
from gps.runs import finish, train
from gps.runs.folder import RunFolder
from gps.runs.programs import Programs
from gps.runs.resume import load, resumed
from gps.settings import SettingsError, override, write_toml
from gps.tasks.doors.tiger import TigerDoorAltSettings

MODEL_FREE = sorted(DEFAULTS)
MODEL_BASED = sorted(set(GUIDERS) - set(DEFAULTS))
TINY = {
    "learner": {"network": {"hidden": [8]}},
    "ppo": {"environments": 4, "unroll": 4, "updates": 2, "epochs": 2, "minibatches": 2, "learning_rate": 0.03},
    "teacher": {"updates": 3},
}
ARM = {
    "run": {"task": "reacher", "engine": "mujoco", "iterations": 2},
    "task": {"horizon": 12, "train_targets": 3, "test_targets": 4},
}


def tables(guider: str, task: str = "tiger-door", *changes: str) -> dict:
    """Settings of a tiny run; of `TINY`, the tables that the guider has."""
    known = {name: table for name, table in TINY.items() if hasattr(GUIDERS[guider].defaults, name)}
    return override({"run": {"task": task, "guider": guider, "iterations": 4}, "guider": known}, changes)


def arm(guider: str, *changes: str) -> dict:
    """Likewise on the arm, which the C engine simulates."""
    own = {"ppo": {"environments": 16, "unroll": 12, "updates": 6}}
    if guider in MODEL_BASED:
        own = {"samples": 3, "learner": {"hidden": [8], "training": {"updates": 6, "batch_size": 16}}}
    return override({**ARM, "run": {**ARM["run"], "guider": guider}, "guider": own}, changes)


def build(settings: dict):
    return Experiment.resolve(settings).build()


def same(one, other) -> bool:
    """To the last bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.fixture
def quick(shared_programs, monkeypatch):
    """Nothing is drawn, and nothing compiled twice."""
    monkeypatch.setattr(finish, "draw", lambda *_: [])
    return shared_programs


# the contract


def learned(guider, state) -> np.ndarray:
    """What the learner does about a few observations, with the same noise each time."""
    policy, task = guider.policy(state), guider.task
    observations = jax.random.uniform(jax.random.key(3), (64, task.observation_size))
    noises = policy.noise(jax.random.key(4), (64,))
    act = jax.vmap(lambda o, noise: policy.act(policy.start_memory(), o, noise)[1])
    return np.asarray(jax.jit(act)(observations, noises))


@pytest.mark.parametrize(
    ("name", "task"),
    [*((name, "tiger-door") for name in MODEL_FREE), *((name, "reacher") for name in (*MODEL_BASED, "gpo-clip"))],
)
def test_guider_contract(name, task):
    guider = build(arm(name) if task == "reacher" else tables(name))
    programs = Programs(guider)
    state = start = jax.jit(guider.init)(jax.random.key(0))
    rows, states = [], []
    for i in range(3):
        state, metrics = programs.iterate(state, jax.random.key(1 + i))
        rows.append(metrics)
        states.append(state)

    assert guider.name == name
    steps = 2 * 4 * 4 if task == "tiger-door" else 6 * 16 * 12  # updates x environments x unroll
    steps = 3 * 3 * 12 if name in MODEL_BASED else steps  # targets x samples x horizon
    assert guider.steps_per_iteration == steps
    # on the device an iteration is one program, with the C engine two; compiled once
    assert guider.fused == (task == "tiger-door")
    sizes = [program._cache_size() for program in (programs.whole, programs.collect, programs.update)]
    assert sizes == ([1, 0, 0] if guider.fused else [0, 1, 1])
    # what an iteration hands to the next has the shapes and types that it was handed, and is sound
    for first, last in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        assert (first.shape, first.dtype) == (last.shape, last.dtype)
        assert np.isfinite(last).all()
    # pure: the same state and key give the same bits, another key others
    assert same(programs.iterate(start, jax.random.key(1))[0], states[0])
    assert not same(programs.iterate(start, jax.random.key(11))[0], states[0])
    # the learner was taught
    assert not np.array_equal(learned(guider, start), learned(guider, state))
    # metrics: flat, a scalar or one number per condition, the same in every iteration
    assert all(jnp.shape(value) in ((), (3,)) for value in rows[-1].values())
    assert list(rows[0]) == list(rows[-1])
    assert {"diverged_samples", "failed_fits" if name in MODEL_BASED else "failed_updates"} <= set(rows[0])


# runs


@pytest.fixture
def clock(monkeypatch):
    """The toy, whose state holds a random key, as a task by name."""
    monkeypatch.setitem(TASKS, "clock", Entry(TigerDoorAltSettings(), lambda *_: Clock(), "a toy"))


def run(path, settings: dict) -> RunFolder:
    folder = RunFolder.create(path, Experiment.resolve(settings))
    train.train(folder, quiet=True)
    return folder


def rows_of(folder: RunFolder) -> list[dict]:
    times = ("seconds", "iteration_seconds", "compiles")
    return [{name: value for name, value in row.items() if name not in times} for row in folder.read_metrics()]


@pytest.mark.parametrize(
    ("guider", "task", "changes"),
    [
        ("gpo-clip", "tiger-door", ()),
        ("dagger", "clock", ("guider.learner.network.memory=3",)),  # the teacher's stage ends between two checkpoints
    ],
)
def test_a_run_that_goes_on_ends_at_the_same_bits(guider, task, changes, quick, clock, tmp_path):
    settings = tables(guider, task, "run.checkpoint_every=2", *changes)
    whole = run(tmp_path / "whole", settings)
    part = run(tmp_path / "part", override(settings, ["run.iterations=2"]))
    write_toml(part.path / "config.toml", Experiment.resolve(settings).to_dict())
    part = RunFolder.open(part.path)
    train.train(part, quiet=True)
    assert same(load(part)[2], load(whole)[2])
    assert rows_of(part) == rows_of(whole)
    assert [row["steps"] for row in rows_of(whole)] == [32, 64, 96, 128]
    assert whole.read_summary()["learner_return"] == rows_of(whole)[-1]["learner_return"]
    key = jax.random.fold_in(jax.random.key(0), 1)
    experiment, built, state = load(whole)
    evaluated = quick(built).evaluate(built.policy(state), key).scores(built.task)
    assert evaluated["learner_return"] == pytest.approx(rows_of(whole)[-1]["learner_return"], rel=1e-5)
    assert experiment.run.guider == guider


@pytest.mark.parametrize("guider", ["ppo-bc", "dagger"])
def test_a_teacher_is_taken_from_another_run(guider, quick, tmp_path):
    """The teacher of ppo-bc is half of a shared network; it stays to the last bit while the learner is taught."""
    first = run(tmp_path / "first", tables(guider, "tiger-door"))
    _, built, taught = load(first)
    assert built.roles.shared == (guider == "ppo-bc")
    student = build(tables("dagger", "tiger-door", f'guider.teacher.run="{first.path}"'))
    state = start = student.init(jax.random.key(9))
    iteration = jax.jit(lambda state, key: iterate(student, state, key))
    for i in range(2):
        state, metrics = iteration(state, jax.random.key(i))
    assert same(state.params["guider"], taught.params["policy" if guider == "ppo-bc" else "guider"])
    assert same(state.normalizers["guider"], taught.normalizers["guider"])
    assert not same(state.params["learner"], start.params["learner"])
    assert float(metrics["kl_to_learner"]) > 0
    # guiders of the same state are the same policy: that of the teacher on what the teacher sees
    obs = {"state": jnp.eye(3)[None, :2], "privileged_state": jnp.eye(2)[None]}
    outputs = []
    for one, found in ((built, taught), (student, state)):
        seen = one.roles.normalized(found.normalizers, obs)
        outputs.append(one.roles.act(found.params, "guider", jnp.zeros((2, 0)), seen, jnp.zeros((1, 2), bool))[1])
    np.testing.assert_array_equal(*outputs)


def test_a_teacher_of_another_task_or_of_no_training_is_refused(monkeypatch, quick, tmp_path):
    dear = run(tmp_path / "dear", tables("ppo-bc", "tiger-door", "run.iterations=1", "task.listen_cost=0.4"))
    with pytest.raises(SettingsError, match=r"has task\.listen_cost = 0\.4, and this run has 0\.1: what the"):
        build(tables("dagger", "tiger-door", f'guider.teacher.run="{dear.path}"'))

    # a run that was stopped while its teacher was trained
    short = ("run.iterations=3", "run.checkpoint_every=1")
    taught = tables("bc", "tiger-door", *short, "guider.ppo.updates=2", "guider.teacher.updates=4")
    folder = RunFolder.create(tmp_path / "early", Experiment.resolve(taught))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Progress, "update", stop)  # after the first iteration's checkpoint
    with pytest.raises(KeyboardInterrupt):
        train.train(folder, quiet=True)
    with pytest.raises(SettingsError, match="has had 2 of the 4 updates of its teacher: bring that run to its end"):
        build(tables("dagger", "tiger-door", f'guider.teacher.run="{folder.path}"'))


def test_a_run_goes_on_where_its_teacher_is_gone(quick, tmp_path):
    first = run(tmp_path / "first", tables("ppo-bc", "tiger-door", "run.iterations=1"))
    settings = tables("dagger", "tiger-door", f'guider.teacher.run="{first.path}"', "run.iterations=1")
    student = run(tmp_path / "student", settings)
    whole = run(tmp_path / "whole", override(settings, ["run.iterations=2"]))
    first.path.rename(tmp_path / "elsewhere")
    train.train(resumed(student.path, override(settings, ["run.iterations=2"])), quiet=True)
    assert rows_of(student) == rows_of(whole)
    assert same(load(student)[2], load(whole)[2])


def test_a_teacher_is_found_from_another_folder_than_the_run_was_started_in(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = Experiment.resolve(tables("dagger", "tiger-door", "guider.teacher.run=runs/first")).guider.teacher.run
    assert found == str(tmp_path / "runs" / "first")


def test_a_teacher_that_does_not_fit_is_refused_in_words(quick, tmp_path):
    alone = run(tmp_path / "alone", tables("ppo", "tiger-door", "run.iterations=1"))
    alt = run(tmp_path / "alt", tables("ppo-bc", "tiger-door-alt", "run.iterations=1"))
    naive = run(tmp_path / "naive", tables("gpo-naive", "tiger-door", "run.iterations=1"))
    door = run(tmp_path / "door", tables("ppo-bc", "tiger-door", "run.iterations=1"))
    for folder, changes, message in (
        (alone, (), "is a run of ppo, which keeps no privileged policy"),
        (alt, (), "has another task: tiger-door-alt, and this run has tiger-door"),
        (door, ("guider.learner.network.hidden=[9]",), "has another network"),
        (naive, (), "is a run of gpo-naive, which keeps no privileged policy"),
    ):
        with pytest.raises(SettingsError, match=message):
            build(tables("dagger", "tiger-door", f'guider.teacher.run="{folder.path}"', *changes))
    with pytest.raises(Exception, match=re.escape(str(tmp_path / "nowhere"))) as error:
        build(tables("bc", "tiger-door", f'guider.teacher.run="{tmp_path / "nowhere"}"'))
    assert "there is no such folder" in str(error.value)


# what is learned, with the settings that gps train takes on this task


def sampled_return(guider: str, iterations: int, *changes: str) -> float:
    """Of drawn actions at the end of a training on tiger-door-alt."""
    run = {"run": {"task": "tiger-door-alt", "guider": guider}, "guider": {"learner": {"network": {"hidden": [16]}}}}
    built = build(override(run, ["guider.ppo.environments=64", "guider.ppo.updates=20", *changes]))
    programs = Programs(built)
    state = built.init(jax.random.key(1))
    for i in range(iterations):
        state, _ = programs.iterate(state, jax.random.key(100 + i))
    return programs.evaluate(built.policy(state), jax.random.key(5)).scores(built.task)["learner_return_sampled"]


@pytest.mark.parametrize(
    ("guider", "iterations", "low", "high"),
    [
        ("ppo", 8, 0.93, 1.07),
        ("gpo-naive", 8, 0.93, 1.07),
        ("gpo-penalty", 8, 0.93, 1.07),
        ("gpo-clip", 8, 0.93, 1.07),
        ("gpo-clip-supervised", 16, 0.93, 1.07),  # without a policy gradient of its own
        ("gpo-ablation", 8, 0.93, 1.07),
        ("ppo-bc", 8, 0.6, 0.9),
    ],
)
def test_the_doors_are_learned_and_imitation_of_the_best_guider_is_not_enough(guider, iterations, low, high):
    """4096 episodes: the deviation of their mean is 0.016 at most."""
    assert low <= sampled_return(guider, iterations) <= high


def test_the_arm_is_learned_through_the_c_engine(quick):
    guider = build(arm("gpo-clip"))
    programs, state = quick(guider), guider.init(jax.random.key(0))

    def scores():
        return programs.evaluate(guider.policy(state), jax.random.key(9)).scores(guider.task)

    before = scores()
    for i in range(4):
        state, _ = programs.iterate(state, jax.random.key(i))
    after = scores()
    assert after["train_cost_mean"] < 0.85 * before["train_cost_mean"]
    assert 0 < after["train_distance_mean"] < before["train_distance_mean"] < 0.42  # m, the arm's two lengths


# one's own, by "module:ENTRY"


def test_a_task_of_ones_own_is_trained_and_loaded_again(monkeypatch, quick, tmp_path):
    (tmp_path / "own_tasks.py").write_text(
        "from support.toys import Clock\nfrom gps.experiments.lookup import Entry\n"
        "from gps.tasks.doors.tiger import TigerDoorSettings\n"
        "CLOCK = Entry(TigerDoorSettings(), lambda settings, name: Clock(ends=(0,), name=name), 'a toy')\n"
        "WRONG = Clock()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = run(tmp_path / "run", tables("gpo-clip", "own_tasks:CLOCK", "task.listen_cost=0.3", "run.iterations=1"))
    experiment, guider, _ = load(folder)
    assert (guider.task.name, guider.task.ends, experiment.task.listen_cost) == ("own_tasks:CLOCK", (0,), 0.3)
    for name, message in (
        ("own_tasks:WRONG", "WRONG in own_tasks must be an `Entry` of gps.experiments.lookup, not <support.toys.Clock"),
        ("own_tasks:", "must be a name of `gps list`, or module:ENTRY"),
        ("own_tasks:NONE", "NONE in own_tasks must be a gps.experiments.lookup.Entry, not None"),
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
    assert build(tables("ppo", "blind")).roles.privileged == 0


def test_every_guider_has_its_defaults_on_every_task_that_it_takes():
    """`gps list` shows them: no preset of a task names a table that the guider does not have."""
    for task in TASKS:
        for guider in MODEL_FREE:
            experiment = Experiment.resolve({"run": {"task": task, "guider": guider}})
            assert experiment == Experiment.resolve(experiment.to_dict())
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
