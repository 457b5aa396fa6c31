"""The figure of returns: a point for every number, and one x axis for all panels."""

from __future__ import annotations

import numpy as np

from gps.figures.returns import returns_figure


def figure_of(count: int, taught_first: int = 0):
    """A run of 20 thousand steps an iteration, whose first iterations belong to a teacher."""
    rows = []
    for i in range(count):
        row = {"steps": 20_000 * (i + 1), "train_return": i, "learner_return": 2 * i, "guider_entropy": 0.5}
        taught = None if i < taught_first else 0.1 * (1 + i)
        rows.append(row | {"kl_to_learner": taught, "learner_entropy": taught})
    figure = returns_figure(rows)
    assert figure is not None
    return figure


def test_one_iteration_is_a_point_in_every_panel():
    panels = figure_of(1).axes
    assert len(panels) == 4
    for axes in panels:
        for line in axes.lines:
            assert line.get_marker() in "o^s"
            assert len(line.get_xdata()) == 1


def test_all_panels_show_the_steps_of_the_whole_run():
    """Also those of what begins when a teacher is trained, or of what ends before the others."""
    returns, *ties = figure_of(4, taught_first=2).axes
    np.testing.assert_array_equal(ties[0].lines[0].get_xdata(), [60, 80])
    np.testing.assert_array_equal(returns.lines[-1].get_xdata(), [20, 40, 60, 80])
    assert {axes.get_xlim() for axes in (returns, *ties)} == {(0.0, 84.0)}


def test_many_iterations_are_lines_without_markers():
    assert {line.get_marker() for axes in figure_of(60).axes for line in axes.lines} == {"None"}


def test_entropies_below_zero_are_drawn():
    rows = [
        {"steps": 10 * i, "train_return": 1.0, "guider_entropy": 3.0 - i, "kl_to_learner": 0.1**i} for i in range(1, 7)
    ]
    figure = returns_figure(rows)
    assert figure is not None
    _, kl, entropy = figure.axes
    assert (kl.get_yscale(), entropy.get_yscale()) == ("log", "linear")
    low, high = entropy.get_ylim()
    assert low < -3.0 < 2.0 < high
