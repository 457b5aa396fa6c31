"""The training loop that drives any guider, and its run folder."""

from __future__ import annotations

import functools
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from dynamics.simulator import resolve_engine
from gps.experiments.experiment import Experiment
from gps.guiders.guider import DivergedError, Guider, Metrics, iterate, summarize, update_keys
from gps.guiders.model_free.guider import ModelFree
from gps.runs import integrity
from gps.runs.evaluate import Episodes, Evaluation, evaluate, evaluate_episodes
from gps.runs.folder import RunError, RunFolder, iteration_seconds
from gps.runs.progress import DEFAULT_COLUMNS, RETURN_COLUMNS, Progress
from gps.tasks.task import ControlTask, Environment, is_control

SCORES = (
    "learner_return",
    "learner_return_sampled",
    "test_distance_mean",
    "test_distance_max",
    "train_distance_mean",
)
COUNTED = ("diverged_samples", "failed_solves", "failed_fits", "failed_updates")
VERSIONS = ("jax", "jaxlib", "mujoco", "mujoco-mjx", "flax", "optax", "numpy")


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "guided-policy-search"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


class Programs:
    """A guider's compiled programs; built once, called in every iteration."""

    def __init__(self, guider: Guider):
        task = guider.task
        self.guider = guider
        self.collect = jax.jit(guider.collect)
        self.update = jax.jit(guider.update)
        self.whole = jax.jit(functools.partial(iterate, guider))
        if is_control(task):
            contexts = jnp.concatenate([task.train_contexts, task.test_contexts])
            judge = jax.jit(functools.partial(evaluate, task))
            self._evaluate = lambda policy, key: judge(policy, contexts, key)
        else:
            self._evaluate = jax.jit(functools.partial(evaluate_episodes, task))

    def iterate(self, state: Any, key: Any) -> tuple[Any, Metrics]:
        """One iteration; DivergedError where the guider can not learn from what was collected."""
        if self.guider.fused:
            return self.whole(state, key)
        rows = []
        for each in update_keys(self.guider, key):
            collecting, updating = jax.random.split(each)
            samples = self.collect(state, collecting)
            self.guider.check(samples)
            state, metrics = self.update(state, samples, updating)
            rows.append(metrics)
        return state, rows[0] if len(rows) == 1 else summarize(jax.tree.map(lambda *x: jnp.stack(x), *rows))

    def evaluate(self, policy: Any, key: Any) -> Evaluation | Episodes:
        """The learner on all training targets, then on all test targets; or in fresh episodes."""
        return self._evaluate(policy, key)


def train(
    folder: RunFolder, *, quiet: bool = False, started: float | None = None, programs: Programs | None = None
) -> dict[str, Any]:
    """Run a folder's experiment from its last whole checkpoint, or from the start, to its end.

    Args:
        folder: made by `RunFolder.create` with `Experiment.to_dict()`, or opened.
        quiet: show no progress.
        started: seconds since the epoch that the run's wall time counts from; now by default. A script that
            does nothing else passes `gps.STARTED`, so that imports are counted.
        programs: of an experiment with the same task and guider, down to their settings, so that nothing is
            compiled twice; made by default.

    Returns:
        The summary, as in summary.json.

    Errors:
        DivergedError when a condition lost all its samples (a checkpoint is saved first), CheckpointError when
        there are checkpoints but none is whole, RunError when another process trains this run or when rows of its
        metrics or all its checkpoints were lost. The last three leave the run as it is.
    """
    with folder.locked():
        return _train(folder, quiet, started, programs)


def _train(folder: RunFolder, quiet: bool, started: float | None, programs: Programs | None) -> dict[str, Any]:
    use_compilation_cache()
    experiment = Experiment.of(folder)
    programs = programs or Programs(experiment.build(begun=bool(folder.checkpoints.steps())))
    guider, run = programs.guider, experiment.run
    root = jax.random.key(run.seed)
    beginning, evaluating, iterating = (jax.random.fold_in(root, i) for i in range(3))

    # by shapes: a state restored in the likeness of arrays is bound to their device and compiles everything anew
    restored = folder.checkpoints.restore(jax.eval_shape(guider.init, beginning))
    integrity.check(folder, restored.step if restored else None)
    if restored:
        first, state, spent = restored.step, restored.state, restored.meta["seconds"]
    else:
        first, state, spent = 0, jax.jit(guider.init)(beginning), 0.0
    folder.rewind_metrics(first)

    began_at = time.time() if started is None else started

    def clock() -> float:
        return spent + time.time() - began_at

    stream = io.StringIO() if quiet else None
    columns = DEFAULT_COLUMNS
    if isinstance(guider, ModelFree):
        unknown = "learner_return_sampled" if is_control(guider.task) else "test_cm"
        columns = tuple(column for column in RETURN_COLUMNS if column.key != unknown)
    with Progress(run.iterations, _title(experiment), stream=stream, done=first, columns=columns) as progress:
        if restored:
            for damage in restored.skipped:
                progress.note(f"damaged checkpoint passed over: {damage.path}: {damage.reason}")
            progress.note(f"resumed after iteration {first} of {run.iterations}")
        for i in range(first, run.iterations):
            began = time.perf_counter()
            with _saved_first(folder, i, state, clock):
                state, metrics = jax.block_until_ready(programs.iterate(state, jax.random.fold_in(iterating, i)))
            row = {"iteration": i, "steps": (i + 1) * guider.steps_per_iteration}
            row |= {"iteration_seconds": time.perf_counter() - began, "compiles": i == first}
            row |= jax.device_get(metrics)
            last = i + 1 == run.iterations
            if last or (i + 1) % run.evaluate_every == 0:
                row |= programs.evaluate(guider.policy(state), evaluating).scores(guider.task)
            row["seconds"] = clock()
            # metrics before the checkpoint: a kill between the two repeats the iteration, and loses no row
            folder.append_metrics(row)
            if last or (i + 1) % run.checkpoint_every == 0:
                folder.checkpoints.save(i + 1, state, {"seconds": clock()})
            progress.update(shown(row))
    return finish(folder, experiment, programs, guider, state, clock)


@contextmanager
def _saved_first(folder: RunFolder, i: int, state: Any, clock: Callable[[], float]) -> Iterator[None]:
    """Where the guider can not go on, the state that it had is saved first."""
    try:
        yield
    except DivergedError:
        if i not in folder.checkpoints.steps():
            folder.checkpoints.save(i, state, {"seconds": clock()})
        raise


def _title(experiment: Experiment) -> str:
    run = experiment.run
    engine = f", engine {resolve_engine(run.engine)}" if experiment.simulated else ""
    return f"{run.task} by {run.guider}, seed {run.seed}{engine}"


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


def load(folder: RunFolder) -> tuple[Experiment, Guider, Any]:
    """A run's experiment, guider and state as of its last whole checkpoint.

    Errors:
        RunError where there is no checkpoint, yet or any more; CheckpointError where none is whole.
    """
    use_compilation_cache()
    experiment = Experiment.of(folder)
    guider = experiment.build(begun=True)
    like = jax.eval_shape(guider.init, jax.random.key(0))
    restored = folder.checkpoints.restore(like)
    if restored is None:
        integrity.check(folder, None)
        raise RunError(f"{folder.path} has no checkpoint yet: train it with gps train --resume")
    return experiment, guider, restored.state


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
