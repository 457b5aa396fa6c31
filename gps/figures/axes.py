"""Axes that choose between a linear and a logarithmic scale; ticks are matplotlib's own."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator


def fit_scale(axes: Axes, mask: bool = False) -> None:
    """Make the y axis logarithmic if everything on it is positive and not all of one size.

    With `mask`, what is not positive does not count, and is missing on a logarithmic axis.
    """
    low, high = axes.yaxis.get_data_interval()
    low = axes.yaxis.get_minpos() if mask else low
    if low > 0 and high > 3 * low:
        axes.set_yscale("log", nonpositive="mask")


def symlog(axes: Axes, threshold: float) -> None:
    """Make both axes logarithmic away from zero, and linear within the threshold."""
    axes.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    axes.set_yscale("symlog", linthresh=threshold, linscale=0.5)


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers alone, of which the axis must have one."""
    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
