"""What the learner does in the test conditions: states, actions, costs and scores; where there is a skeleton, paths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from gps.figures.axes import fit_scale
from gps.figures.fields import BLUE, COLORS, GREEN, GREY, RED
from gps.figures.style import NARROW, WIDE, save, styled
from gps.tasks.task import Score

MOST_PATHS = 60  # more would hide each other


@dataclass(frozen=True)
class LearnerEpisodes:
    """One episode of the learner for each of C test conditions; NaN where a simulation diverged."""

    score: Score
    scores: Float[np.ndarray, " C"]
    solved: Bool[np.ndarray, " C"] | None
    contexts: Float[np.ndarray, "C nc"]
    xs: Float[np.ndarray, "C T+1 nx"]
    us: Float[np.ndarray, "C T nu"]
    costs: Float[np.ndarray, "C T+1"]
    dt: float  # s, from one state to the next
    skeletons: Float[np.ndarray, "C T+1 P 3"] | None = None  # m, see `ControlTask`
    targets: Float[np.ndarray, "C 3"] | None = None  # m, what is to be reached
    train_targets: Float[np.ndarray, "M 3"] | None = None

    def said(self, condition: int) -> str:
        """The score of a condition in words."""
        return f"{self.scores[condition]:.3g} {self.score.unit}".strip()

    @property
    def plane(self) -> list[int]:
        """The two of the axes x, y, z along which the skeletons extend most."""
        assert self.skeletons is not None
        points = self.skeletons[np.isfinite(self.skeletons).all((1, 2, 3))].reshape(-1, 3)
        extent = np.ptp(points, axis=0) if len(points) else np.zeros(3)
        return sorted(np.argsort(-extent, kind="stable")[:2].tolist())

    @property
    def order(self) -> np.ndarray:
        """Conditions that did not diverge, from the best to the worst."""
        sound = np.flatnonzero(np.isfinite(self.scores))
        sign = -1 if self.score.more_is_better else 1
        return sound[np.argsort(sign * self.scores[sound], kind="stable")]


def episodes(acted: LearnerEpisodes, path: Path) -> list[Path]:
    """Save `episodes_figure` as `path` with .png and .pdf; returns the files written."""
    return save(episodes_figure(acted), path)


def paths(acted: LearnerEpisodes, path: Path) -> list[Path]:
    """Save `paths_figure` as `path` with .png and .pdf; returns the files written."""
    return save(paths_figure(acted), path)


@styled
def episodes_figure(acted: LearnerEpisodes) -> Figure | None:
    """States, actions and costs over time in the median and the worst condition, and the scores of all conditions."""
    order = acted.order
    if not len(order):
        return None
    median, worst = order[(len(order) - 1) // 2], order[-1]
    figure = Figure(figsize=(WIDE, 4.4))
    (states, actions), (costs, scores) = figure.subplots(2, 2)
    time = acted.dt * np.arange(acted.xs.shape[1])
    for condition, look in ((median, "-"), (worst, ":")):
        _components(states, time, acted.xs[condition], "x", look)
        _components(actions, time, np.concatenate([acted.us[condition], acted.us[condition, -1:]]), "u", look)
        of = "median" if condition == median else "worst"
        label = f"{of} condition, {acted.said(condition)}"
        costs.plot(time, acted.costs[condition], look, color=RED if look == ":" else BLUE, label=label, zorder=3)
        if median == worst:
            break
    some = acted.costs[order[np.unique(np.linspace(0, len(order) - 1, MOST_PATHS).astype(int))]]
    costs.add_collection(LineCollection([np.column_stack([time, c]) for c in some], colors="0.8", linewidths=0.4))
    for axes, label in ((states, "state"), (actions, "action"), (costs, "cost of a step")):
        axes.set(xlabel="time (s)", ylabel=label, xlim=(0, time[-1]))
    fit_scale(costs)
    costs.legend()
    _scores(scores, acted, order)
    figure.suptitle(
        f"learner, {len(acted.scores)} test conditions: solid the median one, dotted the worst", fontsize=7.5
    )
    return figure


def _components(axes: Axes, time, values: Float[np.ndarray, "T n"], letter: str, look: str) -> None:
    """A line for each component; a legend where there are few."""
    count = values.shape[1]
    few = count <= len(COLORS)
    colors = COLORS if few else matplotlib.colormaps["viridis"](np.linspace(0, 1, count))
    for i, (line, color) in enumerate(zip(values.T, colors, strict=False)):
        label = f"{letter}[{i}]" if few and look == "-" else None
        axes.plot(time, line, look, color=color, label=label, drawstyle="steps-post" if letter == "u" else None)
    if few and look == "-":
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=4, columnspacing=1)


def _scores(axes: Axes, acted: LearnerEpisodes, order: np.ndarray) -> None:
    """Over the context where that is one number, else from the best condition to the worst."""
    one = acted.contexts.shape[1] == 1
    x = acted.contexts[:, 0] if one else np.empty(len(acted.scores))
    if not one:
        x[order] = 100 * (0.5 + np.arange(len(order))) / len(order)
    done = np.ones(len(x), bool) if acted.solved is None else acted.solved
    shown = np.isfinite(acted.scores)
    for part, color, label in ((shown & done, GREEN, "solved"), (shown & ~done, RED, "not solved")):
        axes.plot(x[part], acted.scores[part], "o", color=BLUE if acted.solved is None else color, label=label)
    axes.set(xlabel="context" if one else "test conditions, best to worst (%)", ylabel=acted.score.label)
    lost = len(x) - len(order)
    notes = [f"{int(acted.solved.sum())} of {len(x)} solved"] if acted.solved is not None else []
    axes.set_title(", ".join(notes + ([f"{lost} diverged"] if lost else [])), fontsize=7)
    fit_scale(axes)


@styled
def paths_figure(acted: LearnerEpisodes) -> Figure | None:
    """The plane of the skeleton: the paths of its end, the start, and what was to be reached, by score."""
    assert acted.skeletons is not None
    plane = acted.plane
    skeletons, scores = acted.skeletons[..., plane], np.asarray(acted.scores, float)
    if not len(scores):
        return None
    figure = Figure(figsize=(NARROW, 3.2), layout="compressed")
    across, up = ("xyz"[axis] for axis in plane)
    axes = figure.add_subplot(aspect="equal", xlabel=f"{across} (m)", ylabel=f"{up} (m)")
    axes.grid(False)
    start = skeletons[0, 0]
    if np.nanmax(np.abs(skeletons[:, :, 0] - start[0])) < 1e-6:  # its base stays
        around = np.exp(1j * np.linspace(0, 2 * np.pi, 200)) * reach(skeletons)
        axes.plot(start[0, 0] + around.real, start[0, 1] + around.imag, ":", color=GREY, linewidth=0.6, label="reach")
    shown = np.unique(np.linspace(0, len(scores) - 1, MOST_PATHS).round().astype(int))
    ends = [end[np.isfinite(end).all(1)] for end in skeletons[shown, :, -1]]
    axes.add_collection(LineCollection(ends, colors="0.65", linewidths=0.4, label="path of the end"))
    axes.plot(*start.T, "o-", color="0.25", linewidth=3, markersize=4, markerfacecolor="w", label="start")
    if acted.train_targets is not None:
        axes.plot(*acted.train_targets[:, plane].T, "x", color="k", markersize=4, label="training target")
    targets = skeletons[:, -1, -1] if acted.targets is None else acted.targets[:, plane]
    order = acted.order  # the worst on top
    dots = axes.scatter(
        *targets[order].T,
        c=scores[order],
        s=13,
        cmap="viridis_r" if acted.score.more_is_better else "viridis",
        norm=_norm(scores[order]),
        edgecolors="0.2",
        linewidths=0.3,
        zorder=3,
        label="end of an episode" if acted.targets is None else "test target",
    )
    lost = ~np.isfinite(scores)
    if lost.any():
        axes.scatter(*targets[lost].T, s=12, facecolors="none", edgecolors=RED, label="diverged")
    bar = figure.colorbar(dots, label=acted.score.label, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def reach(skeletons: Float[np.ndarray, "C T+1 P 2"]) -> float:
    """How far from its base a mechanism comes that is stretched out, in metres; 0 for a point."""
    return float(np.linalg.norm(np.diff(skeletons[0, 0], axis=0), axis=1).sum())


def _norm(scores: np.ndarray) -> Normalize:
    """Whole decades for positive scores, so that the colours of two runs mostly mean the same."""
    if len(scores) and scores.min() > 0:
        low, high = (
            10.0 ** rounded(math.log10(end)) for rounded, end in ((math.floor, scores.min()), (math.ceil, scores.max()))
        )
        return LogNorm(low, max(high, 10 * low))
    return Normalize()
