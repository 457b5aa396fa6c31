"""The best learner of a run: which it is, that it is kept, and that it is told."""

from __future__ import annotations

import math

import jax
import pytest
from support.guided import rows_of

from gps.runs import train
from gps.runs.best import Best, best_row, standing, told
from gps.runs.folder import RunFolder
from gps.runs.resume import load
from gps.tasks.task import Score

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def control(tiny):
    return tiny().build().task


RATE = "guider.learner.training.learning_rate"


def row(iteration, score, solved=None):
    return {"iteration": iteration, "train_score": score, **({} if solved is None else {"train_solved": solved})}


def test_more_solved_conditions_are_better_and_then_the_mean_score(control):
    """Of a distance less is better. A mean of which one episode diverged is the worst, as NaN or as null."""
    order = [
        row(0, None, 2),
        row(1, 9.0, 2),
        row(2, 1.0, 2),
        row(3, math.nan, 3),
        row(4, 5.0, 3),
    ]
    standings = [standing(r, control) for r in order]
    assert standings == sorted(standings)
    assert len(set(standings)) == 5


def test_of_a_score_of_which_more_is_better_more_is_better(control):
    class Walking:
        score = Score("distance", "m", more_is_better=True)

        def __getattr__(self, name):
            return getattr(control, name)

    task = Walking()
    assert standing(row(0, 2.0), task) > standing(row(1, 1.0), task) > standing(row(2, None), task)


def test_the_first_of_equals_stays(control):
    begun = Best("start")
    assert begun.iteration is None
    first = begun.or_better(row(0, 3.0, 1), "first", control)
    assert (first.policy, first.iteration) == ("first", 0)
    assert first.or_better(row(1, 3.0, 1), "second", control) is first
    better = first.or_better(row(2, 2.0, 1), "third", control)
    assert (better.policy, better.iteration) == ("third", 2)
    # a learner that diverged is better than none that was evaluated
    assert begun.or_better(row(0, math.nan, 0), "diverged", control).iteration == 0


@pytest.mark.parametrize("rate", [3e-3, 30.0])
def test_the_best_learner_of_a_run_is_kept(rate, tiny, quick, tmp_path):
    """It scores what its row says; with steps of the learner that are far too large, it is not the last one."""
    folder = RunFolder.create(
        tmp_path / "run", tiny(f"guider.learner.training.learning_rate={rate}", "run.iterations=4")
    )
    summary = train.train(folder, quiet=True)
    rows, run = rows_of(folder), load(folder)
    standings = [standing(r, run.guider.task) for r in rows]
    best = standings.index(max(standings))
    assert run.best_iteration == rows[-1]["best_iteration"] == best
    key = jax.random.fold_in(jax.random.key(0), 1)
    scores = quick(run.guider).evaluate(run.best, key).scores(run.guider.task)
    assert scores["train_score"] == pytest.approx(rows[best]["train_score"], rel=1e-5)
    assert ("best" in summary) == (best != 3)
    if best != 3:
        assert summary["best"]["test_score"] == pytest.approx(rows[best]["test_score"])
        assert summary["best"]["iteration"] == best


def test_of_iterations_without_an_evaluation_none_is_the_best(tiny, tmp_path):
    changes = ("run.iterations=3", "run.evaluate_every=2", "run.checkpoint_every=1")
    folder = RunFolder.create(tmp_path / "run", tiny(*changes))
    train.train(folder, quiet=True)
    assert [r.get("best_iteration") for r in rows_of(folder)][:2] == [None, 1]


def test_what_is_told():
    best = {"iteration": 4, "test_score": 0.5, "test_solved": 19, "test_episodes": 20}
    text = told(best, {"name": "distance", "unit": "cm"})
    assert text.startswith("best by its training conditions, iteration 5: test distance 0.500 cm; solved 19 of 20 (")
    assert "return 3.00" in told({"iteration": 0, "learner_return": 3.0}, {})
    assert told({"iteration": 0, "learner_return": None}, {}).endswith("return - (gps evaluate --best)")
    assert best_row([{"iteration": 0}]) is None
    assert best_row([{"iteration": 0, "a": 1}, {"iteration": 1, "best_iteration": 0}])["a"] == 1
