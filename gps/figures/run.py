"""Figures of a run, made for a two-column paper: what a run's folder figures/ holds.

Each figure is built by a function named `..._figure`, and saved as PNG and PDF by the function without that end.
Nothing passes through pyplot: no backend is chosen and no setting of the user's changes. What is null, NaN or
infinite in the metrics is left out, and so is a figure for which the metrics have no numbers at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gps.figures.animation import animation, reach, spread, written_whole
from gps.figures.axes import fit_scale, plain, symlog, whole_numbers

Rows = Sequence[Mapping[str, Any]]  # of `RunFolder.read_metrics`

WIDE, NARROW = 7.0, 3.4  # inches: the text and one column of a two-column paper
BLUE, GREEN, RED, GREY = "#0072B2", "#009E73", "#D55E00", "#6B6B6B"  # after Okabe and Ito: safe for the colour-blind
COLORS = (BLUE, RED, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)  # in the order of use
DISTANCES = (0.1, 10.0)  # cm, the span of the colours of distances: fixed, so that figures of two runs compare
MOST_PATHS = 60  # more would hide each other
MOST_SHAPES = 2000  # more dots than this are pixels in a PDF too
MOST_MARKERS = 40  # a curve with more points is a line without markers
POINT = 4  # points, the width of a band over one x

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: figures look the same on every machine
    "font.size": 7,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.5,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 6.5),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    **dict.fromkeys(("xtick.major.width", "ytick.major.width"), 0.6),
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
}
styled = matplotlib.style.context(["default", STYLE])  # a decorator; on matplotlib's own defaults, not the user's


def draw_all(
    rows: Rows,
    skeletons: Float[np.ndarray, "C T+1 P 2"],
    targets: Float[np.ndarray, "C 2"],
    distances: Float[np.ndarray, " C"],
    train_targets: Float[np.ndarray, "M 2"] | None,
    dt: float,
    figures: Path,
) -> list[Path]:
    """Draw every figure for which there are numbers into the folder `figures`.

    Args:
        rows: the run's metrics, one mapping per iteration.
        skeletons: m, the mechanism while the learner acts, once for each target; see `ControlTask.skeleton`.
        targets: m, what the learner was to reach.
        distances: m, how far from it the learner ended; NaN where the simulation diverged.
        train_targets: m, what the learner was trained on.
        dt: s, from one skeleton to the next.

    Returns:
        The files written. Each appears under its name whole or not at all.
    """
    return [
        *learning_curves(rows, figures / "learning_curves"),
        # a model-free guider has no multipliers, and its KL is in the figure of its returns
        *([] if any("train_return" in row for row in rows) else multipliers(rows, figures / "multipliers")),
        *improvement(rows, figures / "improvement"),
        *paths(skeletons, targets, distances, figures / "paths", train_targets),
        *animation(skeletons, targets, dt, figures / "reaching.gif"),
    ]


def learning_curves(rows: Rows, path: Path) -> list[Path]:
    """Save `learning_curves_figure` as `path` with .png and .pdf; returns the files written."""
    return save(learning_curves_figure(rows), path)


def multipliers(rows: Rows, path: Path) -> list[Path]:
    """Save `multipliers_figure` as `path` with .png and .pdf; returns the files written."""
    return save(multipliers_figure(rows), path)


def improvement(rows: Rows, path: Path) -> list[Path]:
    """Save `improvement_figure` as `path` with .png and .pdf; returns the files written."""
    return save(improvement_figure(rows), path)


def paths(skeletons, targets, distances, path: Path, train_targets=None) -> list[Path]:
    """Save `paths_figure` as `path` with .png and .pdf; returns the files written."""
    return save(paths_figure(skeletons, targets, distances, train_targets), path)


@styled
def learning_curves_figure(rows: Rows) -> Figure | None:
    """Distance and cost against simulator steps: mean and range of the controllers, means of the learner."""
    distances = (
        ("controllers_distance", BLUE, "o-", "controllers, mean"),
        ("train_distance_mean", GREEN, "s-", "learner, training targets"),
        ("test_distance_mean", RED, "^-", "learner, test targets"),
        ("test_distance_max", RED, ":", "learner, worst test target"),
    )
    costs = (
        ("cost", BLUE, "o-", "controllers, mean"),
        ("train_cost_mean", GREEN, "s-", "learner, training targets"),
        ("test_cost_mean", RED, "^-", "learner, test targets"),
    )
    figure = Figure(figsize=(WIDE, 2.4))
    left, right = figure.subplots(1, 2)
    for axes, unit, fields in ((left, 100.0, distances), (right, 1.0, costs)):
        for field, color, line, label in fields:
            steps, values = numbers(rows, "steps", field)
            curve(axes, steps / 1000, unit * values, np.nanmean, color=color, line=line, label=label)
        axes.set(xlabel="simulator steps (thousands)", xlim=(0, None))
        fit_scale(axes)
    left.set_ylabel("distance to the target (cm)")
    right.set_ylabel("cost of an episode")
    handles = {line.get_label(): line for axes in (left, right) for line in axes.get_legend_handles_labels()[0]}
    if not handles:
        return None
    figure.legend(handles=handles.values(), loc="outside upper center", ncols=5)
    return figure


@styled
def multipliers_figure(rows: Rows) -> Figure | None:
    """What ties guider and learner together, and each step to the last: median and range of the conditions."""
    fields = (
        ("lambda_norm", r"$|\lambda|$ (cost per action)"),
        ("nu", r"$\nu$ (cost per nat)"),
        ("kl_to_learner", "KL to learner (nat/step)"),
        ("eta", r"$\eta$ (cost per nat)"),
        ("kl_step", "KL of iteration (nat/step)"),
    )
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
    pairs = [
        (row["iteration"] + 1, _floats(row, "predicted_improvement"), _floats(row, "actual_improvement"))
        for row in rows
    ]
    points = np.concatenate([np.empty((0, 3)), *(np.column_stack(np.broadcast_arrays(*pair)) for pair in pairs)])
    points = points[np.isfinite(points).all(1)]
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


@styled
def paths_figure(
    skeletons: Float[np.ndarray, "C T+1 P 2"],
    targets: Float[np.ndarray, "C 2"],
    distances: Float[np.ndarray, " C"],
    train_targets: Float[np.ndarray, "M 2"] | None = None,
) -> Figure | None:
    """The workspace from above: every target by its final distance, some paths to them, the start, the reach."""
    skeletons, targets, distances = (np.asarray(values, float) for values in (skeletons, targets, distances))
    sound = np.isfinite(distances)
    if not len(targets):
        return None
    figure = Figure(figsize=(NARROW, 3.2), layout="compressed")
    axes = figure.add_subplot(aspect="equal", xlabel="x (cm)", ylabel="y (cm)")
    axes.grid(False)
    start = 100 * skeletons[0, 0]
    around = np.exp(1j * np.linspace(0, 2 * np.pi, 200)) * 100 * reach(skeletons)
    axes.plot(start[0, 0] + around.real, start[0, 1] + around.imag, ":", color=GREY, linewidth=0.6, label="reach")
    tips = 100 * skeletons[spread(np.arange(len(targets)), MOST_PATHS), :, -1]
    tips = [tip[np.isfinite(tip).all(1)] for tip in tips]
    axes.add_collection(LineCollection(tips, colors="0.65", linewidths=0.4, label="path of the fingertip"))
    axes.plot(*start.T, "o-", color="0.25", linewidth=3, markersize=4, markerfacecolor="w", label="start")
    if train_targets is not None:
        axes.plot(*100 * np.asarray(train_targets).T, "x", color="k", markersize=4, label="training target")
    order = np.flatnonzero(sound)[np.argsort(distances[sound])]  # the worst on top
    dots = axes.scatter(
        *100 * targets[order].T,
        c=np.maximum(100 * distances[order], 1e-9),  # no logarithm of zero
        s=13,
        cmap="viridis",
        norm=LogNorm(*DISTANCES),
        edgecolors="0.2",
        linewidths=0.3,
        zorder=3,
        label="test target",
    )
    if not sound.all():
        axes.scatter(*100 * targets[~sound].T, s=12, facecolors="none", edgecolors=RED, label="diverged")
    bar = figure.colorbar(dots, label="final distance to the target (cm)", extend="both", aspect=30, pad=0.02)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(plain))
    bar.outline.set_visible(False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def numbers(rows: Rows, x: str, field: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n M"]]:
    """Of the n rows with a finite number in `field`: their `x`, and the field with NaN for what is not finite.

    Iterations count from 1, as on the terminal.
    """
    found = [(row.get(x), _floats(row, field)) for row in rows]
    found = [(at, values) for at, values in found if at is not None and np.isfinite(values).any()]
    values = np.stack([values for _, values in found]) if found else np.empty((0, 1))
    return np.array([at for at, _ in found], float) + (x == "iteration"), np.where(np.isfinite(values), values, np.nan)


def _floats(row: Mapping[str, Any], field: str) -> np.ndarray:
    return np.atleast_1d(np.array(row.get(field), float))  # None becomes NaN


def curve(axes: Axes, x, values: Float[np.ndarray, "n M"], middle, *, color: str, line: str, label: str) -> None:
    """The middle of the M values over x, and their range as a band."""
    if not len(x):
        return
    line = line if len(x) <= MOST_MARKERS else line.strip("os^")
    line = line if len(x) > 1 or line[0] in "os^" else "o"  # of one point, a line is nothing
    axes.plot(x, middle(values, axis=1), line, color=color, label=label)
    if values.shape[1] > 1:
        low, high = np.nanmin(values, 1), np.nanmax(values, 1)
        width = 0 if len(x) > 1 else POINT  # the band of one point is a bar
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=width, label="their range")


@styled
def save(figure: Figure | None, path: Path) -> list[Path]:
    """Save a figure as `path` with .png and .pdf; returns the files written, none where there is no figure."""
    if figure is None:
        return []
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is found once and kept for both formats
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
    for file in files:
        with written_whole(file) as waiting:
            # Without the date, so that the same metrics give the same bytes.
            figure.savefig(waiting, format=file.suffix[1:], dpi=200, metadata={"CreationDate": None})
    return files
