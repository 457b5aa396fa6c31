"""The training loop that drives any guider, and its run folder."""

from __future__ import annotations

import functools
import io
import os
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynamics.simulator import resolve_engine
from gps.evaluate import Evaluation, evaluate
from gps.experiment import Experiment
from gps.guider import DivergedError, Guider, update
from gps.log import Progress
from gps.run import RunError, RunFolder
from gps.tasks.task import ControlTask

VERSIONS = ("jax", "jaxlib", "mujoco", "mujoco-mjx", "flax", "optax", "numpy")


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    if not jax.config.jax_compilation_cache_dir:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "guided-policy-search"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


class Programs:
    """A guider's compiled programs; built once, called in every iteration."""

    def __init__(self, guider: Guider):
        task = guider.task
        self.contexts = jnp.concatenate([task.train_contexts, task.test_contexts])
        self.collect = jax.jit(guider.collect)
        self.update = jax.jit(functools.partial(update, guider))
        self._evaluate = jax.jit(functools.partial(evaluate, task))

    def evaluate(self, policy: Any, key: Any) -> Evaluation:
        """The learner on all training targets, then on all test targets."""
        return self._evaluate(policy, self.contexts, key)


def train(folder: RunFolder, *, quiet: bool = False, started: float | None = None) -> dict[str, Any]:
    """Run a folder's experiment from its last whole checkpoint, or from the start, to its end.

    Args:
        folder: made by `RunFolder.create` with `Experiment.to_dict()`, or opened.
        quiet: show no progress.
        started: seconds since the epoch that the run's wall time counts from; now by default. A script that
            does nothing else passes `gps.STARTED`, so that imports are counted.

    Returns:
        The summary, as in summary.json.

    Errors:
        DivergedError when a condition lost all its samples (a checkpoint is saved first), CheckpointError when
        there are checkpoints but none is whole.
    """
    use_compilation_cache()
    experiment = Experiment.resolve(folder.settings)
    guider, run = experiment.build(), experiment.run
    programs = Programs(guider)
    root = jax.random.key(run.seed)
    beginning, evaluating, iterating = (jax.random.fold_in(root, i) for i in range(3))

    # by shapes: a state restored in the likeness of arrays is bound to their device and compiles everything anew
    restored = folder.checkpoints.restore(jax.eval_shape(guider.init, beginning))
    if restored:
        first, state, spent = restored.step, restored.state, restored.meta["seconds"]
    else:
        first, state, spent = 0, jax.jit(guider.init)(beginning), 0.0
    folder.rewind_metrics(first)

    began_at = time.time() if started is None else started

    def clock() -> float:
        return spent + time.time() - began_at

    title = f"{run.task} by {run.guider}, seed {run.seed}, engine {resolve_engine(run.engine)}"
    with Progress(run.iterations, title, stream=io.StringIO() if quiet else None, done=first) as progress:
        if restored:
            for damage in restored.skipped:
                progress.note(f"damaged checkpoint passed over: {damage.path}: {damage.reason}")
            progress.note(f"resumed after iteration {first} of {run.iterations}")
        for i in range(first, run.iterations):
            collecting, updating = jax.random.split(jax.random.fold_in(iterating, i))
            began = time.perf_counter()
            samples = programs.collect(state, collecting)
            _check(guider, samples, folder, i, state, clock)
            state, metrics = jax.block_until_ready(programs.update(state, samples, updating))
            row = {"iteration": i, "steps": (i + 1) * guider.steps_per_iteration}
            row |= {"iteration_seconds": time.perf_counter() - began, **jax.device_get(metrics)}
            last = i + 1 == run.iterations
            if last or (i + 1) % run.evaluate_every == 0:
                row |= scores(guider.task, programs.evaluate(guider.policy(state), evaluating))
            row["seconds"] = clock()
            # metrics before the checkpoint: a kill between the two repeats the iteration, and loses no row
            folder.append_metrics(row)
            if last or (i + 1) % run.checkpoint_every == 0:
                folder.checkpoints.save(i + 1, state, {"seconds": clock()})
            progress.update(shown(row))
    return finish(folder, experiment, programs, guider, state, clock)


