"""The figure of a comparison: how fast the learners of several guiders come to act well.

In the manner of `gps.figures.run`: nothing passes through pyplot, and what is not finite is left out. Lines are
interquartile means over seeds, bands their 95 % bootstrap intervals; see `gps.comparisons.statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gps.comparisons.statistics import Curve, Estimate, Goals, Result
from gps.figures.fields import COLORS, GREY
from gps.figures.style import MOST_MARKERS, POINT, WIDE, save, styled

DECADE = 10  # an axis that spans less is linear: a logarithmic one would have no labels, or too many
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))  # five lines, eight colours and seven markers: forty looks
MARKERS = "os^Dv<>"
PANELS = (  # what is drawn over what: the fields of a `Curve`
    ("steps", "returns", "simulator steps", "return"),
    ("seconds", "returns", "training (s)", "return"),
    ("steps", "scores", "simulator steps", ""),  # the score's own name
    ("seconds", "scores", "training (s)", ""),
    ("steps", "solved", "simulator steps", "test episodes solved (%)"),
)


def comparison(results: Sequence[Result], goals: Goals, path: Path) -> list[Path]:
    """Save `comparison_figure` as `path` with .png and .pdf; returns the files written."""
    return save(comparison_figure(results, goals), path)


@styled
def comparison_figure(results: Sequence[Result], goals: Goals) -> Figure | None:
    """A row of panels for each task: return and test score, each over steps and over training time, and what is solved.

    Seeds are aligned by the evaluation; over time a point is at the median of their training times. A panel that no
    task has numbers for is left out.
    """
    panels = [panel for panel in PANELS if any(getattr(result.curve, panel[1]).count.any() for result in results)]
    if not panels:
        return None
    tasks, guiders = ([*dict.fromkeys(names)] for names in zip(*((r.task, r.guider) for r in results), strict=True))
    wide = len(panels) > 2
    width = max(1.0, len(panels) / 4) if wide else 2 / 3
    figure = Figure(figsize=(width * WIDE, 2.0 * len(tasks) + 0.4))
    grid = figure.subplots(len(tasks), len(panels), squeeze=False)
    for task, line in zip(tasks, grid, strict=True):
        line[0].set_title(task, loc="left", fontsize=7.5, fontweight="bold")
        for axes, (x, field, xlabel, ylabel) in zip(line, panels, strict=True):
            of_task = [(guiders.index(result.guider), result) for result in results if result.task == task]
            for number, result in of_task:
                _learning_curve(axes, result.curve, x, field, number, result.guider)
            goal = {"returns": goals.learner_return, "scores": goals.score, "solved": goals.solved}[field]
            _finish(axes, field, goal)
            axes.set(xlabel=xlabel, ylabel=ylabel or f"test {of_task[0][1].score.label}")
    handles = {line.get_label(): line for axes in figure.axes for line in axes.get_legend_handles_labels()[0]}
    figure.legend(handles=handles.values(), loc="outside upper center", ncols=6 if wide else 3, handlelength=3.2)
    return figure


def _learning_curve(axes: Axes, curve: Curve, x: str, field: str, number: int, label: str) -> None:
    """The mean over seeds and its interval; the look is that of the guider with this number."""
    estimate: Estimate = getattr(curve, field)
    there = estimate.count > 0
    if not there.any():
        return
    at, value, low, high = (
        values[there] for values in (getattr(curve, x), estimate.value, estimate.low, estimate.high)
    )
    color = COLORS[number % len(COLORS)]
    marker = MARKERS[number % len(MARKERS)] if len(at) <= MOST_MARKERS else None
    axes.plot(at, value, linestyle=LINES[number % len(LINES)], marker=marker, markersize=2, color=color, label=label)
    axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0 if len(at) > 1 else POINT)


def _finish(axes: Axes, field: str, goal: float | None) -> None:
    """Axes that fit the curves, and a line at the goal."""
    if not axes.lines:
        axes.set_axis_off()
        return
    if goal is not None:
        axes.axhline(goal, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        low, high = axis.get_data_interval()
        if 0 < DECADE * low <= high and (axis is axes.xaxis or field == "scores"):
            set_scale("log")
        elif low <= DECADE * high < 0:  # returns that are minus a cost
            set_scale("symlog", linthresh=-high / 2)  # its linear part is out of sight
            axes.set_ylim(1.2 * low, high / 1.2)
        else:
            continue
        axis.set_minor_formatter(NullFormatter())
