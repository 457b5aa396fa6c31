"""The figures: what they show is what the metrics say, and nothing else happens when they are drawn."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from gps.figures import run as plot
from gps.tasks.task import Score

nan = float("nan")
SCORE = Score("distance", "cm")


def rows_of(count: int = 4, conditions: int = 3) -> list[dict]:
    """Metrics of a model-based guider; the learner is evaluated in every second iteration."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        row = {"iteration": i, "steps": 750 * (i + 1), "seconds": 1.5 * i, "sweeps": [7] * conditions}
        fields = ("controllers_score", "cost", "lambda_norm", "penalty", "eta", "kl_to_learner", "kl_step", "kl_limit")
        row |= {field: np.exp(rng.normal(-i, 0.5, conditions)).tolist() for field in fields}
        gains = ("predicted_improvement", "actual_improvement")
        row |= {field: rng.normal(5, 3, conditions).tolist() if i else [None] * conditions for field in gains}
        if i % 2 == 0:
            learner = ("train_score", "test_score", "test_score_worst")
            row |= {field: float(np.exp(rng.normal(-i, 0.5))) for field in (*learner, "train_cost", "test_cost")}
        rows.append(row)
    return rows


def built(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def lines_of(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def band_of(axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, lower and upper edge of the only band."""
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    corners = band.get_paths()[0].vertices
    x = np.unique(corners[:, 0])
    edges = [(corners[corners[:, 0] == at, 1].min(), corners[corners[:, 0] == at, 1].max()) for at in x]
    return x, *np.array(edges).T


def test_learning_curves_show_scores_and_costs_against_thousands_of_steps():
    rows = rows_of()
    left, right = built(plot.learning_curves_figure(rows, SCORE)).axes
    for axes, field in ((left, "controllers_score"), (right, "cost")):
        values = np.array([row[field] for row in rows])
        np.testing.assert_allclose(lines_of(axes)["controllers, mean"][:, 0], [0.75, 1.5, 2.25, 3.0])
        np.testing.assert_allclose(lines_of(axes)["controllers, mean"][:, 1], values.mean(1))
        np.testing.assert_allclose(band_of(axes), [[0.75, 1.5, 2.25, 3.0], values.min(1), values.max(1)])
    learner = {"training conditions": "train_score", "test conditions": "test_score"}
    for name, field in {**learner, "worst test condition": "test_score_worst"}.items():
        expected = [(rows[i]["steps"] / 1000, rows[i][field]) for i in (0, 2)]
        np.testing.assert_allclose(lines_of(left)[f"learner, {name}"], expected)
    for name, field in {"training conditions": "train_cost", "test conditions": "test_cost"}.items():
        np.testing.assert_allclose(lines_of(right)[f"learner, {name}"][:, 1], [rows[0][field], rows[2][field]])
    assert (left.get_yscale(), right.get_yscale()) == ("log", "log")
    assert left.get_ylabel() == "distance (cm)"


def test_success_is_a_share_of_the_episodes_that_were_judged():
    rows = [{"steps": 1000 * i, "test_solved": i, "test_episodes": 20, "test_score": 1.0} for i in (5, 17)]
    axes = built(plot.learning_curves_figure(rows, SCORE)).axes
    assert len(axes) == 3
    np.testing.assert_allclose(lines_of(axes[2])["learner, test conditions"], [(5, 25), (17, 85)])


def test_the_legend_names_each_curve_once_whichever_panel_it_is_in():
    rows = [{"steps": 1000, "test_score": 0.1, "cost": [3.0]}, {"steps": 2000, "cost": [2.0]}]
    (legend,) = built(plot.learning_curves_figure(rows, SCORE)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["learner, test conditions", "controllers, mean"]


def test_costs_that_are_not_positive_are_not_drawn_on_a_logarithm():
    rows = [{"steps": 1000 * i, "test_cost": cost} for i, cost in enumerate([100.0, 1.0, -1.0], 1)]
    assert built(plot.learning_curves_figure(rows[:2], SCORE)).axes[1].get_yscale() == "log"
    axes = built(plot.learning_curves_figure(rows, SCORE)).axes[1]
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < -1


@pytest.mark.parametrize("nothing", [None, nan, float("inf")])
def test_what_is_no_finite_number_is_left_out(nothing):
    rows = rows_of(5)
    rows[1]["cost"] = [nothing, 2.0, 8.0]
    rows[2]["cost"] = [nothing] * 3
    rows[3]["cost"] = nothing
    del rows[4]["cost"]
    rows[2]["test_cost"] = nothing
    axes = built(plot.learning_curves_figure(rows, SCORE)).axes[1]
    np.testing.assert_allclose(lines_of(axes)["controllers, mean"], [(0.75, np.mean(rows[0]["cost"])), (1.5, 5.0)])
    np.testing.assert_allclose(band_of(axes)[1], [min(rows[0]["cost"]), 2.0])
    np.testing.assert_allclose(lines_of(axes)["learner, test conditions"][:, 0], [0.75, 3.75])


def test_multipliers_show_the_median_and_the_range_of_all_conditions():
    rows = rows_of(5, conditions=4)
    rows[3]["penalty"][1] = None
    fields = {
        "λ": "lambda_norm",
        "penalty": "penalty",
        "learner": "kl_to_learner",
        "η": "eta",
        "iteration": "kl_step",
    }
    panels = built(plot.multipliers_figure(rows)).axes[:-1]
    for axes, (name, field) in zip(panels, fields.items(), strict=True):
        assert name in axes.get_ylabel()
        values = np.array([row[field] for row in rows], float)
        median = lines_of(axes)["median of the conditions"]
        np.testing.assert_allclose(median, np.stack([np.arange(1, 6), np.nanmedian(values, 1)], 1))
        np.testing.assert_allclose(band_of(axes), [np.arange(1, 6), np.nanmin(values, 1), np.nanmax(values, 1)])
    limits = [np.median(row["kl_limit"]) for row in rows]
    np.testing.assert_allclose(lines_of(panels[-1])["median of their limits"][:, 1], limits)


def test_local_models_show_what_they_are_worth():
    rows = [{"iteration": i, "model_error": [0.1 * i, 0.3, 0.5], "untrusted_models": i} for i in range(1, 4)]
    error, untrusted = built(plot.local_models_figure(rows)).axes[:-1]
    assert error.get_ylabel() == "relative model error"
    at = [2.0, 3.0, 4.0]
    np.testing.assert_allclose(lines_of(error)["median of the conditions"], np.stack([at, [0.3, 0.3, 0.3]], 1))
    np.testing.assert_allclose(band_of(error)[1], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(lines_of(untrusted)["median of the conditions"], np.stack([at, [1, 2, 3]], 1))
    assert plot.local_models_figure([{"iteration": 0, "train_return": 1.0}]) is None


def test_a_guider_has_a_panel_for_each_thing_that_it_logs():
    rows = [{"iteration": i, "penalty": [1.0, 2.0], "eta": [None, None], "lambda_norm": None} for i in range(3)]
    panel, legend = built(plot.multipliers_figure(rows)).axes
    assert "penalty" in panel.get_ylabel()
    assert not legend.axison


@pytest.mark.parametrize(("count", "ticks"), [(1, [1]), (3, [1, 2, 3]), (30, [5, 10, 15, 20, 25, 30])])
def test_iterations_are_whole_numbers(count, ticks):
    def shown(axis):
        low, high = axis.get_view_interval()
        return [at for at in axis.get_majorticklocs() if low <= at <= high]

    axes = built(plot.multipliers_figure(rows_of(count))).axes[0]
    assert shown(axes.xaxis) == ticks
    gains = [{"iteration": count, "predicted_improvement": [1.0, 2.0], "actual_improvement": [1.0, 1.0]}]
    bar = built(plot.improvement_figure(gains)).axes[1]
    assert all(at == round(at) for at in shown(bar.yaxis))
    assert bar.get_ylim() == (1, count + 1)


def test_one_iteration_is_a_point_and_a_bar():
    left, _ = built(plot.learning_curves_figure(rows_of(1), SCORE)).axes
    (_, _, _, limit), (band,) = left.lines, left.collections
    assert all(line.get_marker() not in ("None", None) for line in left.lines)
    assert limit.get_label() == "learner, worst test condition"
    assert band.get_linewidth() > 0
    assert built(plot.learning_curves_figure(rows_of(2), SCORE)).axes[0].collections[0].get_linewidth() == 0


def test_improvement_has_a_point_for_each_condition_and_iteration_that_has_both_numbers():
    rows = rows_of(4)
    rows[2]["actual_improvement"][1] = None
    rows[3]["predicted_improvement"] = None
    dots, axes = dots_and_axes(rows)
    expected = [
        (
            rows[i]["predicted_improvement"][c],
            rows[i]["actual_improvement"][c],
            i + 1,
        )  # counted from 1, as on the terminal
        for i, conditions in ((1, (0, 1, 2)), (2, (0, 2)))
        for c in conditions
    ]
    np.testing.assert_allclose(np.column_stack([dots.get_offsets(), dots.get_array()]), expected)
    diagonal = lines_of(axes)["as predicted"]
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    assert axes.get_xscale() == axes.get_yscale() == "linear"


def test_improvements_of_many_sizes_are_on_logarithms_that_reach_below_zero():
    predicted = [10.0 ** (3 - i) for i in range(6)]
    rows = [{"iteration": i, "predicted_improvement": p, "actual_improvement": -p} for i, p in enumerate(predicted)]
    dots, axes = dots_and_axes(rows)
    assert axes.get_xscale() == axes.get_yscale() == "symlog"
    assert axes.get_ylim()[0] < -1000
    assert axes.get_xlim()[1] > 1000
    shown = axes.transData.transform(dots.get_offsets())[:, 0]
    np.testing.assert_allclose(np.diff(shown)[:3], np.diff(shown)[0])  # equal factors, equal distances


def dots_and_axes(rows):
    axes = built(plot.improvement_figure(rows)).axes[0]
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    return dots, axes


def test_the_users_settings_do_not_show(tmp_path):
    rows = rows_of()
    plot.improvement(rows, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "k", "lines.linewidth": 9, "savefig.dpi": 50}):
        plot.improvement(rows, tmp_path / "b")
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_no_backend_is_chosen():
    code = """
import sys
from gps.figures import run
run.improvement_figure([])
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_a_figure_that_fails_half_written_leaves_the_old_one(tmp_path, monkeypatch):
    plot.improvement(rows_of(), tmp_path / "f")
    whole = (tmp_path / "f.png").read_bytes()

    def torn(figure, file, **options):
        assert (tmp_path / "f.png").read_bytes() == whole  # what a kill at this moment leaves
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        plot.improvement(rows_of(6), tmp_path / "f")
    assert (tmp_path / "f.png").read_bytes() == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f.pdf", "f.png"]
