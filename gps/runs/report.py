"""`gps report`: the page of one run, or the comparison of several; what it shows is in `gps.figures.report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gps.columns import short
from gps.errors import described, printable
from gps.figures.report import episodes, panels, replay
from gps.figures.report.episodes import Acted, Shown
from gps.figures.report.page import page
from gps.runs import integrity
from gps.runs.best import best_row
from gps.runs.evaluate import judged
from gps.runs.finish import drawn_by, scores_of
from gps.runs.folder import RunFolder, iteration_seconds
from gps.runs.metrics import RunError
from gps.runs.replay import Played, controllers_act, policy_acts
from gps.runs.resume import Loaded
from gps.settings import flat
from gps.tasks.control_task import ControlTask, is_control, step_costs
from gps.tasks.task import Score

Note = Callable[[str], None]  # takes a line for the user
UNKNOWN = Score("score")  # of a run that has not ended, and is not loaded
END = {  # of the last evaluation, in words; what a run has not is left out
    "test_score": "test {score}, mean",
    "test_score_worst": "test {score}, worst",
    "test_solved": "test episodes solved",
    "train_score": "training {score}, mean",
    "train_solved": "training episodes solved",
    "test_cost": "test cost",
    "train_cost": "training cost",
    "learner_return": "return",
    "learner_return_sampled": "return by sampled actions",
    "episode_length": "steps of an episode",
}


@dataclass(frozen=True)
class Read:
    """A run's files, read once."""

    name: str
    settings: Mapping[str, Any]  # by their dotted names
    rows: list[dict[str, Any]]
    iterations: int  # that it is to have
    versions: Mapping[str, Any]  # in its summary

    @property
    def about(self) -> str:
        """Task, guider and seed."""
        run = self.settings
        return f"{run['run.task']} by {run['run.guider']}, seed {run['run.seed']}"

    @property
    def group(self) -> str:
        """What runs that differ in their seeds alone have in common."""
        return repr({name: value for name, value in self.settings.items() if name != "run.seed"})


def read(folder: RunFolder, name: str = "") -> Read:
    """The files of a run that may be trained meanwhile.

    Args:
        name: that it has among others.

    Errors:
        As in `gps.runs.finish.draw`; RunError where no iteration has ended.
    """
    rows = folder.metrics.rows()
    integrity.check(folder, folder.checkpoints.newest(), folder.experiment.run.first_checkpoint)
    if not rows:
        raise RunError(f"{folder.path} has no iteration yet, of which a report could tell")
    experiment, ended = folder.experiment, integrity.ended(folder)
    versions = folder.read_summary().get("versions", {}) if ended else {}
    return Read(
        printable(name),
        flat(experiment.to_dict()),
        rows,
        experiment.run.iterations,
        versions if isinstance(versions, Mapping) else {},
    )


def score_of(folder: RunFolder) -> Score:
    """What the task of a run is judged by, of runs that have ended; the score has no name before."""
    known = folder.read_summary().get("score") if integrity.ended(folder) else None
    try:
        score = Score(**known) if known else UNKNOWN
        hash(score)
        return score
    except TypeError:  # it has other fields, or lists in them
        return UNKNOWN


class _Notes:
    """Lines for the user, which the page has too."""

    def __init__(self, note: Note):
        self.note, self.lines = note, []

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self.note(line)

    def tried(self, what: str, build: Callable[[], Any]) -> Any:
        """What is built, or None and a line."""
        try:
            return build()
        except Exception as error:
            return self(printable(f"{what} is missing: {described(error)}"))

    def part(self, title: str, **build: Callable[[], Any]) -> dict[str, Any]:
        """A section of the page: its `panels`, `table` or `replay`, without what failed."""
        return {"title": title, **{name: self.tried(f"{title}: {name}", one) for name, one in build.items()}}


