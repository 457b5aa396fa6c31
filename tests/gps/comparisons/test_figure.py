"""The figure of a comparison shows the numbers of its results."""

from __future__ import annotations

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from PIL import Image

from gps.comparisons.figure import comparison, comparison_figure
from gps.comparisons.statistics import Goals, Learning, Result, summarise
from gps.tasks.task import Score

nan = float("nan")
NO_GOALS = Goals(None, None)
SOLVED = ("solved", "episodes")
DISTANCE = Score("distance", "cm")


def result_of(task: str = "reach", guider: str = "guide", seeds: int = 4, count: int = 5, **fields) -> Result:
    """Runs whose returns rise from about -100 to about -1 while scores fall; `fields` replace those of all runs."""
    rng = np.random.default_rng(len(guider))
    runs = []
    for _ in range(seeds):
        scores = np.geomspace(10, 0.1, count) * np.exp(rng.normal(0, 0.2, count))
        own = {
            "returns": -10 * scores,
            "scores": scores,
            "sampled": -20 * scores,
            **dict.fromkeys(SOLVED, nan * scores),
        }
        own |= fields
        runs.append(Learning(1000.0 * np.arange(1, count + 1), rng.uniform(1, 2) * np.arange(1, count + 1), **own))
    return summarise((task, DISTANCE), guider, seeds, runs, NO_GOALS, (nan, nan))


def drawn(results, goals: Goals = NO_GOALS):
    figure = comparison_figure(results, goals)
    assert figure is not None
    return figure


def lines_of(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines if line.get_label()[:1] != "_"}


def band_of(axes) -> np.ndarray:
    """x, lower and upper edge (3 n) of the only band."""
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    at = np.unique(corners[:, 0])
    return np.array([(x, *(f(corners[corners[:, 0] == x, 1]) for f in (np.min, np.max))) for x in at]).T


def test_each_panel_shows_means_and_intervals_over_seeds():
    result = result_of()
    curve = result.curve
    by_steps, by_seconds, scores, scores_by_seconds = drawn([result]).axes
    for axes, x, estimate in (
        (by_steps, curve.steps, curve.returns),
        (by_seconds, curve.seconds, curve.returns),
        (scores, curve.steps, curve.scores),
        (scores_by_seconds, curve.seconds, curve.scores),
    ):
        np.testing.assert_allclose(lines_of(axes)["guide"], np.stack([x, estimate.value], 1))
        np.testing.assert_allclose(band_of(axes), [x, estimate.low, estimate.high])
    assert [axes.get_xlabel() for axes in (by_steps, by_seconds)] == ["simulator steps", "training (s)"]
    assert [axes.get_xlabel() for axes in (scores, scores_by_seconds)] == ["simulator steps", "training (s)"]
    assert (by_steps.get_ylabel(), scores.get_ylabel()) == ("return", "test distance (cm)")
    assert scores.get_yscale() == "log"


def test_a_task_has_a_row_and_a_guider_the_same_look_everywhere():
    results = [result_of("a", "one"), result_of("a", "three"), result_of("b", "three"), result_of("b", "sixth-1")]
    figure = drawn(results)
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "", "", "", "b", "", "", ""]
    assert [list(lines_of(axes)) for axes in figure.axes] == [["one", "three"]] * 4 + [["three", "sixth-1"]] * 4
    looks = {}
    for axes in figure.axes:
        for line in axes.lines:
            looks.setdefault(line.get_label(), set()).add((line.get_color(), line.get_linestyle(), line.get_marker()))
    assert all(len(found) == 1 for found in looks.values())
    for part in zip(*(found.pop() for found in looks.values()), strict=True):
        assert len(set(part)) == 3  # colour, line and marker each tell them apart
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "three", "sixth-1"]


def test_where_tasks_say_what_is_solved_its_share_has_a_panel():
    result = result_of(solved=np.array([0.0, 2, 5, 19, 20]), episodes=np.full(5, 20.0))
    figure = drawn([result], Goals(solved=90.0))
    axes = figure.axes[-1]
    assert (len(figure.axes), axes.get_ylabel()) == (5, "test episodes solved (%)")
    np.testing.assert_allclose(lines_of(axes)["guide"], np.stack([result.curve.steps, [0, 10, 25, 95, 100]], 1))
    assert axes.lines[-1].get_ydata()[0] == 90.0
    assert all(labels_of(figure))


