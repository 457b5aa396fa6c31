"""The training loop that drives any guider, and its run folder."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from dynamics.engines import resolve_engine
from gps.columns import Column, count, short
from gps.experiments.experiment import Experiment
from gps.guiders.guider import DivergedError, Guider
from gps.runs import integrity
from gps.runs.finish import finish, to_stderr
from gps.runs.folder import RunFolder
from gps.runs.programs import Programs, use_compilation_cache
from gps.runs.progress import Progress
from gps.runs.resume import shapes_of
from gps.runs.teacher import with_teacher
from gps.tasks.control_task import is_control


def train(
    folder: RunFolder, *, quiet: bool = False, started: float | None = None, programs: Programs | None = None
) -> dict[str, Any]:
    """Run a folder's experiment from its last whole checkpoint, or from the start, to its end.

    Args:
        folder: made by `RunFolder.create`, or opened.
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
    experiment = folder.experiment
    programs = programs or Programs(experiment.build(warn=to_stderr))
    guider, run = programs.guider, experiment.run
    root = jax.random.key(run.seed)
    beginning, evaluating, iterating = (jax.random.fold_in(root, i) for i in range(3))

    restored = folder.checkpoints.restore(shapes_of(guider))
    integrity.check(folder, restored.step if restored else None, run.first_checkpoint)
    if restored:
        first, state, spent = restored.step, restored.state, restored.meta["seconds"]
    else:
        first, state, spent = 0, with_teacher(jax.jit(guider.init)(beginning), experiment, guider), 0.0
    folder.rewind_metrics(first)

    began_at = time.time() if started is None else started

    def clock() -> float:
        return spent + time.time() - began_at

    stream = io.StringIO() if quiet else None
    with Progress(run.iterations, _title(experiment), columns_of(guider), stream, done=first) as progress:
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
            progress.update(row)
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


def columns_of(guider: Guider) -> tuple[Column, ...]:
    """Those of a run's display: the guider's own between what all runs have, with the scores that its task has."""
    task = guider.task
    if is_control(task):
        unit, total = task.score.unit, len(task.test_contexts)
        scores = [Column("train_score", "train", short, unit), Column("test_score", "test", short, unit)]
        if hasattr(task, "solved"):
            scores.append(Column("test_solved", "solved", lambda number: f"{number:.0f} of {total}"))
    else:
        scores = [Column("learner_return", "learner", short), Column("learner_return_sampled", "sampled", short)]
    first = Column("iteration", "iter", lambda done: f"{done + 1:.0f}")
    return (first, *guider.columns, *scores, Column("steps", "steps", count), Column("seconds", "time", ".1f", "s"))
