"""Numbers of a comparison: what the metrics of several seeds say of a guider on a task.

Estimator, everywhere: the interquartile mean over seeds, `scipy.stats.trim_mean(values, 0.25)`. It leaves out
int(S / 4) of the S values at each end, so that with fewer than four seeds it is the mean. Its interval holds 95 % of
the means of 2000 bootstrap samples of the seeds (percentile interval, the same samples every time); one seed has no
interval, and with a handful of seeds such an interval is narrower than it should be. A NaN is left out: the
number of seeds that an estimate is of stands beside it.

Source:
    Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021, sections 4.1 and 4.3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from gps.runs.folder import iteration_seconds
from gps.settings import SettingsError
from gps.tasks.task import Score

TRIMMED = 0.25  # of the values at each end: what is left is between the quartiles
CONFIDENCE = 0.95
RESAMPLES = 2000
_BATCH = 200  # resamples at a time: 2000 of five seeds at a thousand evaluations would be 80 MB and their copies


@dataclass(frozen=True)
class Estimate:
    """Interquartile mean over seeds of one number, or of n numbers at once."""

    value: Float[np.ndarray, "*n"]  # NaN where no seed has a number
    low: Float[np.ndarray, "*n"]  # ends of the interval; NaN where fewer than two seeds have a number
    high: Float[np.ndarray, "*n"]
    count: Int[np.ndarray, "*n"]  # seeds with a number


@dataclass(frozen=True)
class Learning:
    """What the n evaluations of one run say of its learner; NaN where a simulation diverged or there is no number."""

    steps: Float[np.ndarray, " n"]  # simulator steps before the evaluation
    seconds: Float[np.ndarray, " n"]  # of training before it, without compilation and evaluations
    returns: Float[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]  # in the unit of the task's score, mean over the test conditions
    sampled: Float[np.ndarray, " n"]  # returns by actions drawn from the policy
    solved: Float[np.ndarray, " n"]  # test episodes that solved the task
    episodes: Float[np.ndarray, " n"]  # test episodes

    @property
    def solved_share(self) -> Float[np.ndarray, " n"]:
        """Of the test episodes, %."""
        return 100.0 * self.solved / self.episodes


@dataclass(frozen=True)
class Curve:
    """The same over seeds, at every number of steps at which any of them was evaluated."""

    steps: Float[np.ndarray, " n"]
    seconds: Float[np.ndarray, " n"]  # median over the seeds that were evaluated there
    returns: Estimate
    scores: Estimate
    solved: Estimate  # share of the test episodes that solved the task, %


class Goals(NamedTuple):
    """What a learner is to reach; None where there is no such goal."""

    learner_return: float | None = None
    score: float | None = None  # of each task, in the unit of its own
    solved: float | None = None  # share of the test episodes that solve the task, %

    def check(self) -> None:
        """Raise SettingsError for a goal that can not be reached or missed."""
        for what, goal in (("return", self.learner_return), ("score", self.score)):
            if goal is not None and not math.isfinite(goal):
                raise SettingsError(f"the {what} to reach must be finite, not {goal}")
        if self.solved is not None and not 0.0 < self.solved <= 100.0:
            raise SettingsError(
                f"the share of solved test episodes to reach is in per cent, above 0 and at most 100, not {self.solved}"
            )


GOALS = Goals()


@dataclass(frozen=True)
class Result:
    """A guider on a task. All estimates are over the runs that came to their end."""

    task: str
    guider: str
    score: Score  # of the task
    seeds: int  # that were to be run
    finished: int  # that came to their end; the others diverged
    steps: float  # simulator steps of a run (of the longest one)
    final_return: Estimate
    final_sampled: Estimate
    final_score: Estimate
    solved: int  # of the last evaluations' test episodes, over all seeds
    episodes: int  # test episodes of the last evaluations; 0 where the task does not say which are solved
    area: Estimate  # see `area`
    steps_to_return: Estimate  # over the seeds that reached the goal; its count says how many
    steps_to_score: Estimate
    steps_to_solved: Estimate
    seconds: Estimate  # of training, without compilation and evaluations
    curve: Curve


def learning(rows: Sequence[Mapping[str, Any]]) -> Learning:
    """Of a run's metrics, the rows with an evaluation of the learner."""
    fields = ("learner_return", "test_score", "learner_return_sampled", "test_solved", "test_episodes")
    seconds = np.cumsum(iteration_seconds(rows))
    evaluations = [
        (row["steps"], spent, *(row.get(field) for field in fields))
        for row, spent in zip(rows, seconds, strict=True)
        if any(field in row for field in fields)
    ]
    return Learning(*np.array(evaluations, float).reshape(-1, 7).T)  # None becomes NaN


def estimate(values: Float[np.ndarray, "S *n"]) -> Estimate:
    """The interquartile mean over S seeds of each of the other entries, and its interval; see the module's text."""
    values = np.asarray(values, float)
    columns = values.reshape(len(values), int(np.prod(values.shape[1:])))
    there = np.isfinite(columns)
    numbers = np.full((3, columns.shape[1]), np.nan)
    patterns, members = np.unique(there.T, axis=0, return_inverse=True)
    for pattern, seeds in enumerate(patterns):  # one call for all the columns in which the same seeds have numbers
        if seeds.any():
            same = members == pattern
            numbers[:, same] = _mean_and_interval(columns[seeds][:, same])
    value, low, high = numbers.reshape(3, *values.shape[1:])
    return Estimate(value, low, high, there.sum(0).reshape(values.shape[1:]))


