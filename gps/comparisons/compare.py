"""Guiders compared on tasks, over seeds: `gps compare`.

Every run has a folder OUT/TASK-GUIDER-seedN, as `gps train` makes it: a finished run is used again, an unfinished one
goes on from its last checkpoint. From the folders' metrics come comparison.md,
comparison.csv, comparison.png and comparison.pdf in OUT, made anew each time.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from gps.comparisons.statistics import GOALS, Goals, Result, area_range, learning, summarise
from gps.comparisons.table import csv_text, markdown, notes
from gps.experiments.experiment import Experiment
from gps.files import write_text
from gps.guiders.guider import DivergedError
from gps.runs import integrity
from gps.runs.finish import to_stderr
from gps.runs.folder import RunError, RunFolder
from gps.runs.programs import Programs
from gps.runs.progress import Clock
from gps.runs.resume import check, resumable, resumed, shapes_of
from gps.runs.teacher import with_teacher
from gps.runs.train import train
from gps.settings import SettingsError, override, unknown
from gps.tasks.task import RETURN, Score

_TITLE = "# Comparison\n\n"
_MOST_SEEDS = 10_000  # a run of each has a folder
_OURS = f"{_TITLE}| task "  # how each comparison.md begins


@dataclass(frozen=True)
class Run:
    """One run of several."""

    path: Path
    experiment: Experiment

    def __str__(self) -> str:
        run = self.experiment.run
        return f"{run.task} by {run.guider}, seed {run.seed}"

    @property
    def about(self) -> tuple[str, str]:
        """Its task and its guider."""
        return self.experiment.run.task, self.experiment.run.guider

    def there(self) -> bool:
        """Whether it has a folder."""
        return (self.path / "config.toml").exists()

    def folder(self) -> RunFolder:
        """Its folder, which is there."""
        return RunFolder.open(self.path, self.experiment.code)

    def begun(self) -> bool:
        """Whether it has a checkpoint."""
        return self.there() and bool(self.folder().checkpoints.steps())

    def finished(self) -> bool:
        """Whether it has had all its iterations."""
        return self.there() and integrity.ended(self.folder()) >= self.experiment.run.iterations

    def ready(self) -> RunFolder:
        """Its folder, made, or taken with as many iterations as are wanted now; errors as where that is done."""
        return (resumed if self.there() else RunFolder.create)(self.path, self.experiment)


@dataclass(frozen=True)
class Comparison:
    """What came of it."""

    results: tuple[Result, ...]  # task by task, in the order asked for
    failed: tuple[str, ...]  # the runs that diverged, and why
    text: str  # the table and what has to be said of it, as in comparison.md
    files: tuple[Path, ...]

    def result(self, task: str, guider: str) -> Result:
        """The numbers of one guider on one task."""
        return next(result for result in self.results if (result.task, result.guider) == (task, guider))


def compare(
    tasks: Sequence[str],
    guiders: Sequence[str],
    seeds: int = 5,
    *,
    settings: Iterable[str] = (),
    settings_for: Mapping[str, Iterable[str]] | None = None,
    out: str | Path | None = None,
    goals: Goals = GOALS,
) -> Comparison:
    """Train every guider on every task with seeds 0 to `seeds` - 1, one run after the other, and compare them.

    A run that diverges does not stop the others; it is named among the failed ones and counts in no other number.

    Args:
        settings: assignments for all runs, such as "run.iterations=20".
        settings_for: assignments for the runs of one guider or of one task, by its name; they come after `settings`.
        out: folder of the runs and the results; runs/compare-TASK by default.
        goals: for the steps that it takes to reach them.

    Errors:
        SettingsError for an unknown name, an impossible setting, and where a run is there that has other settings;
        RunError where something else is in the place of a run or of the results, and where a run has lost rows of its
        metrics or its checkpoints, or is trained by another process; CheckpointError where none of the checkpoints is
        whole. All before anything is run or changed.
    """
    goals.check()
    tasks, guiders = list(dict.fromkeys(tasks)), list(dict.fromkeys(guiders))
    out = Path(out or f"runs/compare-{'-'.join(tasks)}")
    own = {name: list(assignments) for name, assignments in (settings_for or {}).items()}
    runs = plan(tasks, guiders, seeds, list(settings), own, out)
    failed = _train_all(runs, out)
    learned = {(task, guider): [] for task in tasks for guider in guiders}
    scores = dict.fromkeys(tasks, RETURN)
    for run in runs:
        if run.path not in failed:
            folder = run.folder()
            learned[run.about].append(learning(folder.metrics.rows()))
            scores[run.about[0]] = _score(folder)
    ranges = {task: area_range([one for guider in guiders for one in learned[task, guider]]) for task in tasks}
    results = tuple(
        summarise((task, scores[task]), guider, seeds, some, goals, ranges[task])
        for (task, guider), some in learned.items()
    )
    reasons = tuple(f"{run}: {failed[run.path]}" for run in runs if run.path in failed)
    text = f"{markdown(results, goals)}\n{notes(goals, ranges, reasons)}"
    return Comparison(results, reasons, text, tuple(_write(out, results, text, goals)))


def _score(folder: RunFolder) -> Score:
    """What the task of a finished run is judged by."""
    try:
        return Score(**folder.read_summary().get("score", {"name": "score"}))
    except TypeError as error:
        file = folder.path / "summary.json"
        raise RunError(f"{file} has no score: delete it, and the resumed run writes it again") from error


def plan(
    tasks: Sequence[str],
    guiders: Sequence[str],
    seeds: int,
    settings: Sequence[str],
    settings_for: Mapping[str, Sequence[str]],
    out: Path,
) -> list[Run]:
    """The runs of a comparison, seeds last; nothing is made or changed. Arguments and errors as in `compare`."""
    if not 1 <= seeds <= _MOST_SEEDS:
        raise SettingsError(f"seeds must be at least 1, not {seeds}, and at most {_MOST_SEEDS}")
    for name in settings_for:
        if name not in (*tasks, *guiders):
            raise unknown("task or guider of this comparison", name, (*tasks, *guiders))
    pairs = {
        (task, guider): _resolve(task, guider, [*settings, *settings_for.get(task, ()), *settings_for.get(guider, ())])
        for task in tasks
        for guider in guiders
    }
    seeded = [
        replace(experiment, run=replace(experiment.run, seed=seed))
        for experiment in pairs.values()
        for seed in range(seeds)
    ]
    runs = [Run(out / experiment.run.folder, experiment) for experiment in seeded]
    check_place(out, "comparison", _OURS)
    for run in runs:
        if run.there():
            resumable(run.path, run.experiment)
        else:
            RunFolder.check_free(run.path)
    _check_runs(runs)
    return runs


def check_place(out: Path, name: str, begins: str) -> None:
    """Raise RunError where results would replace other files, or can not be written.

    Args:
        name: of their files; NAME.md begins as given, and says that the others are ours.
    """
    mine = [out / f"{name}.{kind}" for kind in ("md", "csv", "png", "pdf")]
    taken = [file for file in mine if file.exists()]
    if taken and not (mine[0].is_file() and mine[0].read_bytes().startswith(begins.encode())):
        lost = "" if mine[0].exists() else f", or restore {mine[0]}, which is missing"
        raise RunError(f"{taken[0]} exists and is of no {name}: use another --out{lost}")
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "can not be written" if there.is_dir() else "is no folder"
        raise RunError(f"{out} can not be the folder of a {name}: {there} {reason}; use another --out")


def _check_runs(runs: Sequence[Run]) -> None:
    """Raise now whatever error would end the comparison later."""
    left: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.finished():
            folder = run.folder()
            integrity.check_rows(folder, integrity.ended(folder))
        else:
            left.setdefault(run.about, []).append(run)
    for some in left.values():
        _check_unfinished(some)
    for run in (run for some in left.values() for run in some if run.there()):
        with run.folder().locked():
            pass  # no other process trains it


def _check_unfinished(runs: Sequence[Run]) -> None:
    """The same, of the runs of one guider on one task."""
    experiment = runs[0].experiment
    with _named(*runs[0].about):
        guider = experiment.build(warn=to_stderr)
        Programs(guider, experiment.run.devices).require_room(experiment)
        if not all(run.begun() for run in runs):
            with_teacher(shapes_of(guider), experiment, guider)
    for run in runs:
        if run.there():
            check(run.folder(), guider)


def _resolve(task: str, guider: str, settings: Iterable[str]) -> Experiment:
    """The experiment of a guider on a task, with seed 0."""
    with _named(task, guider):
        experiment = Experiment.resolve(override({"run": {"task": task, "guider": guider, "seed": 0}}, settings))
        if (experiment.run.task, experiment.run.guider, experiment.run.seed) != (task, guider, 0):
            raise SettingsError("a comparison chooses run.task, run.guider and run.seed itself")
    return experiment


@contextmanager
def _named(task: str, guider: str) -> Iterator[None]:
    """Says of a wrong setting which runs of the comparison it is wrong for."""
    try:
        yield
    except SettingsError as error:
        hint = "; --set-for NAME KEY=VALUE sets it for one guider or task" if "unknown setting" in str(error) else ""
        raise SettingsError(f"{task} by {guider}: {error.args[0]}{hint}", *error.args[1:]) from error


def _train_all(runs: Sequence[Run], out: Path) -> dict[Path, str]:
    """Bring all runs to their end; returns those that diverged, and why."""
    left = [run for run in runs if not run.finished()]
    failed: dict[Path, str] = {}
    programs: dict[tuple[str, str], Programs] = {}  # of the last task and guider; seeds share them
    clock = Clock(len(left))
    print(f"{len(runs)} runs in {out}, {len(runs) - len(left)} of them finished before", flush=True)
    for run in left:
        print(f"{clock}  {run}", flush=True)
        folder = run.ready()
        if run.about not in programs:
            if programs:
                programs.clear()
                jax.clear_caches()  # a program holds memory maps, of which a process has at most vm.max_map_count
                gc.collect()
            programs[run.about] = Programs(run.experiment.build(), run.experiment.run.devices)
        try:
            train(folder, quiet=not sys.stdout.isatty(), programs=programs[run.about])
        except DivergedError as error:
            failed[run.path] = str(error)
            print(f"failed: {run}: {error}", flush=True)
        clock.tick()
    return failed


def _write(out: Path, results: tuple[Result, ...], text: str, goals: Goals) -> list[Path]:
    from gps.comparisons.figure import comparison  # matplotlib takes 2 s to import, and only the end needs it

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "comparison.md", f"{_TITLE}{text}")  # first: it tells that the other files are ours
    write_text(out / "comparison.csv", csv_text(results))
    figures = comparison(results, goals, out / "comparison")
    shown = "".join(f"\n![Learning curves]({path.name})\n" for path in figures[:1])
    write_text(out / "comparison.md", f"{_TITLE}{text}{shown}")
    return [out / "comparison.md", out / "comparison.csv", *figures]
