"""What a page shows of all episodes: how every condition ended, and paths; `replay` shows some of them step by step."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int

from gps.figures.fields import BLUE, GREEN, GREY, RED
from gps.figures.report.panels import Panel, log_scale, plain, text
from gps.tasks.task import Score

MOST_STEPS = 121  # of an episode
MOST_PATHS = 60  # of the test


@dataclass(frozen=True)
class Acted:
    """One episode of the learner or of the guider in each of C conditions; NaN where a simulation diverged."""

    states: Float[np.ndarray, "C T+1 nstate"]  # of the simulator
    xs: Float[np.ndarray, "C T+1 nx"]
    us: Float[np.ndarray, "C T nu"]
    costs: Float[np.ndarray, "C T+1"]
    scores: Float[np.ndarray, " C"]
    solved: Bool[np.ndarray, " C"] | None  # None where the task does not say
    ends: Float[np.ndarray, "C T+1 3"] | None  # m, the end of the skeleton

    def said(self, condition: int, score: Score) -> str:
        """How an episode ended, in words."""
        words = f"{self.scores[condition]:.3g} {score.unit}".strip()
        return words if self.solved is None else f"{words}, {'solved' if self.solved[condition] else 'not solved'}"


@dataclass(frozen=True)
class Shown:
    """The episodes that a page is about."""

    score: Score
    dt: float  # s, from one state to the next
    contexts: Float[np.ndarray, "M+C nc"]  # those of training, then those of the test
    trained: int  # M
    targets: Float[np.ndarray, "M+C 3"] | None  # m, what is to be reached
    model: mujoco.MjModel | None  # None: there is no scene
    learner: Acted  # in all of them
    guider: Acted | None  # in the M training conditions, where it can be shown

    def name(self, condition: Any) -> str:
        """Of a condition, with its context where that is short."""
        test = condition >= self.trained
        name = f"test {condition - self.trained + 1}" if test else f"training {condition + 1}"
        context = self.contexts[condition]
        return name + (f" ({', '.join(f'{number:.3g}' for number in context)})" if len(context) <= 4 else "")


def outcomes(shown: Shown) -> list[Panel]:
    """The score of every condition: guider and learner in those of training, the learner in those of the test."""
    M, total = shown.trained, len(shown.contexts)
    training = [_outcomes(shown, shown.learner, np.arange(M), "learner", GREEN, np.arange(1, M + 1))]
    if shown.guider is not None:
        training.insert(0, _outcomes(shown, shown.guider, np.arange(M), "guider", BLUE, np.arange(1, M + 1)))
    sign = -1 if shown.score.more_is_better else 1
    test = np.arange(M, total)
    order = test[np.argsort(sign * shown.learner.scores[test], kind="stable")]
    ranks = 100 * (0.5 + np.arange(len(order))) / max(1, len(order))
    panels = [
        ("training conditions", training, "training condition"),
        ("test conditions", [_outcomes(shown, shown.learner, order, "learner", RED, ranks)], "best to worst (%)"),
    ]
    return [_panel(shown, *panel) for panel in panels if panel[1][0]["x"]]


def paths(shown: Shown) -> list[Panel]:
    """The end of the skeleton in the plane in which it moves most, in the world's frame."""
    if shown.learner.ends is None:
        return []
    points = shown.learner.ends[np.isfinite(shown.learner.ends).all((1, 2))].reshape(-1, 3)
    if not len(points):
        return []
    across, up = sorted(np.argsort(-np.ptp(points, axis=0), kind="stable")[:2].tolist())
    M, total = shown.trained, len(shown.contexts)
    test, training = np.arange(M, total)[spread(total - M, MOST_PATHS)], np.arange(M)
    traces = [
        _paths(shown, shown.learner, test, (across, up), "learner, test conditions", "#B0B0B0", 1.0),
        _paths(shown, shown.learner, training, (across, up), "learner, training conditions", GREEN, 1.2),
        _paths(shown, shown.guider, training, (across, up), "guider", BLUE, 1.2),
    ]
    if shown.targets is not None:
        for part, name, symbol, color in (
            (test, "test target", "circle-open", GREY),
            (training, "training target", "x", "#000000"),
        ):
            at = shown.targets[part]
            marks = {"type": "scatter", "mode": "markers", "x": plain(at[:, across]), "y": plain(at[:, up])}
            marks |= {"name": name, "marker": {"symbol": symbol, "size": 6, "color": color}}
            names = [text(shown.name(i)) for i in part]
            traces.append(marks | {"text": names, "hovertemplate": "%{text}<extra>" + name + "</extra>"})
    axes = [{"title": {"text": f"{'xyz'[axis]} (m)"}} for axis in (across, up)]
    layout = {"xaxis": axes[0], "yaxis": {**axes[1], "scaleanchor": "x"}, "hovermode": "closest"}
    return [{"title": "paths", "large": True, "data": [trace for trace in traces if trace], "layout": layout}]


def _outcomes(shown: Shown, acted: Acted, some: np.ndarray, who: str, color: str, at: np.ndarray) -> dict[str, Any]:
    there = np.isfinite(acted.scores[some])
    some, at = some[there], at[there]
    done = np.ones(len(some), bool) if acted.solved is None else acted.solved[some]
    total = "" if acted.solved is None else f", {int(done.sum())} of {len(there)} solved"
    lost = f", {int((~there).sum())} diverged" if not there.all() else ""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": plain(at),
        "y": plain(acted.scores[some]),
        "name": f"{who}{total}{lost}",
        "text": [text(f"{shown.name(i)}: {acted.said(i, shown.score)}") for i in some],
        "hovertemplate": "%{text}<extra>" + who + "</extra>",
        "marker": {"color": color, "size": 6, "symbol": ["circle" if ok else "x-thin-open" for ok in done]},
    }


def _panel(shown: Shown, title: str, traces: list[dict[str, Any]], xlabel: str) -> Panel:
    scale = log_scale([value for trace in traces for value in trace["y"]])
    layout = {
        "xaxis": {"title": {"text": xlabel}},
        "yaxis": {"title": {"text": text(shown.score.label)}, **scale},
        "hovermode": "closest",
        "showlegend": True,
    }
    return {"title": title, "data": traces, "layout": layout}


def _paths(
    shown: Shown, acted: Acted | None, some: np.ndarray, plane: tuple[int, int], name: str, color: str, width: float
) -> dict[str, Any] | None:
    """One trace for all paths of a kind, with gaps between them."""
    if acted is None or acted.ends is None or not len(some):
        return None
    times = spread(acted.ends.shape[1], MOST_STEPS)
    gap = np.full((1, 3), np.nan)
    points = np.concatenate([np.concatenate([acted.ends[i][times], gap]) for i in some])
    names = [
        words for i in some for words in [text(f"{shown.name(i)}: {acted.said(i, shown.score)}")] * (len(times) + 1)
    ]
    across, up = (_short(points[:, axis]) for axis in plane)
    line = {"color": color, "width": width}
    found = {"type": "scatter", "mode": "lines", "x": across, "y": up, "name": name, "line": line, "text": names}
    return found | {"hovertemplate": "%{text}<extra>" + name + "</extra>"}


def _short(values: np.ndarray) -> Any:
    """As `plain`, with four digits that count."""
    if values.ndim:
        return [_short(value) for value in values]
    return float(f"{values:.4g}") if np.isfinite(values) else None


def spread(total: int, most: int) -> Int[np.ndarray, " n"]:
    """At most so many of the indices below `total`, spread evenly, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))