def _check(guider: Guider, samples: Any, folder: RunFolder, i: int, state: Any, clock: Callable[[], float]) -> None:
    """Let the guider look at its samples; where it cannot go on, the state that it had is saved first."""
    try:
        guider.check(samples)
    except DivergedError:
        if i not in folder.checkpoints.steps():
            folder.checkpoints.save(i, state, {"seconds": clock()})
        raise


def finish(folder: RunFolder, experiment: Experiment, programs: Programs, guider: Guider, state: Any, clock) -> dict:
    """Draw the figures and write the summary of a run that has all its iterations."""
    draw(folder, guider.task, final_evaluation(experiment, programs, guider, state))
    rows = folder.read_metrics()
    compiled = [row["iteration_seconds"] for row in rows[1:]] or [rows[-1]["iteration_seconds"]]
    counted = {
        name: sum(row.get(name) or 0 for row in rows) for name in ("diverged_samples", "failed_solves", "failed_fits")
    }
    summary = {
        **{name: rows[-1][name] for name in ("test_distance_mean", "test_distance_max", "train_distance_mean")},
        "env_steps": rows[-1]["steps"],
        "iterations": len(rows),
        "wall_seconds": clock(),
        "seconds_per_iteration": float(np.median(compiled)),
        "engine": resolve_engine(experiment.run.engine),
        "seed": experiment.run.seed,
        **counted,
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }
    folder.write_summary(summary)
    return summary


def final_evaluation(experiment: Experiment, programs: Programs, guider: Guider, state: Any) -> Evaluation:
    """The evaluation that the last row of a run's metrics reports."""
    key = jax.random.fold_in(jax.random.key(experiment.run.seed), 1)
    return programs.evaluate(guider.policy(state), key)


def load(folder: RunFolder) -> tuple[Experiment, Guider, Any]:
    """A run's experiment, guider and state as of its last whole checkpoint.

    Errors:
        RunError where there is no checkpoint yet; CheckpointError where none is whole.
    """
    use_compilation_cache()
    experiment = Experiment.resolve(folder.settings)
    guider = experiment.build()
    like = jax.eval_shape(guider.init, jax.random.key(0))
    restored = folder.checkpoints.restore(like)
    if restored is None:
        raise RunError(f"{folder.path} has no checkpoint yet: train it with gps train --resume")
    return experiment, guider, restored.state


def scores(task: ControlTask, evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation over training and test targets."""
    count = len(task.train_contexts)
    distance, cost = np.asarray(evaluation.distance), np.asarray(evaluation.cost)
    return {
        "train_distance_mean": distance[:count].mean(),
        "test_distance_mean": distance[count:].mean(),
        "test_distance_max": distance[count:].max(),
        "train_cost_mean": cost[:count].mean(),
        "test_cost_mean": cost[count:].mean(),
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics as the progress display wants it: numbers per condition become means, metres centimetres."""
    means = {name: _mean(value) for name, value in row.items()}
    means["iteration"] = row["iteration"] + 1
    if "cost" in row:
        means["cost_per_condition"] = np.asarray(row["cost"]).tolist()
    for name in ("train", "test"):
        if f"{name}_distance_mean" in row:
            means[f"{name}_cm"] = 100 * means[f"{name}_distance_mean"]
    return means


def _mean(value: Any) -> float:
    """The mean of the numbers that there are: a condition without one has NaN."""
    numbers = np.asarray(value, float).ravel()
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if numbers.size else float("nan")


def draw(folder: RunFolder, task: ControlTask, evaluation: Evaluation) -> list[Path]:
    """Write a run's figures."""
    from gps import plot  # matplotlib takes 2 s to import, and only the end of a run needs it

    count = len(task.train_contexts)
    skeletons = jax.jit(jax.vmap(jax.vmap(task.skeleton)))(evaluation.xs[count:])
    return plot.draw_all(
        folder.read_metrics(),
        np.asarray(skeletons),
        np.asarray(task.test_contexts),
        np.asarray(evaluation.distance[count:]),
        np.asarray(task.train_contexts),
        task.dt,
        folder.figures,
    )
