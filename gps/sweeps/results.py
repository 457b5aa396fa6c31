"""The results of a sweep: a table of its cells, a file for other programs, and a figure of what each setting does."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gps.columns import short
from gps.comparisons.statistics import CONFIDENCE, Estimate, estimate
from gps.comparisons.table import aligned
from gps.runs.finish import COUNTED, MODELS, SCORES
from gps.runs.folder import RunError, RunFolder
from gps.settings import unknown
from gps.sweeps.plan import Changes, Plan, Range
from gps.tasks.control_task import is_control
from gps.tasks.task import RETURN

TITLE = "# Sweep\n\n"
KNOWN = (*SCORES, *COUNTED, *MODELS, "env_steps", "wall_seconds", "seconds_per_iteration")
MORE_IS_BETTER = ("solved", "return", "return_sampled")  # ends of the names of numbers


@dataclass(frozen=True)
class Cell:
    """One combination of settings, and the folders of its runs, one a seed."""

    name: str
    changes: Changes
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Result:
    """What came of a cell."""

    cell: Cell
    value: Estimate  # of the objective, over seeds; NaN where the cell failed
    failed: str = ""  # why it did not come to its end


@dataclass(frozen=True)
class Objective:
    """The number by which cells are ranked."""

    key: str  # in summary.json
    label: str
    unit: str
    minimize: bool

    @classmethod
    def of(cls, plan: Plan) -> Objective:
        """What the plan says, or what its task is judged by.

        Errors:
            SettingsError for a number that no summary has.
        """
        settings = plan.settings
        task = plan.experiment({}, 0).build_task()
        score = task.score if is_control(task) else RETURN
        own = "test_score" if is_control(task) else "learner_return"
        key = own if settings.objective == "auto" else settings.objective
        if key not in KNOWN:
            raise unknown("objective", key, KNOWN)
        known = score.more_is_better if key.endswith("score") else key.endswith(MORE_IS_BETTER)
        minimize = settings.direction == "min" or (settings.direction == "auto" and not known)
        return cls(key, f"test {score.name}" if key == "test_score" else key.replace("_", " "), score.unit, minimize)

    def value(self, paths: Sequence[Path]) -> Estimate:
        """Of the ended runs of a cell.

        Errors:
            RunError where a summary has no such number, naming those that it has.
        """
        numbers = []
        for path in paths:
            summary = RunFolder.open(path).read_summary()
            if not isinstance(summary.get(self.key, ""), int | float | None):  # null: an evaluation diverged
                known = ", ".join(name for name in KNOWN if name in summary)
                raise RunError(f"objective = {self.key!r}: {path / 'summary.json'} has no such number; it has {known}")
            numbers.append(summary[self.key])
        return estimate(np.array(numbers, float))

    def told(self, value: Estimate) -> str:
        """In words."""
        unit = f" {self.unit}" if self.unit and self.key.endswith("score") else ""
        interval = "" if math.isnan(value.low) else f" [{short(float(value.low))}, {short(float(value.high))}]"
        return f"{self.label} {short(float(value.value))}{unit}{interval}"

    def ranked(self, results: Sequence[Result]) -> list[Result]:
        """From the best to the worst; at the end those that failed, or whose number is none."""
        sign = 1 if self.minimize else -1

        def order(result: Result) -> tuple[bool, float]:
            value = float(result.value.value)
            return not math.isfinite(value), sign * value if math.isfinite(value) else 0.0

        return sorted(results, key=order)


def markdown(plan: Plan, objective: Objective, ranked: Sequence[Result]) -> str:
    """The table, best first, and what has to be known to read it."""
    columns = {"cell": [str(place) for place in range(1, len(ranked) + 1)]}
    columns |= {plan.short(name): [f"{r.cell.changes[name]}" for r in ranked] for name in plan.vary}
    columns[objective.label] = [
        "failed" if r.failed else objective.told(r.value).removeprefix(objective.label).strip() for r in ranked
    ]
    settings = plan.settings
    seeds = (
        f"Interquartile means over {settings.seeds} seeds, with {100 * CONFIDENCE:g} % bootstrap intervals over seeds"
    )
    lines = [
        f"{settings.task} by {settings.guider}, {settings.search}: {objective.key} of summary.json, "
        f"{'less' if objective.minimize else 'more'} is better.",
        f"{seeds}; each cell is OUT/CELL-seedN." if settings.seeds > 1 else "One seed each.",
        *(f"Failed: {result.cell.name}: {result.failed}" for result in ranked if result.failed),
    ]
    return aligned(columns, left=1) + "\n" + "".join(f"- {line}\n" for line in lines)


def csv_text(plan: Plan, objective: Objective, ranked: Sequence[Result]) -> str:
    """One line a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", *plan.vary, objective.key, "low", "high", "seeds", "failed"])
    for result in ranked:
        value = result.value
        numbers = [number if math.isfinite(number) else "" for number in (value.value, value.low, value.high)]
        writer.writerow([result.cell.name, *result.cell.changes.values(), *numbers, int(value.count), result.failed])
    return text.getvalue()


def figure(plan: Plan, objective: Objective, ranked: Sequence[Result], path: Path) -> list[Path]:
    """Save a panel for each varied setting as `path` with .png and .pdf: the objective over the setting's values."""
    from matplotlib.figure import Figure  # it takes 2 s to import, and only the end needs it

    from gps.figures.axes import fit_scale
    from gps.figures.fields import BLUE, GREY, RED
    from gps.figures.style import WIDE, save, styled

    shown = [result for result in ranked if math.isfinite(result.value.value)]

    @styled
    def drawn() -> Figure | None:
        if not shown:
            return None
        columns = min(3, len(plan.vary))
        rows = -(-len(plan.vary) // columns)
        drawn = Figure(figsize=(WIDE * columns / 3, 1.9 * rows))
        panels = drawn.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        values = np.array([[r.value.value, r.value.low, r.value.high] for r in shown], float)
        for axes, (name, varied) in zip(panels, plan.vary.items(), strict=False):
            at, ticks = _places([result.cell.changes[name] for result in shown], varied)
            for x, (value, low, high) in zip(at, values, strict=True):
                axes.plot([x, x], [low, high], color=GREY, linewidth=0.6)
                axes.plot(x, value, "o", color=BLUE)
            axes.plot(at[0], values[0, 0], "o", color=RED, label="best")
            if ticks:
                axes.set_xticks(range(len(ticks)), ticks)
            elif isinstance(varied, Range) and varied.log:
                axes.set_xscale("log")
            axes.set(xlabel=plan.short(name))
            fit_scale(axes)
        for row in range(rows):
            panels[row * columns].set_ylabel(
                f"{objective.label} ({objective.unit})" if objective.unit else objective.label
            )
        for axes in panels[len(plan.vary) :]:
            axes.set_axis_off()
        panels[0].legend()
        return drawn

    return save(drawn(), path)


def _places(values: Sequence[Any], varied: list[Any] | Range) -> tuple[Float[np.ndarray, " n"], list[str]]:
    """Where values lie along an axis, and the names of places 0, 1, ... where they are names and not numbers."""
    if isinstance(varied, Range):
        return np.array(values, float), []
    return np.array([varied.index(value) for value in values], float), [str(value) for value in varied]
