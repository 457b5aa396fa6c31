"""The results of a comparison in words and numbers: a table in Markdown that reads as well on a terminal, and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence

from gps.columns import count, short
from gps.comparisons.statistics import CONFIDENCE, RESAMPLES, TRIMMED, Estimate, Goals, Result
from gps.tasks.task import Score

# of a `Result`, and their columns in the CSV
ESTIMATES = {
    "final_return": "final_return",
    "final_sampled": "final_return_sampled",
    "area": "area_under_return",
    "final_score": "final_score",
    "steps_to_return": "steps_to_return",
    "steps_to_score": "steps_to_score",
    "steps_to_solved": "steps_to_solved",
    "seconds": "training_seconds",
}


def markdown(results: Sequence[Result], goals: Goals) -> str:
    """The table, its columns aligned. What no result has a number for has no column."""
    columns = {
        "task": [result.task for result in results],
        "guider": [result.guider for result in results],
        "seeds": [_of(result.finished, result.seeds) for result in results],
        "steps": ["-" if math.isnan(result.steps) else count(result.steps) for result in results],
    }
    if any(result.curve.returns.count.any() for result in results):
        columns["final return"] = [_cell(result.final_return, result.finished) for result in results]
        if any(result.final_sampled.count for result in results):
            columns["by sampled actions"] = [_cell(result.final_sampled, result.finished) for result in results]
        columns["area under return"] = [_cell(result.area, result.finished) for result in results]
        if goals.learner_return is not None:
            name = f"steps to return {goals.learner_return:g}"
            columns[name] = [_reached(result.steps_to_return, result.seeds) for result in results]
    scored = [result for result in results if result.curve.scores.count.any()]
    if scored:
        columns |= _scores(results, {result.score for result in scored}, goals)
    columns["training (s)"] = [_cell(result.seconds, result.finished) for result in results]
    return aligned(columns)


def _scores(results: Sequence[Result], scores: set[Score], goals: Goals) -> dict[str, list[str]]:
    """The columns of the tasks' own scores: their name and unit in the heading, or, where they differ, in the cells."""
    alike = scores.pop() if len(scores) == 1 else None
    cells = [_cell(result.final_score, result.finished) for result in results]
    if alike is None:
        cells = [cell if cell == "-" else f"{cell}, {r.score.label}" for cell, r in zip(cells, results, strict=True)]
    columns = {f"test {alike.label}" if alike else "test score": cells}
    if any(result.episodes for result in results):
        columns["solved"] = [_rate(result.solved, result.episodes) for result in results]
        if goals.solved is not None:
            name = f"steps to {goals.solved:g} % solved"
            columns[name] = [_reached(result.steps_to_solved, result.seeds) for result in results]
    if goals.score is not None:
        name = f"steps to {goals.score:g} {alike.unit}".rstrip() if alike else f"steps to score {goals.score:g}"
        columns[name] = [_reached(result.steps_to_score, result.seeds) for result in results]
    return columns


def _rate(solved: int, episodes: int) -> str:
    return f"{100 * solved / episodes:.0f} % ({solved} of {episodes})" if episodes else "-"


def aligned(columns: Mapping[str, Sequence[str]], left: int = 2) -> str:
    """A table in Markdown: the first `left` columns to the left, the others, which are numbers, to the right."""
    lines = [[], [], *([] for _ in next(iter(columns.values())))]
    for place, (name, cells) in enumerate(columns.items()):
        width = max(map(len, (name, *cells)))
        text = place < left
        rule = "-" * width if text else "-" * (width - 1) + ":"
        for line, cell in zip(lines, (name, rule, *cells), strict=True):
            line.append(cell.ljust(width) if text else cell.rjust(width))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(estimate: Estimate, seeds: int, text: Callable[[float], str] = short) -> str:
    """The estimate, its interval and, where that are not all, how many seeds they are of."""
    if not estimate.count:
        return "-"
    value, low, high = (text(float(number)) for number in (estimate.value, estimate.low, estimate.high))
    interval = "" if math.isnan(estimate.low) else f" [{low}, {high}]"
    return value + interval + ("" if estimate.count == seeds else f" ({_of(int(estimate.count), seeds)})")


def _reached(estimate: Estimate, seeds: int) -> str:
    """The steps to a goal, and how many of the seeds came to it."""
    reached = f"{estimate.count} of {seeds}"
    return f"{_cell(estimate, int(estimate.count), text=count)}, {reached}" if estimate.count else reached


def _of(number: int, total: int) -> str:
    return str(number) if number == total else f"{number} of {total}"


def notes(goals: Goals, ranges: Mapping[str, tuple[float, float]], failed: Sequence[str]) -> str:
    """What has to be known to read the table.

    Args:
        ranges: for each task, of the steps of the area.
        failed: the runs that did not come to their end, and why.
    """
    lines = [
        f"Interquartile means over seeds, and {100 * CONFIDENCE:g} % percentile bootstrap intervals over seeds "
        f"({RESAMPLES} resamples). An interquartile mean leaves out a quarter of the seeds at each end, rounded down: "
        f"with fewer than {1 / TRIMMED:g} it is the mean.",
        "Return, score and solved episodes are those of the learner at the last evaluation, without noise on its "
        "actions but where they are said to be sampled; solved episodes are counted over all seeds.",
        "Steps are of the simulator; those of evaluations do not count, nor those of a teacher from another run. "
        "Seconds are of training, without evaluations and compilation: a run's first iteration, and the first after it "
        "was resumed, count as long as the median of the others. Where there are no others, as in a run of one "
        "iteration, compilation is in them.",
    ]
    for task, (low, high) in ranges.items():
        if low < high:
            lines.append(
                f"Area under return, {task}: mean over the logarithm of the steps from {low:.0f}, where all have been "
                f"evaluated, to {high:.0f}; what ended earlier keeps its last return, and an evaluation in which an "
                "episode diverged is left out."
            )
        elif math.isfinite(low):
            lines.append(f"Area under return, {task}: none, because there are too few evaluations.")
    if any(goal is not None for goal in goals):
        lines.append(
            "Steps to a goal are those before the first evaluation that met it, over the seeds that did; a failed run "
            "counts as one that did not."
        )
    if failed:
        lines.append("**Failed, and in no other number:**")
        lines += [f"  - {reason}" for reason in failed]
    return "".join(line + "\n" if line.startswith("  ") else f"- {line}\n" for line in lines)


def csv_text(results: Sequence[Result]) -> str:
    """One line for each result: of every estimate its value, its interval and its number of seeds; NaN is empty."""
    table = []
    for result in results:
        row = {"task": result.task, "guider": result.guider, "seeds": result.seeds, "finished": result.finished}
        row["steps"] = _plain(result.steps)
        solved, episodes = (result.solved, result.episodes) if result.episodes else ("", "")
        row |= {"score": result.score.name, "unit": result.score.unit, "solved": solved, "episodes": episodes}
        for field, name in ESTIMATES.items():
            estimate = getattr(result, field)
            row[name] = _plain(estimate.value)
            row[f"{name}_low"], row[f"{name}_high"] = _plain(estimate.low), _plain(estimate.high)
            row[f"{name}_seeds"] = int(estimate.count)
        table.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _plain(number) -> float | str:
    return float(number) if math.isfinite(number) else ""
