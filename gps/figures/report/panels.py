"""Curves and maps of a run's metrics, as plotly's figures in plain dicts: what figures show, and nothing computed.

Each function returns the panels for which the metrics have numbers. A curve has as many `x` as the page offers axes,
by their names in `AXES`; page.js takes the one that is chosen.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gps.figures.fields import (
    BLUE,
    COLORS,
    COSTS,
    GREY,
    MODEL_FREE,
    MODELS,
    RED,
    RETURNS,
    SCORES,
    SIGNED,
    SOLVED,
    TIES,
    Curves,
    Rows,
    floats,
    gains,
    numbers,
    shares,
)
from gps.tasks.task import Score

Panel = dict[str, Any]  # title, plotly's data and layout; "wide" where it takes the page's width
AXES = {"steps": "simulator steps", "iteration": "iteration", "seconds": "wall time (s)"}
MOST_ROWS = 1500  # of longer metrics every second row is shown, or every third, ...
STEP = ("step_size", "step size (share of the KL limit)")
MAPS = (  # a number for each condition and iteration
    ("controllers_score", "score of the controllers"),
    ("cost", "cost of the controllers"),
    ("model_error", "relative model error"),
    ("faithful", "local model trusted (1) or not (0)"),
    ("step_size", "step size"),
    ("kl_to_learner", "KL to learner (nat/step)"),
)
COUNTED = tuple(field for field, *_ in SOLVED)
DASHES = {"-": "solid", ":": "dot", "--": "dash"}
SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up"}
MAP_COLORS = "Viridis"


def learning(rows: Rows, score: Score) -> list[Panel]:
    """Scores, costs, successes and returns, as in the figures of `gps.figures.run` and `gps.figures.returns`."""
    panels = [
        _curves(rows, SCORES, score.label, np.nanmean),
        _curves(rows, COSTS, "cost of an episode", np.nanmean),
        _solved(rows),
    ]
    if any("train_return" in row for row in rows) or not any(panels):
        panels.append(_curves(rows, RETURNS, "return of an episode", np.nanmean, log=False))
    return [panel for panel in panels if panel]


def ties(rows: Rows) -> list[Panel]:
    """What ties guider and learner together: duals, divergences, step sizes; median and range of the conditions."""
    model_free = any("train_return" in row for row in rows)
    return [panel for field in (MODEL_FREE if model_free else (*TIES, STEP)) if (panel := _median(rows, *field))]


def models(rows: Rows) -> list[Panel]:
    """What local models are worth, and what iterations gained against what the models had promised."""
    found = [_median(rows, *field) for field in MODELS]
    return [panel for panel in (*found, _improvement(rows)) if panel]


def others(rows: Rows) -> list[Panel]:
    """All other numbers of the metrics."""
    shown = {field for table in (SCORES, COSTS, SOLVED, RETURNS) for field, *_ in table}
    shown |= {field for table in (TIES, MODELS, MODEL_FREE, MAPS, (STEP,)) for field, _ in table}
    shown |= {*AXES, "compiles", "best_iteration", "predicted_improvement", "actual_improvement"}
    shown |= {"kl_limit", *(field.replace("solved", "episodes") for field in COUNTED)}
    names = dict.fromkeys(name for row in rows for name in row if name not in shown)
    return [panel for name in names if (panel := _median(rows, name, name.replace("_", " ")))]


def maps(rows: Rows) -> list[Panel]:
    """Conditions down, iterations across, one number in each cell."""
    panels = []
    for field, title in MAPS:
        iterations, values = numbers(rows, "iteration", field)
        if values.shape[1] < 2:
            continue
        cells = values.T
        positive = cells[cells > 0]
        log = len(positive) and positive.max() > 30 * positive.min() and not (cells < 0).any()
        shade = np.log10(np.where(cells > 0, cells, np.nan)) if log else cells
        heat: dict[str, Any] = {
            "type": "heatmap",
            "x": plain(iterations),
            "y": list(range(1, len(cells) + 1)),
            "z": plain(shade),
            "customdata": plain(cells),
            "colorscale": MAP_COLORS,
            "hovertemplate": "condition %{y}, iteration %{x}<br>%{customdata:.4g}<extra></extra>",
            "colorbar": {"thickness": 8, "outlinewidth": 0},
        }
        if log:
            exponents = np.arange(np.floor(np.nanmin(shade)), np.ceil(np.nanmax(shade)) + 1)
            heat["colorbar"] |= {"tickvals": plain(exponents), "ticktext": [f"{10.0**e:.3g}" for e in exponents]}
        axes = {"xaxis": {"title": {"text": "iteration"}}, "yaxis": {"title": {"text": "training condition"}}}
        panels.append({"title": title, "data": [heat], "layout": axes})
    return panels


def compared(runs: Sequence[tuple[str, str, Rows]], score: Score) -> list[Panel]:
    """The learners of several runs over each other.

    Args:
        runs: name, group and metrics of each; runs of one group differ in their seeds alone, and share a colour.
    """
    groups = list(dict.fromkeys(group for _, group, _ in runs))
    fields = (
        ("test_score", f"test {score.label}"),
        ("test_solved", "test episodes solved (%)"),
        ("learner_return", "return of the learner"),
        ("train_score", f"training {score.label}"),
        ("controllers_score", f"controllers, {score.label}"),
        ("learner_return_sampled", "return by sampled actions"),
    )
    panels = []
    for field, label in fields:
        traces = []
        for name, group, rows in runs:
            xs, values = _over(rows, field)
            color = COLORS[groups.index(group) % len(COLORS)]
            trace = _line(xs, np.nanmean(values, axis=1) if values.size else [], name, color, "-")
            traces += [trace] if values.size else []
        if traces:
            panels.append(_panel(label, traces, log=field not in ("test_solved", "learner_return_sampled")))
    return panels


def plain(values: Any) -> Any:
    """Arrays as lists of numbers with six digits that count, which JSON can hold; None for what is not finite."""
    if isinstance(values, np.ndarray | list):
        return [plain(value) for value in values]
    return float(f"{values:.6g}") if np.isfinite(values) else None


def thinned(rows: Rows) -> Rows:
    """At most about `MOST_ROWS` of them, the last among them."""
    stride = -(-len(rows) // MOST_ROWS)
    return [row for i, row in enumerate(rows) if (len(rows) - 1 - i) % stride == 0] if stride > 1 else rows


def log_scale(values: Sequence[float | None]) -> dict[str, Any]:
    """Plotly's words for a logarithmic axis where all is positive and not of one size, and for a linear one else."""
    there = [value for value in values if value is not None]
    if not there or min(there) <= 0 or max(there) <= 3 * min(there):
        return {}
    return {"type": "log", "tickformat": "~g", **({"dtick": "D2"} if max(there) < 100 * min(there) else {})}


