"""The best learner of a run so far, kept beside the last one: training can make a good learner worse again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from gps.columns import short
from gps.guiders.guider import Guider
from gps.tasks.control_task import is_control
from gps.tasks.task import Environment
from policies.policy import Policy

Row = Mapping[str, Any]  # of metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    state: Any  # of the guider
    best: Policy  # of the best learner so far


def saved_like(guider: Guider, state: Any) -> Saved:
    """The shapes of what a checkpoint holds; `state` in shapes."""
    return Saved(state, jax.eval_shape(guider.policy, state))


@dataclass(frozen=True)
class Best:
    """The best learner so far by its training conditions; until one is evaluated, the one that a run begins with."""

    policy: Policy
    iteration: int | None = None  # in which it was evaluated, counted from 0 as in the metrics
    standing: tuple[float, ...] = ()

    def or_better(self, row: Row, policy: Policy, task: Environment) -> Best:
        """The better one of this learner and another, whose evaluation is in the row."""
        its = standing(row, task)
        return self if self.iteration is not None and its <= self.standing else Best(policy, row["iteration"], its)


def standing(row: Row, task: Environment) -> tuple[float, ...]:
    """How good a learner is by the evaluation in a row; the larger tuple is the better learner.

    For a `ControlTask` the number of solved training conditions, where the task says what is solved, and then the mean
    score of the training conditions; else the mean return. Where an episode diverged, the mean is the worst there is.
    """
    if not is_control(task):
        return (_known(row["learner_return"], 1),)
    return row.get("train_solved", 0), _known(row["train_score"], 1 if task.score.more_is_better else -1)


def _known(number: float | None, sign: int) -> float:
    """`sign` times the number; minus infinity for what is NaN, or null in a row that was read."""
    return -math.inf if number is None or math.isnan(number) else sign * float(number)


def best_row(rows: Sequence[Row]) -> Row | None:
    """The metrics of the iteration that a run's best learner is from; None where that is the last one."""
    best = rows[-1].get("best_iteration")
    return None if best is None or best == rows[-1]["iteration"] else rows[best]


def told(best: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    """One line on the best learner of a summary; its test conditions did not judge."""
    if "test_score" in best:
        text = f"test {score['name']} {_shown(best['test_score'])} {score['unit']}".rstrip()
        text += f"; solved {best['test_solved']} of {best['test_episodes']}" if "test_solved" in best else ""
    else:
        text = f"return {_shown(best['learner_return'])}"
    return f"best by its training conditions, iteration {best['iteration'] + 1}: {text} (gps evaluate --best)"


def _shown(number: float | None) -> str:
    return "-" if number is None else short(number)