def of_run(run: Read, loaded: Loaded | None, note: Note) -> str:
    """The page of one run.

    Args:
        loaded: as of its checkpoint; without one there are no episodes.
        note: is told of each part that failed; so is the page.
    """
    notes = _Notes(note)
    score, shown = UNKNOWN, None
    if loaded is not None and is_control(loaded.task):
        score, shown = loaded.task.score, notes.tried("Episodes", lambda: played(loaded, notes))
    rows = panels.thinned(run.rows)
    sections = [
        notes.part("Results", table=lambda: _ends([run], score)),
        notes.part("Learning", panels=lambda: panels.learning(rows, score)),
        *([] if shown is None else _episodes(shown, str(loaded), notes)),
        notes.part("Guider and learner", panels=lambda: panels.ties(rows)),
        notes.part("Local models", panels=lambda: panels.models(rows)),
        notes.part("Every condition", panels=lambda: panels.maps(rows)),
        {**notes.part("Other numbers", panels=lambda: panels.others(rows)), "folded": True},
        {**notes.part("Settings", table=lambda: _settings([run])), "folded": True},
    ]
    return _page(run.about, _facts(run), notes, sections)


def of_runs(runs: Sequence[Read], scores: Sequence[Score], note: Note) -> str:
    """The comparison of several runs."""
    notes = _Notes(note)
    score = scores[0] if len(set(scores)) == 1 else UNKNOWN
    tasks = sorted({str(run.settings["run.task"]) for run in runs})
    if len(tasks) > 1:
        notes(f"these runs are of different tasks, whose numbers do not compare: {', '.join(tasks)}")
    some = [(run.name, run.group, panels.thinned(run.rows)) for run in runs]
    sections = [
        notes.part("Results", table=lambda: _ends(runs, score)),
        notes.part("Learning", panels=lambda: panels.compared(some, score)),
        {**notes.part("Settings", table=lambda: _settings(runs)), "folded": True},
    ]
    return _page(f"{len(runs)} runs compared", [], notes, sections)


def played(loaded: Loaded, note: Note) -> Shown:
    """The learner in all conditions, as in the last row of metrics, and the guider in those of training."""
    task = loaded.task
    assert is_control(task)
    M = len(task.train_contexts)
    contexts = np.concatenate([task.train_contexts, task.test_contexts])
    evaluating = jax.random.fold_in(jax.random.key(loaded.experiment.run.seed), 1)
    states, us = policy_acts(task, loaded.guider.policy(loaded.state), contexts, evaluating)
    everywhere, guided = contexts, _guided(loaded, task, states[:M, 0], evaluating)
    if guided is not None:
        states, us = (np.concatenate(pair) for pair in zip((states, us), guided, strict=True))
        everywhere = np.concatenate([contexts, contexts[:M]])
    acted = _acted(task, states, us, everywhere, note)
    learner, guider = (
        jax.tree.map(lambda a, part=part: a[part], acted) for part in (slice(len(contexts)), slice(len(contexts), None))
    )
    return Shown(
        score=task.score,
        dt=task.dt,
        contexts=contexts,
        trained=M,
        targets=drawn_by(task, "target", contexts, note),
        model=getattr(task.simulator, "model", None),
        learner=Acted(**learner),
        guider=None if guided is None else Acted(**guider),
    )


def _guided(loaded: Loaded, task: ControlTask, starts: np.ndarray, key: jax.Array) -> Played | None:
    """The guider in the training conditions, from the learner's starts; None where there is none to show."""
    if loaded.controllers is not None:
        return controllers_act(task, loaded.controllers, starts)
    guiding = getattr(loaded.guider, "guiding", lambda _: None)(loaded.state)
    if guiding is None or not hasattr(task, "privileged"):
        return None
    return policy_acts(task, guiding, np.asarray(task.train_contexts), key, privileged=True)


def _acted(task: ControlTask, states: Any, us: Any, contexts: Any, note: Note) -> dict[str, Any]:
    """The fields of `Acted`."""

    @jax.jit
    def derived(states, us, contexts):
        def one(states, us, context):
            xs = jax.vmap(task.control_state)(states)
            return judged(task, states, us, context), xs, step_costs(task, xs, us, context)

        return jax.vmap(one)(states, us, contexts)

    outcome, xs, costs = jax.tree.map(np.asarray, derived(states, us, contexts))
    skeletons = drawn_by(task, "skeleton", xs, note)
    fields = {"states": outcome.states, "xs": xs, "us": outcome.us, "costs": costs, "scores": outcome.score}
    return {**fields, "solved": outcome.solved, "ends": None if skeletons is None else skeletons[:, :, -1]}


