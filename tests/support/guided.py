"""Tiny runs of every guider: on a task without physics, and on an arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from gps.experiments.experiment import Experiment
from gps.experiments.lookup import GUIDERS
from gps.guiders.model_free.methods import METHODS
from gps.runs import train
from gps.runs.folder import RunFolder
from gps.runs.resume import load
from gps.settings import override

MODEL_FREE = sorted(METHODS)
MODEL_BASED = sorted(set(GUIDERS) - set(METHODS))
TINY = {
    "learner": {"network": {"hidden": [8]}},
    "ppo": {"environments": 4, "unroll": 4, "updates": 2, "epochs": 2, "minibatches": 2, "learning_rate": 0.03},
    "teacher": {"updates": 3},
}
ARM = {
    "run": {"task": "reacher", "engine": "mujoco", "iterations": 2},
    "task": {"horizon": 12, "train_targets": 3, "test_targets": 4},
}


def tables(guider: str, task: str = "tiger-door", *changes: str) -> dict[str, Any]:
    """Settings of a tiny run of a model-free guider; of `TINY`, the tables that the guider has."""
    known = {name: table for name, table in TINY.items() if name in ("learner", "ppo", *METHODS[guider].tables)}
    return override({"run": {"task": task, "guider": guider, "iterations": 4}, "guider": known}, changes)


def arm(guider: str, *changes: str) -> dict[str, Any]:
    """Likewise of any guider on the arm, which the C engine simulates."""
    own: dict[str, Any] = {"ppo": {"environments": 16, "unroll": 12, "updates": 6}}
    if guider in MODEL_BASED:
        training = {"updates": 6, "batch_size": 16}
        own = {"sampling": {"samples": 3}, "learner": {"network": {"hidden": [8]}, "training": training}}
        if guider == "plato":
            own["start"] = {"controller": "zero"}  # plans take long to compile
    return override({**ARM, "run": {**ARM["run"], "guider": guider}, "guider": own}, changes)


def build(settings: dict[str, Any]) -> Any:
    """The guider."""
    return Experiment.resolve(settings).build()


def trained(path: Path, settings: dict[str, Any]) -> RunFolder:
    """A run that has come to its end."""
    folder = RunFolder.create(path, Experiment.resolve(settings))
    train.train(folder, quiet=True)
    return folder


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    """A run's metrics, but for the times."""
    times = ("seconds", "iteration_seconds", "compiles")
    return [{name: value for name, value in row.items() if name not in times} for row in folder.metrics.rows()]


def same(one: Any, other: Any) -> bool:
    """Whether two pytrees are equal to the last bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


LONG = ("run.iterations=8", "run.checkpoint_every=2", "run.evaluate_every=8")  # changes of the tiny experiment


def state_of(folder: RunFolder) -> dict[str, np.ndarray]:
    """The leaves of a run's last state by name."""
    state = load(folder).state
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def assert_same_run(folder: RunFolder, other: RunFolder) -> None:
    """To the last bit, but for the times."""
    state, wanted = state_of(folder), state_of(other)
    assert list(state) == list(wanted)
    differing = [name for name in wanted if state[name].tobytes() != wanted[name].tobytes()]
    assert not differing
    assert rows_of(folder) == rows_of(other)
    times = ("wall_seconds", "seconds_per_iteration")
    summary, expected = folder.read_summary(), other.read_summary()
    assert list(summary) == list(expected)
    assert [name for name in expected if summary[name] != expected[name] and name not in times] == []