def _mean_and_interval(values: Float[np.ndarray, "S n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = functools.partial(stats.trim_mean, proportiontocut=TRIMMED)
    middle = mean(values, axis=0)
    if len(values) < 2:
        return middle, np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    options = {"n_resamples": RESAMPLES, "batch": _BATCH, "vectorized": True, "rng": np.random.default_rng(0)}
    drawn = stats.bootstrap((values,), mean, confidence_level=CONFIDENCE, method="percentile", **options)
    return middle, drawn.confidence_interval.low, drawn.confidence_interval.high


def area(steps: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], low: float, high: float) -> float:
    """Mean of a curve from `low` to `high` steps, over the logarithm of the steps, by the trapezoidal rule.

    Over the logarithm as in the figures: each doubling of the steps weighs the same, so that early learning counts
    also where a run is long. The curve is a line between its finite points and level outside of them.

    Returns:
        A number in the unit of the values; NaN without a finite value, and unless 0 < low < high.
    """
    there = np.isfinite(values)
    if not (0 < low < high and there.any()):
        return float("nan")
    points, ends = np.log(steps[there]), np.log([low, high])
    inside = points[(points > ends[0]) & (points < ends[1])]
    at = np.concatenate([ends[:1], inside, ends[1:]])
    return float(np.trapezoid(np.interp(at, points, values[there]), at) / (ends[1] - ends[0]))


def area_range(runs: Sequence[Learning]) -> tuple[float, float]:
    """From where every run has a return to the end of the longest one: a run that ended earlier keeps its last return.

    What came before is left out, because what a learner did before its first evaluation is not known. NaN, NaN where
    no run has a return.
    """
    steps = [run.steps[np.isfinite(run.returns)] for run in runs if np.isfinite(run.returns).any()]
    return (max(some[0] for some in steps), max(some[-1] for some in steps)) if steps else (np.nan, np.nan)


def steps_to(steps: Float[np.ndarray, " n"], reached: Bool[np.ndarray, " n"]) -> float:
    """The steps before the first evaluation at which a goal was reached, whatever came later; NaN if it never was."""
    return float(steps[np.argmax(reached)]) if reached.any() else float("nan")


def curve(runs: Sequence[Learning]) -> Curve:
    """The runs of one guider on one task, aligned by the steps at which they were evaluated."""
    steps = np.unique(np.concatenate([run.steps for run in runs])) if runs else np.empty(0)

    def aligned(field: str) -> Float[np.ndarray, "S n"]:
        table = np.full((len(runs), len(steps)), np.nan)
        for line, run in zip(table, runs, strict=True):
            line[np.searchsorted(steps, run.steps)] = getattr(run, field)
        return table

    seconds = np.nanmedian(aligned("seconds"), axis=0) if runs else np.empty(0)
    estimates = (estimate(aligned(field)) for field in ("returns", "scores", "solved_share"))
    return Curve(steps, seconds, *estimates)


def summarise(
    task: tuple[str, Score],
    guider: str,
    seeds: int,
    runs: Sequence[Learning],
    goals: Goals,
    between: tuple[float, float],
) -> Result:
    """The numbers of one guider on one task.

    Args:
        task: its name, and how it is judged.
        seeds: that were to be run.
        runs: of those that came to their end.
        between: steps for the area; see `area_range`.
    """
    best, near, most = (np.nan if goal is None else goal for goal in goals)  # nothing compares with NaN
    better = np.greater_equal if task[1].more_is_better else np.less_equal
    judged = [run for run in runs if len(run.steps) and math.isfinite(run.solved[-1])]
    return Result(
        task[0],
        guider,
        task[1],
        seeds,
        len(runs),
        steps=max((float(run.steps[-1]) for run in runs if len(run.steps)), default=float("nan")),
        final_return=_over(runs, lambda run: run.returns[-1]),
        final_sampled=_over(runs, lambda run: run.sampled[-1]),
        final_score=_over(runs, lambda run: run.scores[-1]),
        solved=int(sum(run.solved[-1] for run in judged)),
        episodes=int(sum(run.episodes[-1] for run in judged)),
        area=_over(runs, lambda run: area(run.steps, run.returns, *between)),
        steps_to_return=_over(runs, lambda run: steps_to(run.steps, run.returns >= best)),
        steps_to_score=_over(runs, lambda run: steps_to(run.steps, better(run.scores, near))),
        steps_to_solved=_over(runs, lambda run: steps_to(run.steps, run.solved_share >= most)),
        seconds=_over(runs, lambda run: run.seconds[-1]),
        curve=curve(runs),
    )


def _over(runs: Sequence[Learning], number) -> Estimate:
    return estimate(np.array([number(run) if len(run.steps) else np.nan for run in runs], float))
