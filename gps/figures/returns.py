"""Figures of a run whose guider is model-free, or whose task is no `ControlTask`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gps.figures.axes import fit_scale
from gps.figures.fields import BLUE, MODEL_FREE, RETURNS, SIGNED, Rows, numbers
from gps.figures.style import WIDE, curve, save, styled


def returns(rows: Rows, path: Path) -> list[Path]:
    """Save `returns_figure` as `path` with .png and .pdf; returns the files written."""
    return save(returns_figure(rows), path)


@styled
def returns_figure(rows: Rows) -> Figure | None:
    """Returns over simulator steps, and what ties guider and learner; None where nothing was trained by returns."""
    if not any("train_return" in row for row in rows):
        return None
    curves = [(numbers(rows, "steps", field), *look) for field, *look in RETURNS]
    curves = [(found, *look) for found, *look in curves if len(found[0])]
    if not curves:
        return None
    ties = [(field, label, found) for field, label in MODEL_FREE if len((found := numbers(rows, "steps", field))[0])]
    last = max(steps[-1] for steps, _ in [found for found, *_ in curves] + [found for *_, found in ties]) / 1000
    figure = Figure(figsize=(WIDE, 2.0 * (1 + (len(ties) > 0))))
    parts = np.atleast_1d(np.asarray(figure.subfigures(2 if ties else 1, 1)))
    axes = parts[0].subplots()
    axes.set(xlabel="simulator steps (thousands)", ylabel="return of an episode", xlim=(0, 1.05 * last))
    for (steps, values), color, line, label in curves:
        curve(axes, steps / 1000, values, np.nanmean, color=color, line=line, label=label)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    cells = parts[1].subplots(1, len(ties), squeeze=False)[0] if ties else []
    for cell, (field, label, (steps, values)) in zip(cells, ties, strict=True):
        curve(cell, steps / 1000, values, np.nanmean, color=BLUE, line="o-", label=label)
        cell.set(xlabel="steps (thousands)", title=label, xlim=(0, 1.05 * last))  # what begins later leaves room
        cell.title.set_fontsize(7)
        if field not in SIGNED:
            fit_scale(cell, mask=True)
    return figure
