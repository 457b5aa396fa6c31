"""The training loop that drives any guider, and its run folder."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from dynamics.engines import resolve_engine
from dynamics.plant import PlantError
from gps.columns import Column, count, short
from gps.experiments.experiment import Experiment
from gps.guiders.guider import DivergedError, Guider
from gps.runs import integrity, processes
from gps.runs.best import Best, Saved, standing
from gps.runs.finish import finish, to_stderr
from gps.runs.folder import RunFolder
from gps.runs.programs import Programs, keys_of, use_compilation_cache
from gps.runs.progress import Progress
from gps.runs.resume import restore
from gps.runs.teacher import with_teacher
from gps.runs.tensorboard import events, require_writer
from gps.runs.warnings import Warnings
from gps.tasks.control_task import is_control
from gps.tasks.task import TaskError


def train(
    folder: RunFolder, *, quiet: bool = False, started: float | None = None, programs: Programs | None = None
) -> dict[str, Any]:
    """Run a folder's experiment from its last whole checkpoint, or from the start, to its end.

    Of several processes (`gps.runs.processes`) the first one calls this, and the others `gps.runs.follow.follow`.

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
        PlantError when a plant fails in an iteration, TaskError when an environment on the host does, DivergedError
        when nothing can be learned from an iteration (see `Guider.check` and `Guider.judge`; for each of the three a
        checkpoint of the state before the iteration is saved first), SettingsError where it asks for event files that
        nothing can write, CheckpointError when there are checkpoints but none is whole, RunError when another process
        trains this run or when rows of its metrics or all its checkpoints were lost, PartedError where one of several
        processes has ended. The last four leave the run as it is.
    """
    require_writer(folder.experiment)
    with folder.locked():
        summary = _train(folder, quiet, started, programs)
        processes.meet()  # none leaves before all has been written
        return summary


def _train(folder: RunFolder, quiet: bool, started: float | None, programs: Programs | None) -> dict[str, Any]:
    use_compilation_cache()
    experiment = folder.experiment
    programs = programs or Programs(experiment.build(warn=to_stderr), experiment.run.devices)
    guider, run = programs.guider, experiment.run
    beginning, evaluating, iterating = keys_of(run)
    begun = _begun(folder, programs, beginning)
    first, state, best, rows = begun.first, begun.state, begun.best, folder.metrics.rows()
    began_at = time.time() if started is None else started

    def clock() -> float:
        return begun.seconds + time.time() - began_at

    def save(step: int, state: Any) -> None:
        meta = integrity.meta_of(folder, clock(), best.iteration)
        folder.checkpoints.save(step, Saved(state, best.policy), meta)

    def save_before(i: int) -> None:
        on_host = programs.on_host(state)
        if i not in folder.checkpoints.steps():
            save(i, on_host)

    stream = io.StringIO() if quiet else None
    shown = Progress(run.iterations, title_of(experiment), columns_of(guider), stream, done=first)
    warnings = Warnings(rows)
    with shown as progress, events(folder, rows) as log:
        for note in begun.notes:
            progress.note(note)
        for i in range(first, run.iterations):
            began = time.perf_counter()
            with _saved_first(folder, i, save_before):
                after, metrics = programs.iterate(state, jax.random.fold_in(iterating, i))
                row: dict[str, Any] = {"iteration": i, "steps": (i + 1) * guider.steps_per_iteration}
                row |= {"iteration_seconds": time.perf_counter() - began, "compiles": i == first, **metrics}
                on_host = programs.on_host(after) if run.evaluates(i) or run.saves(i) else None
                if run.evaluates(i):
                    policy = guider.policy(on_host)
                    row |= programs.evaluate(policy, evaluating).scores(guider.task)
                    best = best.or_better(row, policy, guider.task)
                    row["best_iteration"] = best.iteration
            state = after
            row["seconds"] = clock()
            # metrics before the checkpoint: a kill between the two repeats the iteration, and loses no row
            folder.metrics.append(row)
            if run.saves(i):
                save(i + 1, on_host)
            log(row)
            progress.update(row)
            for warning in warnings.after(row):
                progress.note(warning)
    return finish(folder, experiment, programs, guider, programs.on_host(state), clock)


@dataclass(frozen=True)
class _Begun:
    """Where a run begins, or goes on."""

    first: int  # iteration, counted from 0
    state: Any  # where iterations take it
    best: Best
    seconds: float  # that were spent before
    notes: tuple[str, ...]  # for the user


def _begun(folder: RunFolder, programs: Programs, key: PRNGKeyArray) -> _Begun:
    """From the last whole checkpoint, whose later rows of metrics are dropped, or with a fresh state; other processes
    of the run are told.
    """
    guider, run = programs.guider, folder.experiment.run
    restored, notes = restore(folder, guider)
    folder.sweep()
    folder.metrics.rewind(restored.step if restored else 0)
    processes.welcome({"settings": folder.settings, "first": restored.step if restored else 0})
    if restored is None:
        state = processes.shared(with_teacher(jax.jit(guider.init)(key), folder.experiment, guider))
        return _Begun(0, programs.place(state), Best(guider.policy(state)), 0.0, ())
    saved, i = restored.state, restored.meta["best_iteration"]
    its = () if i is None else standing(folder.metrics.rows()[i], guider.task)
    damages = (f"damaged checkpoint passed over: {damage}" for damage in restored.skipped)
    notes = (*notes, *damages, f"resumed after iteration {restored.step} of {run.iterations}")
    state = programs.place(processes.shared(saved.state))
    return _Begun(restored.step, state, Best(saved.best, i, its), restored.meta["seconds"], notes)


@contextmanager
def _saved_first(folder: RunFolder, i: int, save: Callable[[int], None]) -> Iterator[None]:
    """Where the guider, its plant or its task can not go on, the state before is saved first."""
    try:
        yield
    except (DivergedError, PlantError, TaskError) as error:
        save(i)
        if isinstance(error, PlantError):
            raise PlantError(f"{error}; {folder.path} is saved: gps train --resume goes on") from error
        raise


def title_of(experiment: Experiment) -> str:
    """What stands above a run's progress."""
    run = experiment.run
    engine = f", engine {resolve_engine(run.engine)}" if experiment.simulated else ""
    plant = f", plant {run.plant.address}" if run.plant.address else ""
    return f"{run.task} by {run.guider}, seed {run.seed}{engine}{plant}"


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
