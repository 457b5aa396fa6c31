"""`gps evaluate`: what it prints, and what it refuses."""

from __future__ import annotations

import pytest

from gps.runs.folder import RunFolder

EVALUATIONS = [
    (["--seed", "99999999999999999999"], "seed must be from 0 to 4294967295, not 99999999999999999999"),
    (["--seed", "-5"], "seed must be from 0 to 4294967295, not -5"),
    (["--noise", "nan"], "noise must be finite and at least 0, not nan"),
    (["--noise", "inf"], "noise must be finite and at least 0, not inf"),
    (["--noise", "-1"], "noise must be finite and at least 0, not -1.0"),
]


@pytest.mark.parametrize(("arguments", "words"), EVALUATIONS)
def test_an_impossible_evaluation_is_named(refused, arguments, words):
    assert words in refused("evaluate", "run", *arguments)


def test_a_run_without_a_checkpoint_cannot_be_evaluated_yet(said, tiny):
    RunFolder.create("run", tiny())
    status, out, errors = said("evaluate", "run")
    assert (status, out) == (2, [])
    assert errors == ["gps: run has no checkpoint yet: train it with gps train --resume"]
