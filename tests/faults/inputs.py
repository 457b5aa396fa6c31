"""Command lines and settings that nobody means, and a task whose numbers are none."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults.harness import TRAIN, Killed, Trial
from support.toys import Clock

from gps.entry import Entry
from gps.experiments.experiment import Experiment
from gps.experiments.lookup import TASKS
from gps.runs.folder import RunFolder
from gps.runs.resume import load
from gps.settings import flat
from gps.tasks.doors.tiger import TigerDoorAltSettings

# Settings.

PLACES = (
    *(("tiger-door", guider) for guider in ("ppo", "gpo-clip", "gpo-penalty", "dagger", "advisor-co")),
    *((task, "ppo") for task in ("tiger-door-alt", "autoencode-easy", "battleship-easy", "repeat-previous-easy")),
    *(("pendulum", guider) for guider in ("badmm", "mdgps", "pi2", "plato")),
)
VALUES = (
    *("nan", "inf", "-inf", "1e400", "-1", "0", "1e300", "1e-320", "0.5", "3", "true", "[]", "{}", "''", "[1, [2]]"),
    *("9" * 20, str(2**31), str(10**9), str(2**63), "1" * 5000, "[" * 3000, "a" * 100_000, "{a = " * 2000, "[1e9]"),
    *("[1000000000]", "2020-01-01", "\x1b[2J\x07", "a\nb = 1", "'''", "../../outside", "/dev/zero", "\udcff", "\x00"),
    *("hostile_module:ENTRY", "os:system", ":", "os:", "no_such_module:X", "ppo", "auto", "mjx", "\u202eevil"),
)


class Reached(Killed):
    """A command line that is taken: what it would train is not the question."""


def setting(trial: Trial) -> str:
    """Any value for any setting of any task and guider: taken, or refused in a line that names the setting."""
    rng = trial.rng
    task, guider = rng.choice(PLACES)
    name, value = rng.choice(settings_of(task, guider)), rng.choice(VALUES)
    if rng.random() < 0.1:
        name = rng.choice([f"{name}.x", name[1:], name.upper(), "", ".", "run", "task", f"{name[:-1]}\x1b"])
    return set_one(trial, task, guider, name, value)


@functools.cache
def settings_of(task: str, guider: str) -> list[str]:
    """Their dotted names."""
    return sorted(flat(Experiment.resolve({"run": {"task": task, "guider": guider}}).to_dict()))


def set_one(trial: Trial, task: str, guider: str, name: str, value: str) -> str:
    """Train with one setting that is given as text."""
    arguments = ["train", task, "--guider", guider, f"--set={name}={value}", "--out", "new"]
    names = (name.split(".")[-1].split("\x1b")[0], "setting", "can not be read", "cannot read")
    return taken_or_named(trial, arguments, names)


# Command lines.

WORDS = (
    *("train", "evaluate", "plot", "list", "compare", "check-task", "tiger-door", "ppo", "run", "other", "outside"),
    *("--guider", "--seed", "--set", "--out", "--resume", "--iterations", "--step", "--best", "--noise", "--runs"),
    *("--settings", "--guiders", "--seeds", "--set-for", "--trust", "--allow-older", "--engine", "--threshold"),
    *("0", "-1", "3", "1e9", "nan", "1" * 5000, "a" * 5000, "a/" * 3000, "", " ", "\x1b[2J", "run.seed=3", "task.x=1"),
    *("--help", "--", "-", "=", "\udcff", "victim.txt", "run/config.toml", "1000000000", "x=y", "os:path"),
)


def command_line(trial: Trial) -> str:
    """Words in any order: a command that is taken, or a line that says why not; nothing outside changes."""
    command = trial.rng.choice(WORDS[:6])
    arguments = [command, *trial.rng.choices(WORDS, k=trial.rng.randint(0, 7))]
    return taken_or_named(trial, arguments, ())


def taken_or_named(trial: Trial, arguments: list[str], names: tuple[str, ...]) -> str:
    """A command that would train or compare, or says in a line, with one of the names, why not."""

    def reached(*_, **__):
        raise Reached

    before = trial.outside()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gps.runs.train.train", reached)
        patch.setattr("gps.comparisons.compare.train", reached)
        try:
            answer = trial.command(*arguments)
        except Reached:
            result = "same"
        else:
            usage = answer.err.startswith("usage: ") and ": error: " in answer.line
            result = "error" if usage else trial.expect(answer, names, lambda: True)
    after = trial.outside()
    if {name: after.get(name) for name in before} != before:
        raise trial.violation("something that is there has changed")
    return result


# Numbers.

BAD = (np.nan, np.inf, -np.inf, 1e30, -1e38, 3e6)


class Poisoned(Clock):
    """A clock that gives, at random, what is no number: in an observation, also the first, or in a reward."""

    def __init__(self, share: float, name: str):
        super().__init__(name=name)
        self.share = share

    def reset(self, key):
        drawing, rest = jax.random.split(key)
        return self._poison(super().reset(rest), drawing, rewards=False)

    def step(self, state, action):
        drawing, rest = jax.random.split(state.data["key"])
        state = dataclasses.replace(state, data={**state.data, "key": rest})
        return self._poison(super().step(state, action), drawing, rewards=True)

    def _poison(self, state, key, *, rewards: bool):
        first, second, third = jax.random.split(key, 3)
        value = jnp.asarray(BAD)[jax.random.randint(first, (), 0, len(BAD))]
        place = jnp.where(jax.random.uniform(second) < self.share, jax.random.randint(third, (), 0, 2 + rewards), -1)
        names = ("state", "privileged_state")
        obs = {name: jnp.where(place == i, value, state.obs[name]) for i, name in enumerate(names)}
        reward = jnp.where(place == len(names), value, state.reward)
        return dataclasses.replace(state, obs=obs, reward=reward)


SHARES = {"poisoned-seldom": 0.03, "poisoned-often": 0.6}


def numbers(trial: Trial) -> str:
    """What such a task gives stays out of the run, which counts it, or stops where it is too much."""
    name = trial.rng.choice(sorted(SHARES))
    with pytest.MonkeyPatch.context() as patch:
        for task in SHARES:
            patch.setitem(TASKS, task, Entry(TigerDoorAltSettings(), lambda _, task: Poisoned(SHARES[task], task)))
        arguments = [{"tiger-door": name, "run": "new"}.get(argument, argument) for argument in TRAIN]
        answer = trial.command(*arguments, "--seed", str(trial.rng.randrange(2**32)))
        result = trial.expect(answer, ("environment",), lambda: True)
        if (result == "error") != (name == "poisoned-often"):
            raise trial.violation(f"{name} ends with {result}")
        run = load(RunFolder.open(trial.path / "new"))
    normalizer = run.state.normalizers["learner"]
    kept = jax.tree.leaves((run.state.params, run.state.optimizer_state, run.state.normalizers, run.best.params))
    if not all(np.isfinite(leaf).all() for leaf in kept):
        raise trial.violation("the run holds what is not finite")
    if not (np.abs(normalizer.mean) < 10).all() or not (np.asarray(normalizer.scale) < 10).all():
        raise trial.violation(f"its statistics are {normalizer}")
    return result


INPUTS = (setting, command_line, numbers)
