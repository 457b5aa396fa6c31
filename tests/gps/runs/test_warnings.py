"""What metrics warn of, and when it is told."""

from __future__ import annotations

import math

from gps.runs.warnings import STALLED, UNTRUSTED, Warnings


def told_after(rows) -> list[list[str]]:
    """What is told after each row, by one who has seen all of them and by one who goes on from there."""
    warnings = Warnings()
    told = [warnings.after(row) for row in rows]
    assert told == [Warnings(rows[:n]).after(row) for n, row in enumerate(rows)]
    return told


def test_models_that_are_not_trusted_are_told_once():
    def rows(*counts):
        return [{"untrusted_models": count, "cost": [float(-i), 1.0, 1.0]} for i, count in enumerate(counts)]

    told = told_after(rows(2, 2, 1, 2, 3, 2, 2, 2, 0, 2, 2, 2))
    assert [n for n, found in enumerate(told, 1) if found] == [6, 12]
    assert UNTRUSTED == 3
    assert "guider.sampling.samples" in told[5][0]


def test_a_run_in_which_no_condition_improves_is_told_once():
    """One condition is enough; what is not finite is no improvement."""
    costs = [[3.0, 3.0]] + [[3.0, 2.0]] + [[4.0, None], [math.nan, -math.inf]] * STALLED
    told = told_after([{"cost": c} for c in costs])
    assert [n for n, found in enumerate(told, 1) if found] == [2 + STALLED]
    assert told_after([{"learner_return": 3.0}] * 30) == [[]] * 30


def test_where_steps_first_diverged_is_told_once():
    """NaN in a row that was made, null in one that was read."""
    lost = {"diverged_samples": 12.0, "first_diverged_environment": 3.0, "first_diverged_step": 17.0}
    none = {"diverged_samples": 0.0, "first_diverged_environment": math.nan, "first_diverged_step": math.nan}
    rows = [none, dict.fromkeys(none), lost, none, lost]
    told = told_after(rows)
    assert [len(found) for found in told] == [0, 0, 1, 0, 0]
    assert told[2][0].startswith("12 steps diverged")
    assert "the first in environment 3, step 17" in told[2][0]
