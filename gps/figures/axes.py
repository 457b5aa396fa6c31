"""Logarithmic axes: when a figure has one, and as many labels on it as there is room for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, SymmetricalLogLocator

MOST = 5  # labels on an axis
LABELLED = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # in every decade
DIGITS = np.arange(1.0, 10)
FINE = np.concatenate([np.arange(10, 20) / 10, np.arange(4, 10) / 2, np.arange(5.0, 10)])
STEPS = np.array([0.1, 0.2, 0.5, 1, 2, 5])  # of the order of the axis
UNSEEN = str.maketrans("", "", "${}^")  # in labels
LINE, CHARACTER = 14.0, 4.2  # points that a label of 6.5 points needs above another one, and beside it for each letter


def fit_scale(axes: Axes, mask: bool = False) -> None:
    """Make the y axis logarithmic if everything on it is positive and not all of one size.

    With `mask`, what is not positive does not count, and is missing on a logarithmic axis.
    """
    low, high = axes.yaxis.get_data_interval()
    low = axes.yaxis.get_minpos() if mask else low
    if not (low > 0 and high > 3 * low):
        return
    axes.set_yscale("log", nonpositive="mask")
    log_ticks(axes.yaxis)


def log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis, or of one below zero, for the limits that it has now."""
    ends = np.array(axis.get_view_interval())
    sign = np.sign(ends[0])
    low, high = np.sort(sign * ends)
    decades = np.log10(high / low)
    minor = FINE if decades <= 1 else DIGITS if decades <= 3 else np.ones(1)  # more would be a black bar
    points = 72 / axis.axes.figure.dpi * np.array(axis.axes.bbox.size)  # before the layout, but near enough
    room = (points[0], CHARACTER) if isinstance(axis, XAxis) else (points[1], 0.0)
    axis.set_major_locator(FixedLocator(sign * log_labels(low, high, *room)))
    axis.set_minor_locator(FixedLocator(sign * _in_decades(low, high, minor)))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())


def log_labels(low: float, high: float, length: float, character: float) -> Float[np.ndarray, " n"]:
    """Round numbers on a logarithmic axis from `low` to `high`, both positive: the most whose labels do not touch.

    Args:
        length: points, of the axis.
        character: points, of a letter of labels side by side; 0 for labels one above the other.
    """
    unit = 10 ** np.floor(np.log10(high - low))
    powers = _in_decades(low, high, (1,))
    sets = [_in_decades(low, high, digits) for digits in LABELLED]
    sets += [powers[np.round(np.log10(powers)) % n == 0] for n in range(2, len(powers) + 1)]
    # a short part of a logarithmic axis is almost a linear one
    sets += [step * np.arange(np.ceil(low / step), np.floor(high / step) + 1) for step in unit * STEPS]
    sets += [values[[0, -1]] for values in sets[::-1] if len(values) > 2]

    def fit(values) -> bool:
        letters = [len(plain(value).replace(r"\cdot", ".").translate(UNSEEN)) for value in values]
        needed = [character * (1 + count) if character else LINE for count in letters]
        gaps = length * np.diff(np.log(values)) / np.log(high / low)
        return len(values) <= MOST and bool(np.all(gaps >= (np.array(needed[1:]) + needed[:-1]) / 2))

    return max(filter(fit, sets), key=len)


def _in_decades(low: float, high: float, digits) -> Float[np.ndarray, " n"]:
    """Every power of ten times each of the digits, from `low` to `high`."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    values = np.outer(powers, digits).ravel()
    return values[(values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9))]


def symlog(axes: Axes, threshold: float) -> None:
    """Make both axes logarithmic away from zero, and linear within the threshold."""
    axes.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    axes.set_yscale("symlog", linthresh=threshold, linscale=0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold))
        axis.set_major_formatter(FuncFormatter(plain))


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers alone, of which the axis must have one."""
    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def plain(number: float, _position: int | None = None) -> str:
    """A tick's label: 0.01, 1, 1000, 10k, 1M, and powers of ten beyond."""
    size = abs(number)
    if size == 0 or 1e-3 <= size < 1e9:
        scale, letter = (1e6, "M") if size >= 1e6 else (1e3, "k") if size >= 1e4 else (1.0, "")
        return f"{number / scale:g}{letter}".replace("-", "\N{MINUS SIGN}")
    exponent = int(np.floor(np.log10(size) + 1e-9))
    factor = f"{number / 10.0**exponent:g}"
    factor = {"1": "", "-1": "-"}.get(factor, rf"{factor}\cdot")
    return f"${factor}10^{{{exponent}}}$"
