"""Figures of a run's metrics: learning curves, and what a model-based guider logs of itself.

Each figure is built by a function named `..._figure`, which gives None where the metrics have no numbers for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gps.figures.axes import fit_scale, symlog, whole_numbers
from gps.figures.fields import BLUE, COSTS, GREY, MODELS, RED, SCORES, SOLVED, TIES, Rows, gains, numbers, shares
from gps.figures.style import NARROW, WIDE, curve, save, styled
from gps.tasks.task import Score

MOST_SHAPES = 2000  # more dots than this are pixels in a PDF too


def learning_curves(rows: Rows, score: Score, path: Path) -> list[Path]:
    """Save `learning_curves_figure` as `path` with .png and .pdf; returns the files written."""
    return save(learning_curves_figure(rows, score), path)


def multipliers(rows: Rows, path: Path) -> list[Path]:
    """Save `multipliers_figure` as `path` with .png and .pdf; returns the files written."""
    return save(multipliers_figure(rows), path)


def local_models(rows: Rows, path: Path) -> list[Path]:
    """Save `local_models_figure` as `path` with .png and .pdf; returns the files written."""
    return save(local_models_figure(rows), path)


def improvement(rows: Rows, path: Path) -> list[Path]:
    """Save `improvement_figure` as `path` with .png and .pdf; returns the files written."""
    return save(improvement_figure(rows), path)


@styled
def learning_curves_figure(rows: Rows, score: Score) -> Figure | None:
    """Score, cost and success against simulator steps: mean and range of the controllers, means of the learner."""
    panels = [(score.label, SCORES), ("cost of an episode", COSTS)]
    if any(row.get("test_solved") is not None for row in rows):
        panels.append(("solved (%)", SOLVED))
    figure = Figure(figsize=(WIDE, 2.4))
    handles = {}
    for axes, (label, fields) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for field, color, line, name in fields:
            steps, values = shares(rows, field) if fields is SOLVED else numbers(rows, "steps", field)
            curve(axes, steps / 1000, values, np.nanmean, color=color, line=line, label=name)
        axes.set(xlabel="simulator steps (thousands)", xlim=(0, None), ylabel=label)
        if fields is SOLVED:
            axes.set_ylim(-3, 103)
        else:
            fit_scale(axes)
        handles |= {line.get_label(): line for line in axes.get_legend_handles_labels()[0]}
    if not handles:
        return None
    figure.legend(handles=handles.values(), loc="outside upper center", ncols=5)
    return figure


@styled
def multipliers_figure(rows: Rows) -> Figure | None:
    """What ties guider and learner together, and each step to the last: median and range of the conditions."""
    return _over_iterations(rows, TIES)


@styled
def local_models_figure(rows: Rows) -> Figure | None:
    """What the local models are worth: median and range of the conditions.

    The error is that of predictions of the next state, relative to its change; the prior stands for so many samples.
    """
    return _over_iterations(rows, MODELS)


def _over_iterations(rows: Rows, fields: tuple[tuple[str, str], ...]) -> Figure | None:
    panels = [(field, label, found) for field, label in fields if len((found := numbers(rows, "iteration", field))[0])]
    if not panels:
        return None
    cells = len(panels) + 1  # the last is the legend's
    columns = 2 if cells <= 4 else 3
    lines = -(-cells // columns)
    figure = Figure(figsize=(WIDE * columns / 3, 1.7 * lines))
    for number, (field, label, found) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, number, xlabel="iteration", ylabel=label)
        curve(axes, *found, np.nanmedian, color=BLUE, line="o-", label="median of the conditions")
        if field == "kl_step":
            iterations, limits = numbers(rows, "iteration", "kl_limit")
            limits = np.nanmedian(limits, 1, keepdims=True)
            curve(axes, iterations, limits, np.nanmedian, color=RED, line="--", label="median of their limits")
        axes.set_xlim(0.5, max(found[0]) + 0.5)
        whole_numbers(axes.xaxis)
        fit_scale(axes)
    handles = figure.axes[-1].get_legend_handles_labels()
    corner = figure.add_subplot(lines, columns, cells)
    corner.set_axis_off()
    corner.legend(*handles, loc="center left")
    return figure


@styled
def improvement_figure(rows: Rows) -> Figure | None:
    """What each iteration gained per condition against what the local models promised."""
    points = gains(rows)
    if not len(points):
        return None
    iterations, predicted, actual = points.T
    figure = Figure(figsize=(NARROW, 2.7))
    axes = figure.add_subplot(xlabel="predicted improvement (cost)", ylabel="actual improvement (cost)")
    sizes = np.abs(points[:, 1:])
    if sizes.max() > 20 * np.median(sizes) > 0:
        symlog(axes, 10.0 ** np.floor(np.log10(np.percentile(sizes[sizes > 0], 20))))
    look = {"s": 9, "cmap": "viridis", "edgecolors": "0.3", "linewidths": 0.2}
    dots = axes.scatter(predicted, actual, c=iterations, rasterized=len(points) > MOST_SHAPES, **look)
    diagonal = np.array([min(0.0, predicted.min()), predicted.max()])
    axes.plot(diagonal, diagonal, color="k", linewidth=0.8, linestyle="--", label="as predicted")
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.legend(loc="upper left")
    dots.set_clim(1, max(2, iterations.max()))  # whole numbers, also where there is one iteration
    bar = figure.colorbar(dots, label="iteration", aspect=30, pad=0.02)
    whole_numbers(bar.ax.yaxis)
    bar.outline.set_visible(False)
    return figure