def test_what_there_are_no_numbers_for_is_left_out():
    returns_only = result_of(scores=np.full(5, nan))
    assert [axes.get_ylabel() for axes in drawn([returns_only]).axes] == ["return", "return"]
    scores_only = result_of(returns=np.full(5, nan))
    assert [axes.get_ylabel() for axes in drawn([scores_only]).axes] == ["test distance (cm)"] * 2
    nothing = result_of(returns=np.full(5, nan), scores=np.full(5, nan))
    assert comparison_figure([nothing], NO_GOALS) is None
    both = drawn([result_of("a"), result_of("b", scores=np.full(5, nan))]).axes
    assert [axes.axison for axes in both] == [True] * 6 + [False] * 2
    gap = result_of(returns=np.array([-5.0, nan, -3, -2, -1]))
    np.testing.assert_allclose(lines_of(drawn([gap]).axes[0])["guide"][:, 1], [-5, -3, -2, -1])


def test_one_seed_is_a_line_without_a_band():
    for axes in drawn([result_of(seeds=1)]).axes:
        assert len(lines_of(axes)["guide"]) == 5
        assert all(not len(c.get_paths()) for c in axes.collections)


def test_many_evaluations_are_a_line_without_markers():
    (line,) = drawn([result_of(count=100)]).axes[0].lines
    assert line.get_marker() in ("None", None)


@pytest.mark.parametrize(("count", "scale"), [(9, "linear"), (11, "log")])
def test_steps_are_on_a_logarithm_from_a_decade_on(count, scale):
    assert [axes.get_xscale() for axes in drawn([result_of(count=count)]).axes] == [scale] * 4


@pytest.mark.parametrize(
    ("returns", "scale"),
    [
        ([-300.0, -100, -30, -10, -5], "symlog"),
        ([-300.0, -100, -30, -10, 5], "linear"),
        ([1.0, 10, 100, 300, 500], "linear"),
        ([-6.0, -5, -4, -3, -2.5], "linear"),
    ],
)
def test_returns_that_are_minus_a_cost_are_on_a_logarithm(returns, scale):
    axes = drawn([result_of(returns=np.array(returns))]).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low < min(returns) < max(returns) < high
    if scale == "symlog":
        assert high < 0
        heights = axes.transData.transform([(1000, -200), (1000, -100), (1000, -20), (1000, -10)])[:, 1]
        assert heights[1] - heights[0] == pytest.approx(heights[3] - heights[2])  # equal factors, equal distances


def labels_of(figure) -> list[list[str]]:
    """The labels of every axis, x before y, after a look that none touches its neighbour."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        for axis, (first, last) in ((axes.xaxis, ("x0", "x1")), (axes.yaxis, ("y0", "y1"))):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            labels = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
            boxes = sorted((getattr(box, first), getattr(box, last)) for box in (x.get_window_extent() for x in labels))
            assert all(after[0] > before[1] for before, after in itertools.pairwise(boxes)), labels
            found.append([label.get_text() for label in labels])
    return found


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ((2400, 500e3), (0.1, 10)),
        ((5000, 6500), (0.05, 0.06)),
        ((1e5, 1e9), (0.08, 0.3)),
        ((1e3, 1e12), (0.01, 1e5)),
        ((1e6, 1.003e6), (100, 101)),
    ],
)
def test_narrow_panels_have_labels_that_do_not_touch(steps, seconds):
    one = Learning(
        np.array(steps),
        np.array(seconds),
        returns=np.array([-60.0, -14]),
        scores=np.array([10, 0.1]),
        **dict.fromkeys(("sampled", *SOLVED), np.array([nan, nan])),
    )
    for labels in labels_of(drawn([summarise(("reach", DISTANCE), "guide", 1, [one], NO_GOALS, (nan, nan))])):
        assert labels


def test_one_evaluation_is_a_point_and_a_bar():
    figure = drawn([result_of(count=1)])
    assert all(labels_of(figure))
    for axes in figure.axes:
        assert axes.lines[0].get_marker() == "o"
        assert axes.collections[0].get_linewidth() > 0


def test_goals_are_lines_across():
    figure = drawn([result_of()], Goals(-7.0, 2.0))
    assert [axes.lines[-1].get_ydata()[0] for axes in figure.axes] == [
        -7.0,
        -7.0,
        pytest.approx(2.0),
        pytest.approx(2.0),
    ]
    assert "guide" in lines_of(figure.axes[0])
    assert [len(axes.lines) for axes in drawn([result_of()]).axes] == [1, 1, 1, 1]


def test_it_is_saved_in_two_formats_and_nothing_else_happens(tmp_path):
    settings = dict(matplotlib.rcParams)
    files = comparison([result_of()], NO_GOALS, tmp_path / "comparison")
    assert [file.name for file in files] == ["comparison.png", "comparison.pdf"]
    assert dict(matplotlib.rcParams) == settings
    with Image.open(files[0]) as picture:
        assert picture.width == 1400  # 7 inches of 200 dots
    code = "import sys, gps.comparisons.figure; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "False", done.stderr
