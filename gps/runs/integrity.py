"""Whether what a run has left on the disk fits together: nothing may go on from a part of it, or be concluded from one.

The row of an iteration is written before its checkpoint, and the summary after both. So there are the rows of all the
iterations before a checkpoint, and where no checkpoint is, none was due before the last row.
"""

from __future__ import annotations

from typing import Any

from gps.runs.folder import RunError, RunFolder

_NEEDED = ("steps", "iteration_seconds")  # in every row
_REMEDY = "restore the file, or start anew with another --out"


def check(folder: RunFolder, step: int | None, first: int) -> None:
    """Raise RunError where the run can not go on without losing rows of its metrics; nothing is changed.

    Args:
        step: iterations before the newest checkpoint that is whole; None where there is no checkpoint at all.
        first: iterations before the first checkpoint that the run makes.
    """
    done = len(folder.read_metrics()) if step is None else step
    check_rows(folder, done)
    # a kill between a row and its checkpoint leaves as many rows as there are before the first checkpoint
    if step is None and (done > first or ended(folder)):
        raise RunError(
            f"{folder.path / 'checkpoints'} holds no checkpoint, and {ended(folder) or done} iterations were run: "
            "restore that folder, or start anew with another --out"
        )


def check_rows(folder: RunFolder, step: int) -> None:
    """Raise RunError unless metrics.jsonl has the rows of the iterations before `step`, each once and in their order.

    Rows of later iterations, which a resumed run computes again, do not matter.
    """
    file = folder.path / "metrics.jsonl"
    if step and not file.exists():
        raise RunError(f"{file} is missing, with the rows of {step} iterations: {_REMEDY}")
    rows = [row for row in folder.read_metrics() if not _is_number(row.get("iteration")) or row["iteration"] < step]
    for i, row in enumerate(rows):
        if row.get("iteration") != i:
            raise RunError(
                f"{file} has the row of iteration {row.get('iteration')} where that of {i} belongs: {_REMEDY}"
            )
        for name in _NEEDED:
            if not _is_number(row.get(name)):
                raise RunError(f"{file}: the row of iteration {i} has no number '{name}': {_REMEDY}")
    if len(rows) < step:
        raise RunError(f"{file} has the rows of {len(rows)} of the {step} iterations that were run: {_REMEDY}")


def ended(folder: RunFolder) -> int:
    """How many iterations the run had when it came to its end; 0 where it has not yet.

    Errors:
        RunError where there is a summary that does not say.
    """
    file = folder.path / "summary.json"
    if not file.exists():
        return 0
    iterations = folder.read_summary().get("iterations")
    if not isinstance(iterations, int):
        raise RunError(f"{file} has no number 'iterations': delete it, and the resumed run writes it again")
    return iterations


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