def text(words: str) -> str:
    """A text for a figure: plotly reads some markup in what it shows."""
    return html.escape(words, quote=False)


def _curves(rows: Rows, curves: Curves, label: str, middle: Callable, log: bool = True) -> Panel | None:
    found = [((field, *look), _over(rows, field)) for field, *look in curves]
    traces = [t for (_, *look), (xs, values) in found if len(values) for t in _banded(xs, values, middle, *look)]
    return _panel(label, traces, log) if traces else None


def _solved(rows: Rows) -> Panel | None:
    found = [(_over(rows, field), label, color, line) for field, color, line, label in SOLVED]
    traces = [_line(xs, values[:, 0], *look) for (xs, values), *look in found if len(values)]
    panel = _panel("solved (%)", traces, log=False)
    panel["layout"]["yaxis"] = {"range": [-3, 103]}
    return panel if traces else None


def _median(rows: Rows, field: str, label: str) -> Panel | None:
    """A field's median over the conditions, and their range; the limits too of what has some."""
    try:
        xs, values = _over(rows, field)
    except (ValueError, TypeError):  # of `others`: a text, or lists in lists
        return None
    if not len(values):
        return None
    name = "median of the conditions" if values.shape[1] > 1 else label
    traces = _banded(xs, values, np.nanmedian, BLUE, "o-", name)
    if field == "kl_step":
        xs, limits = _over(rows, "kl_limit")
        traces += [_line(xs, np.nanmedian(limits, axis=1), "median of their limits", RED, "--")] if len(limits) else []
    return _panel(label, traces, log=field not in SIGNED)


