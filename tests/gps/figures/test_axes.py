"""Ticks of logarithmic axes: few, round, apart from each other, and never a black bar."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from gps.figures.axes import CHARACTER, log_labels, log_ticks, plain


def axis_of(low: float, high: float):
    """The y axis, with ticks, of a panel 1.2 inches wide and 1.5 inches high."""
    axes = Figure(figsize=(1.2 / 0.775, 1.5 / 0.77)).add_subplot(ylim=(low, high))
    axes.set_yscale("log" if low > 0 else "symlog", **({} if low > 0 else {"linthresh": -high / 2}))
    axes.set_ylim(low, high)
    log_ticks(axes.yaxis)
    return axes.yaxis


@pytest.mark.parametrize("low", [1.3e-9, 0.0123, 0.9, 47.0, 5.5e5])
@pytest.mark.parametrize("factor", [1.0003, 1.02, 1.2, 1.6, 2.5, 6, 12, 50, 300, 1e4, 1e7, 1e12])
def test_labels_are_two_to_five_apart_and_on_the_axis(low, factor):
    for length, character in ((85.0, CHARACTER), (110.0, 0.0)):
        labels = log_labels(low, factor * low, length, character)
        assert 2 <= len(labels) <= 5
        assert low * (1 - 1e-8) <= min(labels) < max(labels) <= factor * low * (1 + 1e-8)
        heights = length * np.log(labels / low) / np.log(factor)
        assert np.diff(heights).min() > 6.5  # points, of a line


def test_minor_ticks_get_fewer_until_they_are_powers_of_ten():
    tenths = [f"{at:g}" for at in axis_of(-72, -11.7).minor.locator()]
    assert tenths[:10] == ["-12", "-13", "-14", "-15", "-16", "-17", "-18", "-19", "-20", "-25"]
    digits = axis_of(0.95, 110).minor.locator()
    np.testing.assert_allclose(digits, [*range(1, 10), *range(10, 100, 10), 100])
    np.testing.assert_allclose(axis_of(0.9e-6, 1.1).minor.locator(), 10.0 ** np.arange(-6, 1))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (0.001, "0.001"),
        (5000.0, "5000"),
        (-0.1, "\N{MINUS SIGN}0.1"),
        (1e-6, "$10^{-6}$"),
        (2e4, "20k"),
        (-1e5, "\N{MINUS SIGN}100k"),
        (2.5e6, "2.5M"),
        (1e9, "$10^{9}$"),
        (-2e10, r"$-2\cdot10^{10}$"),
        (1e-4, "$10^{-4}$"),
    ],
)
def test_ticks_are_plain_numbers_where_these_are_short(number, text):
    assert plain(number) == text
