"""The figures: what they show is what the metrics say, and nothing else happens when they are drawn."""

from __future__ import annotations

import copy
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from gps.figures import animation as animate
from gps.figures import run as plot

nan = float("nan")


def rows_of(count: int = 4, conditions: int = 3) -> list[dict]:
    """Metrics of a model-based guider; the learner is evaluated in every second iteration."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        row = {"iteration": i, "steps": 750 * (i + 1), "seconds": 1.5 * i, "sweeps": [7] * conditions}
        fields = ("controllers_distance", "cost", "lambda_norm", "nu", "eta", "kl_to_learner", "kl_step", "kl_limit")
        row |= {field: np.exp(rng.normal(-i, 0.5, conditions)).tolist() for field in fields}
        gains = ("predicted_improvement", "actual_improvement")
        row |= {field: rng.normal(5, 3, conditions).tolist() if i else [None] * conditions for field in gains}
        if i % 2 == 0:
            learner = ("train_distance_mean", "test_distance_mean", "test_distance_max")
            row |= {
                field: float(np.exp(rng.normal(-i, 0.5))) for field in (*learner, "train_cost_mean", "test_cost_mean")
            }
        rows.append(row)
    return rows


def arm(angles) -> np.ndarray:
    """Skeletons (C T+1 3 2) of two links of 10 cm at the given angles (C T+1 2), each against the x axis."""
    links = 0.1 * np.stack([np.cos(angles), np.sin(angles)], -1)
    return np.cumsum(np.concatenate([np.zeros_like(links[..., :1, :]), links], -2), -2)


def reaches(count: int, T: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skeletons, targets and final distances of `count` arms that move from one start to somewhere."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-np.pi, np.pi, (count, 1, 2))
    skeletons = arm(np.linspace(0, 1, T + 1)[:, None] * ends)
    targets = skeletons[:, -1, -1] + rng.normal(0, 0.01, (count, 2))
    return skeletons, targets, np.linalg.norm(skeletons[:, -1, -1] - targets, axis=1)


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


def test_learning_curves_show_centimetres_and_costs_against_thousands_of_steps():
    rows = rows_of()
    left, right = built(plot.learning_curves_figure(rows)).axes
    for axes, unit, field in ((left, 100, "controllers_distance"), (right, 1, "cost")):
        values = unit * np.array([row[field] for row in rows])
        np.testing.assert_allclose(lines_of(axes)["controllers, mean"][:, 0], [0.75, 1.5, 2.25, 3.0])
        np.testing.assert_allclose(lines_of(axes)["controllers, mean"][:, 1], values.mean(1))
        np.testing.assert_allclose(band_of(axes), [[0.75, 1.5, 2.25, 3.0], values.min(1), values.max(1)])
    learner = {"training targets": "train_distance_mean", "test targets": "test_distance_mean"}
    for name, field in {**learner, "worst test target": "test_distance_max"}.items():
        expected = [(rows[i]["steps"] / 1000, 100 * rows[i][field]) for i in (0, 2)]
        np.testing.assert_allclose(lines_of(left)[f"learner, {name}"], expected)
    for name, field in {"training targets": "train_cost_mean", "test targets": "test_cost_mean"}.items():
        np.testing.assert_allclose(lines_of(right)[f"learner, {name}"][:, 1], [rows[0][field], rows[2][field]])
    assert (left.get_yscale(), right.get_yscale()) == ("log", "log")


def test_the_legend_names_each_curve_once_whichever_panel_it_is_in():
    rows = [{"steps": 1000, "test_distance_mean": 0.1, "cost": [3.0]}, {"steps": 2000, "cost": [2.0]}]
    (legend,) = built(plot.learning_curves_figure(rows)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["learner, test targets", "controllers, mean"]


def test_costs_that_are_not_positive_are_not_drawn_on_a_logarithm():
    rows = [{"steps": 1000 * i, "test_cost_mean": cost} for i, cost in enumerate([100.0, 1.0, -1.0], 1)]
    assert built(plot.learning_curves_figure(rows[:2])).axes[1].get_yscale() == "log"
    axes = built(plot.learning_curves_figure(rows)).axes[1]
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < -1


@pytest.mark.parametrize("nothing", [None, nan, float("inf")])
def test_what_is_no_finite_number_is_left_out(nothing):
    rows = rows_of(5)
    rows[1]["cost"] = [nothing, 2.0, 8.0]
    rows[2]["cost"] = [nothing] * 3
    rows[3]["cost"] = nothing
    del rows[4]["cost"]
    rows[2]["test_cost_mean"] = nothing
    axes = built(plot.learning_curves_figure(rows)).axes[1]
    np.testing.assert_allclose(lines_of(axes)["controllers, mean"], [(0.75, np.mean(rows[0]["cost"])), (1.5, 5.0)])
    np.testing.assert_allclose(band_of(axes)[1], [min(rows[0]["cost"]), 2.0])
    np.testing.assert_allclose(lines_of(axes)["learner, test targets"][:, 0], [0.75, 3.75])


def test_multipliers_show_the_median_and_the_range_of_all_conditions():
    rows = rows_of(5, conditions=4)
    rows[3]["nu"][1] = None
    fields = {"lambda": "lambda_norm", "nu": "nu", "learner": "kl_to_learner", "eta": "eta", "iteration": "kl_step"}
    panels = built(plot.multipliers_figure(rows)).axes[:-1]
    for axes, (name, field) in zip(panels, fields.items(), strict=True):
        assert name in axes.get_ylabel()
        values = np.array([row[field] for row in rows], float)
        median = lines_of(axes)["median of the conditions"]
        np.testing.assert_allclose(median, np.stack([np.arange(1, 6), np.nanmedian(values, 1)], 1))
        np.testing.assert_allclose(band_of(axes), [np.arange(1, 6), np.nanmin(values, 1), np.nanmax(values, 1)])
    limits = [np.median(row["kl_limit"]) for row in rows]
    np.testing.assert_allclose(lines_of(panels[-1])["median of their limits"][:, 1], limits)


def test_a_guider_has_a_panel_for_each_thing_that_it_logs():
    rows = [{"iteration": i, "nu": [1.0, 2.0], "eta": [None, None], "lambda_norm": None} for i in range(3)]
    panel, legend = built(plot.multipliers_figure(rows)).axes
    assert "nu" in panel.get_ylabel()
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
    left, _ = built(plot.learning_curves_figure(rows_of(1))).axes
    (_, _, _, limit), (band,) = left.lines, left.collections
    assert all(line.get_marker() not in ("None", None) for line in left.lines)
    assert limit.get_label() == "learner, worst test target"
    assert band.get_linewidth() > 0
    assert built(plot.learning_curves_figure(rows_of(2))).axes[0].collections[0].get_linewidth() == 0


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


def test_paths_shows_every_target_in_centimetres_with_the_worst_on_top():
    skeletons, targets, distances = reaches(7)
    distances[2] = nan
    axes = built(plot.paths_figure(skeletons, targets, distances, targets[:2] + 0.01)).axes[0]
    dots, diverged = (c for c in axes.collections if isinstance(c, PathCollection))
    order = [i for i in np.argsort(distances) if i != 2]
    np.testing.assert_allclose(dots.get_offsets(), 100 * targets[order])
    np.testing.assert_allclose(dots.get_array(), 100 * distances[order])
    np.testing.assert_allclose(diverged.get_offsets(), 100 * targets[[2]])
    assert diverged.get_label() == "diverged"
    lines = lines_of(axes)
    np.testing.assert_allclose(lines["start"], [(0, 0), (10, 0), (20, 0)], atol=1e-12)
    np.testing.assert_allclose(lines["training target"], 100 * targets[:2] + 1)
    np.testing.assert_allclose(np.linalg.norm(lines["reach"], axis=1), 20)
    assert axes.get_aspect() == 1


def test_a_target_that_was_hit_exactly_has_a_color_too():
    skeletons, targets, _ = reaches(3)
    axes = built(plot.paths_figure(skeletons, targets, np.array([0.0, 0.01, 0.5]))).axes[0]
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    colors = dots.to_rgba(dots.get_array())
    np.testing.assert_array_equal(colors[:, 3], 1.0)
    assert len(np.unique(colors, axis=0)) == 3


def test_paths_are_the_fingertips_and_at_most_sixty_of_them():
    skeletons, targets, distances = reaches(200)
    skeletons[0, 3:] = nan
    axes = built(plot.paths_figure(skeletons, targets, distances)).axes[0]
    (drawn,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    segments = drawn.get_segments()
    assert len(segments) == 60
    np.testing.assert_allclose(segments[0], 100 * skeletons[0, :3, -1])
    np.testing.assert_allclose(segments[-1], 100 * skeletons[-1, :, -1])
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert len(dots.get_offsets()) == 200


def test_spread_takes_values_at_even_distances():
    np.testing.assert_array_equal(animate.spread(np.arange(100, 111), 6), [100, 102, 104, 106, 108, 110])
    np.testing.assert_array_equal(animate.spread(np.arange(3), 6), [0, 1, 2])
    np.testing.assert_array_equal(animate.spread(np.arange(3), 1), [0])


def pictures_of(skeletons, targets, dt, path, count=6) -> tuple[list[np.ndarray], list[int]]:
    """Frames (rows columns 3) and their durations in milliseconds, as a viewer reads them."""
    assert animate.animation(skeletons, targets, dt, path, count) == [path]
    frames, durations = [], []
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0  # for ever
        for number in range(getattr(gif, "n_frames", 1)):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
    return frames, durations


def test_the_animation_shows_target_and_arm_where_they_are(tmp_path):
    """Links of 10 cm, so 20 cm of reach: with a margin of 8 % the 120 pixels of half a tile are 21.6 cm."""
    angles = np.zeros((2, 3, 2))
    angles[1, :, :] = np.array([0.0, 0.5, 1.0])[:, None] * np.pi / 2  # the second arm turns from +x to +y
    targets = np.array([(-0.06, 0.12), (0.03, -0.15)])
    frames, _ = pictures_of(arm(angles), targets, 0.05, tmp_path / "a.gif")

    def color(frame, tile, x, y):
        column, row = 240 * tile + 120 + x / 0.216 * 120, 26 + 120 - y / 0.216 * 120
        return tuple(frames[frame][round(row), round(column)].tolist())

    for frame in range(3):
        assert color(frame, 0, -0.06, 0.12) == animate.TARGET
        assert color(frame, 1, 0.03, -0.15) == animate.TARGET
        assert color(frame, 0, 0.2, 0.0) == animate.TIP
        assert color(frame, 0, 0.05, 0.0) == animate.ARM
        assert color(frame, 0, -0.1, -0.1) == animate.REACH
        assert color(frame, 0, -0.18, -0.18) == animate.PAPER
    assert color(0, 1, 0.2, 0.0) == animate.TIP
    assert color(2, 1, 0.0, 0.2) == animate.TIP
    assert color(2, 1, 0.0, 0.05) == animate.ARM
    half = np.sqrt(0.5) * 0.2
    assert color(1, 1, half, half) == animate.TIP
    between = (0.2 + half) / 2, half / 2  # of the fingertip's first two places: where the trail passes
    assert color(0, 1, *between) == animate.REACH
    for frame in (1, 2):
        red, _, blue = color(frame, 1, *between)
        assert blue - red > 50  # a mixture of the trail's blue with the grey around


def test_the_animation_runs_in_real_time(tmp_path):
    skeletons, targets, _ = reaches(2, T=10)
    frames, durations = pictures_of(skeletons, targets, 0.05, tmp_path / "a.gif")
    assert (len(frames), durations) == (11, [50] * 10 + [1000])
    # GIF counts hundredths of a second, and viewers want at least two of them
    frames, durations = pictures_of(skeletons, targets, 0.033, tmp_path / "a.gif")
    assert (len(frames), sum(durations[:-1]), set(durations[:-1])) == (11, 330, {30, 40})
    frames, durations = pictures_of(skeletons, targets, 0.008, tmp_path / "a.gif")
    assert (len(frames), sum(durations[:-1]), durations[-1]) == (5, 80, 1000)


def test_the_animation_is_of_targets_spread_evenly_over_those_that_did_not_diverge(tmp_path):
    skeletons, _, _ = reaches(5, T=1)
    targets = np.array([(0.01 * i, -0.1) for i in range(5)])
    skeletons[4, 1] = nan
    frames, _ = pictures_of(skeletons, targets, 0.05, tmp_path / "a.gif", count=2)
    assert frames[0].shape == (26 + 240, 2 * 240, 3)
    for tile, shown in enumerate((0, 3)):
        rows, columns = np.nonzero((frames[0][:, 240 * tile : 240 * (tile + 1)] == animate.TARGET).all(-1))
        middle = (columns.mean() - 119.5) / 120 * 0.216, (26 + 119.5 - rows.mean()) / 120 * 0.216
        np.testing.assert_allclose(middle, targets[shown], atol=1e-3)
    skeletons[:] = nan
    assert animate.animation(skeletons, targets, 0.05, tmp_path / "b.gif") == []


def test_a_point_without_links_can_be_drawn(tmp_path):
    tips = np.linspace([0.0, 0.0], [0.1, 0.05], 4)[None, :, None, :]
    frames, _ = pictures_of(tips, np.array([[0.1, 0.05]]), 0.05, tmp_path / "a.gif")
    assert all((frame == animate.TIP).all(-1).any() for frame in frames)
    lines = lines_of(built(plot.paths_figure(tips, np.array([[0.1, 0.05]]), np.array([0.02]))).axes[0])
    np.testing.assert_array_equal(lines["start"], [(0.0, 0.0)])


def test_everything_is_drawn_in_order_and_nothing_is_changed(tmp_path):
    rows, (skeletons, targets, distances) = rows_of(), reaches(8)
    given = (rows, skeletons, targets, distances, targets[:3] + 0.01)
    before, settings = copy.deepcopy(given), dict(matplotlib.rcParams)
    files = plot.draw_all(*given, 0.05, tmp_path)
    names = [
        f"{name}.{kind}"
        for name in ("learning_curves", "multipliers", "improvement", "paths")
        for kind in ("png", "pdf")
    ]
    assert [file.name for file in files] == [*names, "reaching.gif"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*names, "reaching.gif"])
    assert before[0] == rows
    for old, new in zip(before[1:], given[1:], strict=True):
        np.testing.assert_array_equal(old, new)
    assert dict(matplotlib.rcParams) == settings
    with Image.open(tmp_path / "learning_curves.png") as picture:
        assert picture.width == 1400  # 7 inches of 200 dots
    for file in files[1:8:2]:
        assert b"/FontFile2" in file.read_bytes()  # TrueType


def test_figures_without_numbers_are_skipped(tmp_path):
    """A model-free guider has no controllers, no multipliers and nothing that it predicted."""
    rows = [{"iteration": i, "steps": 1000 * (i + 1), "test_distance_mean": 0.1 / (i + 1)} for i in range(3)]
    files = plot.draw_all(rows, *reaches(2), None, 0.05, tmp_path)
    expected = ["learning_curves.png", "learning_curves.pdf", "paths.png", "paths.pdf", "reaching.gif"]
    assert [file.name for file in files] == expected
    assert plot.draw_all([], *reaches(2), None, 0.05, tmp_path)[0].name == "paths.png"


def test_the_users_settings_do_not_show(tmp_path):
    rows = rows_of()
    plot.improvement(rows, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "k", "lines.linewidth": 9, "savefig.dpi": 50}):
        plot.improvement(rows, tmp_path / "b")
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_no_backend_is_chosen():
    code = "import sys; from gps import plot; plot.improvement_figure([]); print('matplotlib.pyplot' in sys.modules)"
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