def _improvement(rows: Rows) -> Panel | None:
    points = gains(rows)
    if not len(points):
        return None
    iterations, predicted, actual = points.T
    ends = [min(0.0, predicted.min()), predicted.max()]
    marker = {"color": plain(iterations), "colorscale": MAP_COLORS, "size": 6, "line": {"width": 0.3, "color": GREY}}
    ticks = {"tick0": 0, "dtick": max(1, round(np.ptp(iterations) / 5))}
    marker["colorbar"] = {"title": {"text": "iteration", "side": "right"}, "thickness": 8, "outlinewidth": 0, **ticks}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": plain(predicted),
        "y": plain(actual),
        "customdata": plain(iterations),
        "marker": marker,
        "hovertemplate": "iteration %{customdata}<br>predicted %{x:.4g}<br>actual %{y:.4g}<extra></extra>",
        "showlegend": False,
    }
    diagonal = {"type": "scatter", "mode": "lines", "x": plain(ends), "y": plain(ends), "name": "as predicted"}
    diagonal |= {"line": {"color": "#000000", "width": 1, "dash": "dash"}, "hoverinfo": "skip"}
    axes = {"xaxis": {"title": {"text": "predicted"}}, "yaxis": {"title": {"text": "actual"}}}
    return {"title": "improvement (cost)", "data": [diagonal, dots], "layout": axes}


def _over(rows: Rows, field: str) -> tuple[dict[str, list], Float[np.ndarray, "n M"]]:
    """Of the n rows that have a finite number in `field`: the `x` of every axis, and the field; of successes their
    share in %."""
    iterations, values = numbers(rows, "iteration", field)
    if field in COUNTED:
        values = shares(rows, field)[1]
    by_iteration = {row["iteration"] + 1: row for row in rows if "iteration" in row}
    xs = {name: np.array([floats(by_iteration[i], name)[0] for i in iterations]) for name in AXES}
    return {name: plain(x) for name, x in {**xs, "iteration": iterations}.items()}, values


def _banded(xs: dict[str, list], values: Float[np.ndarray, "n M"], middle: Callable, *look: str) -> list[dict]:
    """The middle of the M values, and their range as a band; `look`: colour, line and label."""
    color, line, label = look
    trace = _line(xs, middle(values, axis=1), label, color, line)
    if values.shape[1] == 1:
        return [trace]
    low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    trace["customdata"] = plain(np.stack([low, high], 1))
    trace["hovertemplate"] = "%{y:.4g} (%{customdata[0]:.4g} to %{customdata[1]:.4g})"
    band = {
        "type": "scatter",
        "mode": "lines",
        "xs": {name: x + x[::-1] for name, x in xs.items()},
        "y": plain(np.concatenate([low, high[::-1]])),
        "fill": "toself",
        "fillcolor": f"{color}26",  # with opacity 0.15
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": label,
    }
    return [band, trace | {"legendgroup": label}]


def _line(xs: Mapping[str, list], y: Iterable, label: str, color: str, line: str) -> dict[str, Any]:
    dash = line.strip("os^") or "-"
    symbol = next((SYMBOLS[c] for c in line if c in SYMBOLS), "circle")
    bare = line == dash and line != "-"
    return {
        "type": "scatter",
        "mode": "lines" if bare and len(next(iter(xs.values()))) > 1 else "lines+markers",
        "xs": dict(xs),
        "y": plain(np.asarray(y, float)),
        "name": text(label),
        "line": {"color": color, "width": 1.6, "dash": DASHES[dash]},
        "marker": {"symbol": symbol, "size": 5, "color": color},
        "hovertemplate": "%{y:.4g}",
    }


def _panel(title: str, traces: list[dict], log: bool) -> Panel:
    """A panel of curves; with `log` its axis is logarithmic where all is positive and not of one size."""
    scale = log_scale([value for trace in traces for value in trace["y"]]) if log else {}
    return {"title": text(title), "data": traces, "layout": {"hovermode": "x unified", "yaxis": scale}}
