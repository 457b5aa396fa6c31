"""How figures look, made for a two-column paper, and how they are saved.

Nothing passes through pyplot: no backend is chosen and no setting of the user's changes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gps.files import written_whole

WIDE, NARROW = 7.0, 3.4  # inches: the text and one column of a two-column paper
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
    **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 1.2),
    **dict.fromkeys(("xtick.minor.width", "ytick.minor.width"), 0.3),
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
}
styled = matplotlib.style.context(["default", STYLE])  # a decorator; on matplotlib's own defaults, not the user's


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
