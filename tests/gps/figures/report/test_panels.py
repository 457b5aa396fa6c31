"""Panels: their curves are the metrics, on every axis, and what has no numbers has no panel."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gps.figures.report import panels
from gps.tasks.task import Score

SCORE = Score("distance", "cm")


def rows_of(count: int = 4, conditions: int = 3) -> list[dict]:
    """Metrics of a model-based guider; the learner is evaluated in every second iteration."""
    rng, rows = np.random.default_rng(0), []
    fields = ("controllers_score", "cost", "eta", "kl_step", "kl_limit", "model_error", "step_size", "kl_to_learner")
    for i in range(count):
        row: dict = {"iteration": i, "steps": 750 * (i + 1), "seconds": 1.5 * (i + 1)}
        row |= {field: np.exp(rng.normal(-i, 0.5, conditions)).tolist() for field in fields}
        row |= {"learner_loss": 1.0 / (1 + i), "failed_fits": 0}
        if i % 2 == 0:
            row |= {"test_score": float(i + 1), "test_solved": i, "test_episodes": 20, "test_cost": 3.0}
        rows.append(row)
    return rows


def curves(panel) -> dict:
    return {trace["name"]: trace for trace in panel["data"] if "name" in trace}


def by_title(some) -> dict:
    return {panel["title"]: panel for panel in some}


def test_learning_curves_are_the_metrics_over_every_axis():
    rows = rows_of()
    found = by_title(panels.learning(rows, SCORE))
    assert list(found) == ["distance (cm)", "cost of an episode", "solved (%)"]
    controllers = curves(found["distance (cm)"])["controllers, mean"]
    scores = np.array([row["controllers_score"] for row in rows])
    np.testing.assert_allclose(controllers["y"], scores.mean(1), rtol=1e-5)
    np.testing.assert_allclose(controllers["customdata"], np.stack([scores.min(1), scores.max(1)], 1), rtol=1e-5)
    expected = {"steps": [750, 1500, 2250, 3000], "iteration": [1, 2, 3, 4], "seconds": [1.5, 3.0, 4.5, 6.0]}
    assert controllers["xs"] == expected
    learner = curves(found["solved (%)"])["learner, test conditions"]
    assert learner["y"] == [0.0, 10.0]
    assert learner["xs"]["iteration"] == [1, 3]


def test_bands_reach_from_the_lowest_to_the_highest_condition():
    rows = rows_of()
    band, median = by_title(panels.ties(rows))["η (cost per nat)"]["data"]
    etas = np.array([row["eta"] for row in rows])
    np.testing.assert_allclose(band["y"], [*etas.min(1), *etas.max(1)[::-1]], rtol=1e-5)
    assert band["xs"]["steps"] == [750, 1500, 2250, 3000, 3000, 2250, 1500, 750]
    np.testing.assert_allclose(median["y"], np.median(etas, axis=1), rtol=1e-5)


def test_ties_have_the_limits_of_steps_and_the_step_sizes():
    rows = rows_of()
    found = by_title(panels.ties(rows))
    limits = curves(found["KL of iteration (nat/step)"])["median of their limits"]
    np.testing.assert_allclose(limits["y"], [np.median(row["kl_limit"]) for row in rows], rtol=1e-5)
    assert "step size (share of the KL limit)" in found


def test_maps_have_a_cell_for_each_condition_and_iteration():
    rows = rows_of()
    rows[1]["kl_to_learner"][2] = None  # its model was not trusted
    rows[2]["model_error"] = [0.0, 90.0, 0.2]
    found = by_title(panels.maps(rows))
    (heat,) = found["KL to learner (nat/step)"]["data"]
    cells = np.array([row["kl_to_learner"] for row in rows], float).T
    np.testing.assert_allclose(np.array(heat["customdata"], float), cells, rtol=1e-5)
    np.testing.assert_allclose(np.array(heat["z"], float), np.log10(cells), atol=1e-5)  # they span decades
    assert found["relative model error"]["data"][0]["z"][0][2] is None  # a zero among logarithms
    assert not panels.maps(rows_of(conditions=1))


def test_all_other_numbers_are_shown_and_what_is_none_is_not():
    rows = rows_of()
    for row in rows:
        row |= {"a text": "words", "nested": [[1.0], [2.0, 3.0]], "nothing": None}
    assert list(by_title(panels.others(rows))) == ["learner loss", "failed fits"]


def test_without_numbers_there_are_no_panels():
    rows = [{"iteration": 0, "steps": 10, "seconds": 1.0, "test_score": None, "train_return": None}]
    assert [*panels.learning(rows, SCORE), *panels.ties(rows), *panels.models(rows), *panels.maps(rows)] == []


def test_a_model_free_run_has_its_returns_and_its_own_ties():
    rows = [
        {"iteration": i, "steps": i, "seconds": i, "train_return": -i, "learner_return": -2.0 * i, "alpha": 1.0}
        for i in range(3)
    ]
    (returns,) = panels.learning(rows, SCORE)
    assert curves(returns)["whoever acts in training"]["y"] == [0, -1, -2]
    assert list(by_title(panels.ties(rows))) == ["penalty alpha"]


def test_runs_are_compared_and_seeds_share_a_colour():
    runs = [("a0", "a", rows_of()), ("a1", "a", rows_of(3)), ("b0", "b", rows_of(2))]
    found = by_title(panels.compared(runs, SCORE))["test distance (cm)"]
    assert [trace["name"] for trace in found["data"]] == ["a0", "a1", "b0"]
    first, second, third = (trace["line"]["color"] for trace in found["data"])
    assert first == second != third
    assert found["data"][0]["y"] == [1.0, 3.0]
    assert by_title(panels.compared(runs, SCORE))["test episodes solved (%)"]["data"][0]["y"] == [0.0, 10.0]


def test_long_metrics_are_thinned_and_end_with_the_last_row():
    rows = [{"iteration": i} for i in range(4001)]
    some = panels.thinned(rows)
    assert len(some) <= panels.MOST_ROWS
    assert some[-1] == rows[-1]
    assert len(np.unique(np.diff([row["iteration"] for row in some]))) == 1
    assert panels.thinned(rows[: panels.MOST_ROWS]) == rows[: panels.MOST_ROWS]


@pytest.mark.parametrize("values", [[1.0, 2.9], [0.0, 9.0], [-1.0, 9.0], [], [None]])
def test_an_axis_is_linear_unless_all_is_positive_and_not_of_one_size(values):
    assert panels.log_scale(values) == {}
    assert panels.log_scale([1.0, None, 3.1])["type"] == "log"


def test_names_in_figures_are_no_markup():
    rows = [{"iteration": 0, "steps": 1, "seconds": 1.0, "<a href='http://x'>": 1.0}]
    (panel,) = panels.others(rows)
    assert "<" not in json.dumps(panel).replace("<extra>", "").replace("<br>", "")
    assert panel["title"] == "&lt;a href='http://x'&gt;"
