"""The end of a run: its last evaluation, its figures and its summary."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from dynamics.simulator import resolve_engine
from gps.experiments.experiment import Experiment
from gps.guiders.guider import Guider
from gps.runs import integrity
from gps.runs.evaluate import Episodes, Evaluation
from gps.runs.folder import RunFolder, iteration_seconds
from gps.runs.programs import Programs
from gps.tasks.task import ControlTask, Environment

SCORES = (
    "learner_return",
    "learner_return_sampled",
    "test_distance_mean",
    "test_distance_max",
    "train_distance_mean",
)
COUNTED = ("diverged_samples", "failed_solves", "failed_fits", "failed_updates")
VERSIONS = ("jax", "jaxlib", "mujoco", "mujoco-mjx", "flax", "optax", "numpy")


def finish(folder: RunFolder, experiment: Experiment, programs: Programs, guider: Guider, state: Any, clock) -> dict:
    """Draw the figures and write the summary of a run that has all its iterations."""
    draw(folder, guider.task, final_evaluation(experiment, programs, guider, state))
    rows = folder.read_metrics()
    counted = {name: sum(row[name] or 0 for row in rows) for name in COUNTED if name in rows[-1]}
    summary = {
        **{name: rows[-1][name] for name in SCORES if name in rows[-1]},
        "env_steps": rows[-1]["steps"],
        "iterations": len(rows),
        "wall_seconds": clock(),
        "seconds_per_iteration": float(np.median(iteration_seconds(rows))),
        **({"engine": resolve_engine(experiment.run.engine)} if experiment.simulated else {}),
        "seed": experiment.run.seed,
        **counted,
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }
    folder.write_summary(summary)
    return summary


def final_evaluation(experiment: Experiment, programs: Programs, guider: Guider, state: Any) -> Evaluation | Episodes:
    """The evaluation that the last row of a run's metrics reports."""
    key = jax.random.fold_in(jax.random.key(experiment.run.seed), 1)
    return programs.evaluate(guider.policy(state), key)


def draw(folder: RunFolder, task: Environment, evaluation: Evaluation | Episodes) -> list[Path]:
    """Write a run's figures.

    Errors:
        RunError where rows of its metrics or all its checkpoints were lost, CheckpointError where none is whole.
    """
    from gps.figures import (
        returns as plot_returns,  # matplotlib takes 2 s to import, and only the end of a run needs it
    )
    from gps.figures import run as plot

    integrity.check(folder, folder.checkpoints.newest())
    rows = folder.read_metrics()
    drawn = plot_returns.returns(rows, folder.figures / "returns")
    if not isinstance(evaluation, Evaluation):
        return drawn
    control = cast(ControlTask, task)
    count = len(control.train_contexts)
    skeletons = jax.jit(jax.vmap(jax.vmap(control.skeleton)))(evaluation.xs[count:])
    return drawn + plot.draw_all(
        rows,
        np.asarray(skeletons),
        np.asarray(control.test_contexts),
        np.asarray(evaluation.distance[count:]),
        np.asarray(control.train_contexts),
        control.dt,
        folder.figures,
    )