def _episodes(shown: Shown, when: str, notes: _Notes) -> list[dict[str, Any]]:
    about = f"{when[0].upper()}{when[1:]}"
    if shown.guider is not None:
        about += ", and the guider in training conditions, from the same starts and without noise"
    crosses = {} if shown.learner.solved is None else {"about": "Crosses: not solved."}
    return [
        {**notes.part("Replay", replay=lambda: replay.replay(shown)), "about": f"{about}."},
        {**notes.part("Outcomes", panels=lambda: episodes.outcomes(shown) + episodes.paths(shown)), **crosses},
    ]


def _page(title: str, facts: list, notes: _Notes, sections: list[dict[str, Any]]) -> str:
    some = [part for part in sections if any(part.get(name) for name in ("panels", "table", "replay"))]
    return page(printable(title), {"facts": facts, "notes": notes.lines, "axes": panels.AXES, "sections": some})


def _facts(run: Read) -> list[tuple[str, str]]:
    last = run.rows[-1]
    facts = [("iterations", f"{len(run.rows)} of {run.iterations}"), ("simulator steps", _said(last.get("steps")))]
    facts.append(("wall time", f"{_said(last.get('seconds'))} s"))
    return facts


def _ends(runs: Sequence[Read], score: Score) -> dict[str, Any]:
    """A line for each number of the last evaluation, a column for each run; of a single run its best learner too."""
    columns = [(run.name if len(runs) > 1 else "last learner", _evaluated(run.rows)) for run in runs]
    if len(runs) == 1 and (best := best_row(runs[0].rows)) is not None:
        columns.append((f"best by training conditions, iteration {best['iteration'] + 1}", best))
    rows = [{"cells": ["", *(run.about for run in runs)]}] if len(runs) > 1 else []
    for field, words in END.items():
        cells = [_cell(row, field) for _, row in columns]
        if any(cells):
            rows.append({"cells": [words.format(score=score.label), *cells]})
    for words, of in (
        ("iterations", lambda run: f"{len(run.rows)} of {run.iterations}"),
        ("simulator steps", lambda run: _said(run.rows[-1].get("steps"))),
        ("wall time (s)", lambda run: _said(run.rows[-1].get("seconds"))),
        ("seconds of an iteration, median", lambda run: _said(float(np.median(iteration_seconds(run.rows))))),
    ):
        rows.append({"cells": [words, *map(of, runs), *[""] * (len(columns) - len(runs))]})
    return {"columns": ["", *(name for name, _ in columns)], "rows": rows}


def _evaluated(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The last row with an evaluation."""
    return next((row for row in reversed(rows) if scores_of(row)), {})


def _cell(row: Mapping[str, Any], field: str) -> str:
    if field not in row:
        return ""
    total = row.get(field.replace("solved", "episodes")) if "solved" in field else None
    return _said(row[field]) + ("" if total is None else f" of {_said(total)}")


def _said(value: Any) -> str:
    if isinstance(value, int):
        return f"{value}"
    return short(value) if isinstance(value, float) else "-"


def _settings(runs: Sequence[Read]) -> dict[str, Any]:
    """A line for each setting; those in which runs differ come first."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    rows = []
    for name in names:
        cells = [json.dumps(run.settings[name]) if name in run.settings else "" for run in runs]
        rows.append({"cells": [printable(name), *map(printable, cells)], "differs": len(set(cells)) > 1})
    rows.sort(key=lambda row: not row["differs"])
    for name in dict.fromkeys(name for run in runs for name in run.versions):
        versions = [str(run.versions.get(name, "")) for run in runs]
        rows.append({"cells": [printable(f"version of {name}"), *map(printable, versions)], "differs": False})
    return {"columns": ["", *(run.name if len(runs) > 1 else "value" for run in runs)], "rows": rows}
