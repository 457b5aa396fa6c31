"""Estimates over seeds against enumeration and numpy; curves, areas and goals against numbers made by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gps.comparisons.statistics import Goals, Learning, area, area_range, curve, estimate, learning, steps_to, summarise
from gps.settings import SettingsError
from gps.tasks.task import Score

nan = float("nan")


DISTANCE, RETURNED = Score("distance", "cm"), Score("return", more_is_better=True)


def run_of(steps, returns, scores=None, seconds=None, solved=None) -> Learning:
    none = [nan] * len(steps)
    fields = {"seconds": seconds or steps, "scores": scores or none, "solved": solved or none}
    fields |= {"steps": steps, "returns": returns, "sampled": none, "episodes": [20] * len(steps) if solved else none}
    return Learning(**{name: np.array(values, float) for name, values in fields.items()})


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([8.0, 1, 100, 3, 4, 2, -50, 7], (2 + 3 + 4 + 7) / 4),
        ([5.0, -1000, 4, 1000, 9], (4 + 5 + 9) / 3),  # a quarter of five, rounded down, is one
        ([1.0, 2, 30, 4], (2 + 4) / 2),
        ([1.0, 2, 30], 11),  # fewer than four: all of them
        ([7.0], 7),
    ],
)
def test_the_estimate_is_the_mean_between_the_quartiles(values, mean):
    found = estimate(np.array(values))
    assert found.value == pytest.approx(mean)
    assert found.count == len(values)


def test_the_interval_holds_the_middle_of_all_samples_of_the_seeds():
    """All 5^5 samples with replacement, each with its own interquartile mean."""
    values = np.array([1.0, 2.5, 3.0, 4.0, 9.0])
    samples = np.sort([values[list(drawn)] for drawn in itertools.product(range(5), repeat=5)])
    means = samples[:, 1:-1].mean(1)
    found = estimate(values)
    for end, percent in ((found.low, 2.5), (found.high, 97.5)):
        between = np.percentile(means, [percent - 1, percent + 1])
        assert between[0] <= end <= between[1]
    assert found.low < found.value < found.high
    two = estimate(np.array([-1.0, 4.0]))
    assert (two.low, two.high) == (-1, 4)


def test_one_seed_has_no_interval_and_none_has_no_estimate():
    one = estimate(np.array([3.0]))
    assert one.value == 3
    assert np.isnan([one.low, one.high]).all()
    for none in (estimate(np.array([])), estimate(np.array([nan, np.inf]))):
        assert np.isnan([none.value, none.low, none.high]).all()
        assert none.count == 0


def test_what_is_not_finite_is_left_out_of_its_own_column_alone():
    values = np.random.default_rng(0).normal(size=(6, 3, 2))
    values[2, 0, 1] = values[4, 0, 1] = values[1, 2, 0] = nan
    values[:, 1, 1] = nan
    found = estimate(values)
    np.testing.assert_array_equal(found.count, [[6, 4], [6, 0], [5, 6]])
    for place in itertools.product(range(3), range(2)):
        column = values[:, *place]
        alone = estimate(column[np.isfinite(column)])
        for field in ("value", "low", "high"):
            np.testing.assert_array_equal(getattr(found, field)[place], getattr(alone, field))


def test_learning_takes_the_rows_with_an_evaluation_and_the_time_of_all():
    rows = [
        {"steps": 10, "iteration_seconds": 5.0},
        {"steps": 20, "iteration_seconds": 1.0, "learner_return": -3.0, "test_score": 0.1},
        {"steps": 30, "iteration_seconds": 1.5},
        {"steps": 40, "iteration_seconds": 2.0, "learner_return": None, "test_score": None},
        {"steps": 50, "iteration_seconds": 2.0, "learner_return": 4.0, "test_solved": 3, "test_episodes": 20},
    ]
    found = learning(rows)
    np.testing.assert_array_equal(found.steps, [20, 40, 50])
    np.testing.assert_array_equal(found.seconds, [2.75, 6.25, 8.25])  # the first one compiled: it counts as 1.75
    np.testing.assert_array_equal(found.returns, [-3, nan, 4])
    np.testing.assert_array_equal(found.scores, [0.1, nan, nan])
    np.testing.assert_array_equal([found.solved, found.episodes], [[nan, nan, 3], [nan, nan, 20]])
    again = [{**row, "compiles": row["steps"] in (10, 40)} for row in rows]  # and the fourth, of a second process
    np.testing.assert_array_equal(learning(again).seconds, [2.5, 5.5, 7.5])  # both count as 1.5
    assert len(learning([]).steps) == len(learning(rows[:1]).steps) == 0


def test_the_area_is_the_mean_over_the_logarithm_of_the_steps():
    steps = np.array([10.0, 100, 1000, 10000])
    assert area(steps, 3 + 2 * np.log10(steps), 10, 10000) == pytest.approx(3 + 2 * 2.5)
    values = np.array([0.0, 4, 2, 8])
    assert area(steps, values, 10, 10000) == pytest.approx((2 + 3 + 5) / 3)
    # dense, over a range that begins between two points and ends outside of them, where the curve is level
    dense = np.linspace(np.log(30), np.log(50000), 200001)
    expected = np.interp(dense, np.log(steps), values).mean()
    assert area(steps, values, 30, 50000) == pytest.approx(expected, rel=1e-4)


def test_the_area_passes_over_evaluations_that_diverged():
    steps, there = np.array([10.0, 100, 1000]), np.array([True, False, True])
    values = np.where(there, [1.0, 0, 5], nan)
    assert area(steps, values, 10, 1000) == pytest.approx(3)
    assert np.isnan(area(steps, np.full(3, nan), 10, 1000))
    for low, high in ((100, 100), (1000, 10), (nan, nan)):
        assert np.isnan(area(steps, values, low, high))


def test_areas_begin_where_all_runs_are_evaluated_and_end_with_the_longest():
    runs = [run_of([10, 20, 40], [1, 2, 3]), run_of([15, 25, 50], [nan, 2, 3]), run_of([1, 2], [nan, nan])]
    assert area_range(runs) == (25, 50)
    assert area_range([run_of([10, 20], [1, 2]), run_of([30, 60], [1, 2])]) == (30, 60)
    assert np.isnan(area_range([runs[2]])).all()
    assert np.isnan(area_range([])).all()


def test_steps_to_a_goal_are_those_of_the_first_time():
    steps, returns = np.array([10.0, 20, 30, 40]), np.array([nan, 1, 5, 2])
    assert steps_to(steps, returns >= 2) == 30
    assert steps_to(steps, returns >= 1) == 20
    assert np.isnan(steps_to(steps, returns >= 6))
    assert np.isnan(steps_to(np.empty(0), np.empty(0, bool)))


def test_seeds_are_aligned_by_their_steps():
    """The second seed has no evaluation at 20 steps, and one that diverged at 30."""
    runs = [
        run_of([10, 20, 30], [1, 2, 3], [0.1, 0.2, 0.3], [1.0, 2, 3], [5, 10, 20]),
        run_of([10, 30], [5, nan], [0.5, 0.7], [3.0, 9]),
        run_of([10, 20, 30], [9, 4, 7], [0.3, 0.4, 0.2], [2.0, 8, 4]),
    ]
    found = curve(runs)
    np.testing.assert_array_equal(found.steps, [10, 20, 30])
    np.testing.assert_array_equal(found.seconds, [2, 5, 4])
    np.testing.assert_allclose(found.returns.value, [5, 3, 5])
    np.testing.assert_array_equal(found.returns.count, [3, 2, 2])
    np.testing.assert_allclose(found.returns.low, [1, 2, 3])
    np.testing.assert_allclose(found.returns.high, [9, 4, 7])
    np.testing.assert_allclose(found.scores.value, [0.3, 0.3, 0.4])
    np.testing.assert_allclose(found.solved.value, [25, 50, 100])  # of 20, of the one that says so
    np.testing.assert_array_equal(found.solved.count, [1, 1, 1])
    assert len(curve([]).steps) == 0


def test_a_result_is_of_the_last_evaluations_and_of_those_that_reached_the_goals():
    runs = [
        run_of([10, 100], [-5, -1], [5, 1], [2, 6], [3, 17]),
        run_of([10, 100], [-2, -3], [1, 3], [3, 7], [20, 9]),
        run_of([10, 100], [-9, nan], [9, nan], [1, 8]),
    ]
    result = summarise(("reach", DISTANCE), "guide", 5, runs, Goals(-2.0, 2.0, 80.0), (10, 100))
    assert (result.task, result.guider, result.seeds, result.finished, result.steps) == ("reach", "guide", 5, 3, 100)
    numbers = {
        "final_return": (-2.0, 2),
        "final_score": (2, 2),
        "area": ((-3 - 2.5 - 9) / 3, 3),
        "steps_to_return": (55.0, 2),
        "steps_to_score": (55.0, 2),
        "steps_to_solved": (55.0, 2),  # 17 of 20 at the end, 20 of 20 at first and fewer later
        "seconds": (7.0, 3),
    }
    for field, (value, count) in numbers.items():
        assert getattr(result, field).value == pytest.approx(value), field
        assert getattr(result, field).count == count, field
    assert (result.solved, result.episodes) == (17 + 9, 40)  # of the two that say so
    more = summarise(("reach", RETURNED), "guide", 5, runs, Goals(score=2.0), (10, 100))
    assert (more.steps_to_score.value, more.steps_to_score.count) == (pytest.approx((10 + 100 + 10) / 3), 3)


@pytest.mark.parametrize("goal", [nan, float("inf"), -float("inf")])
def test_goals_that_can_not_be_reached_or_missed_are_refused(goal):
    with pytest.raises(SettingsError, match=f"the return to reach must be finite, not {goal}"):
        Goals(goal).check()
    with pytest.raises(SettingsError, match=f"the score to reach must be finite, not {goal}"):
        Goals(score=goal).check()
    Goals(None, None).check()
    Goals(-5.0, -2.0, 100.0).check()


@pytest.mark.parametrize("share", [0.0, 101.0, nan])
def test_a_share_that_can_not_be_solved_is_refused(share):
    with pytest.raises(SettingsError, match=f"in per cent, above 0 and at most 100, not {share}"):
        Goals(solved=share).check()


def test_without_goals_or_runs_there_is_nothing_to_reach():
    result = summarise(
        ("reach", DISTANCE), "guide", 2, [run_of([10, 100], [-5, -1], [5.0, 0.0])], Goals(None, None), (10, 100)
    )
    assert result.steps_to_return.count == result.steps_to_score.count == 0
    empty = summarise(("reach", DISTANCE), "guide", 2, [], Goals(), (nan, nan))
    assert empty.finished == 0
    assert np.isnan([empty.steps, empty.final_return.value, empty.area.value, empty.seconds.value]).all()
    assert summarise(("reach", DISTANCE), "guide", 1, [run_of([], [])], Goals(), (nan, nan)).final_return.count == 0
