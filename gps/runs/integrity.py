"""Whether what a run has left on the disk fits together: nothing may go on from a part of it, or be concluded from one.

The row of an iteration is written before its checkpoint, and the summary after both. So there are the rows of all the
iterations before a checkpoint, and where no checkpoint is, none was due before the last row. A checkpoint's record has
the settings that it was made with, and sums over the rows before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gps.experiments.experiment import MAY_CHANGE
from gps.runs.folder import RunFolder
from gps.runs.metrics import REMEDY, RunError
from gps.settings import flat

if TYPE_CHECKING:
    from gps.runs.checkpoints import Restored

_NEEDED = ("steps", "iteration_seconds")  # in every row


def meta_of(folder: RunFolder, seconds: float, best_iteration: int | None) -> dict[str, Any]:
    """The meta of a checkpoint that is saved now: how far the run is, and by what `check` knows its files again.

    Args:
        seconds: that the run has taken.
        best_iteration: in which the best learner was evaluated.
    """
    own = {"settings": folder.settings, "metrics": folder.metrics.sums()}
    return {"seconds": seconds, "best_iteration": best_iteration, **own}


def check(folder: RunFolder, newest: Restored | None, first: int) -> list[str]:
    """Raise RunError where the run can not go on without losing rows of its metrics, or from settings or rows that are
    not those of its checkpoint; nothing is changed.

    Args:
        newest: the checkpoint to go on from; None where there is no checkpoint at all.
        first: iterations before the first checkpoint that the run makes.

    Returns:
        Notes for the user.
    """
    done = len(folder.metrics.rows()) if newest is None else newest.step
    check_rows(folder, done)
    if newest is not None:
        return _check_covered(folder, newest)
    # a kill between a row and its checkpoint leaves as many rows as there are before the first checkpoint
    if done > first or ended(folder):
        raise RunError(
            f"{folder.path / 'checkpoints'} holds no checkpoint, and {ended(folder) or done} iterations were run: "
            "restore that folder, or start anew with another --out"
        )
    return []


def _check_covered(folder: RunFolder, newest: Restored) -> list[str]:
    """Raise RunError where settings or metrics are not those that a checkpoint was made with."""
    meta = newest.meta
    best, metrics = meta.get("best_iteration", ""), meta.get("metrics")
    known = best is None or (type(best) is int and 0 <= best < newest.step)
    if not known or not _is_number(meta.get("seconds")):
        raise RunError(f"checkpoint {newest.step} of {folder.path} is not one of a run: {REMEDY}")
    if not isinstance(metrics, Mapping) or "settings" not in meta:
        return [f"{folder.path} was made before sums were kept: nobody knows whether its settings and rows are its own"]
    check_settings(folder, newest)
    if [type(metrics.get(name)) for name in ("sha256", "crc32")] != [str, str]:
        raise RunError(f"checkpoint {newest.step} of {folder.path} is not one of a run: {REMEDY}")
    folder.metrics.check(metrics)
    return []


def check_settings(folder: RunFolder, newest: Restored) -> None:
    """Raise RunError where settings, all but those of `MAY_CHANGE`, are not those that a checkpoint was made with."""
    own, made_with = flat(folder.settings), newest.meta.get("settings")
    for name, wanted in flat(made_with).items() if isinstance(made_with, Mapping) else ():
        if repr(own.get(name)) != repr(wanted) and name not in MAY_CHANGE:
            raise RunError(
                f"{folder.path / 'config.toml'} has {name} = {own.get(name)}, and checkpoint {newest.step} was made "
                f"with {wanted}: {REMEDY}"
            )


def check_newest(folder: RunFolder, rows: int, newest: Restored) -> None:
    """Raise RunError where newer checkpoints were made than the newest that is whole.

    Args:
        rows: of the metrics; counted before the checkpoints are read: a run that is trained meanwhile then has them.
    """
    every = folder.experiment.run.checkpoint_every
    due = max(ended(folder), max(rows - 1, 0) // every * every)  # a kill may have come before that of the last row
    damages = [str(damage) for damage in newest.skipped]
    if newest.step < due and not damages:
        damages = [f"{folder.path / 'checkpoints'} has no checkpoint of iteration {due}"]
    if damages:
        raise RunError(
            f"{'; '.join(damages)}: the newest that is whole is of iteration {newest.step}; take it by --allow-older "
            f"or --step {newest.step}, or make the others again by gps train --resume"
        )


def check_rows(folder: RunFolder, step: int) -> None:
    """Raise RunError unless metrics.jsonl has the rows of the iterations before `step`, each once and in their order.

    Rows of later iterations, which a resumed run computes again, do not matter.
    """
    file = folder.path / "metrics.jsonl"
    if step and not file.exists():
        raise RunError(f"{file} is missing, with the rows of {step} iterations: {REMEDY}")
    rows = [row for row in folder.metrics.rows() if not _is_number(row.get("iteration")) or row["iteration"] < step]
    for i, row in enumerate(rows):
        if row.get("iteration") != i:
            raise RunError(
                f"{file} has the row of iteration {row.get('iteration')} where that of {i} belongs: {REMEDY}"
            )
        for name in _NEEDED:
            if not _is_number(row.get(name)):
                raise RunError(f"{file}: the row of iteration {i} has no number '{name}': {REMEDY}")
    if len(rows) < step:
        raise RunError(f"{file} has the rows of {len(rows)} of the {step} iterations that were run: {REMEDY}")


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
