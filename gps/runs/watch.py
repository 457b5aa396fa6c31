"""A run's progress as seen by a process that does not train it: `gps watch`. It reads, and never locks or writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from gps.columns import Column
from gps.runs.folder import RunFolder
from gps.runs.progress import Progress
from gps.runs.warnings import Warnings

POLL = 1.0  # s, between looks at a run's metrics
SILENCE = 60.0  # s without a row after which somebody should look, or five times what the slowest iteration took


def watch(
    folder: RunFolder,
    title: str,
    columns: Sequence[Column],
    *,
    stream: TextIO | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Show a run's rows as they are written, and return when it has all its iterations.

    Args:
        stream: standard output by default.
        wait: is called with seconds between two looks.

    Errors:
        As in `gps.runs.metrics.Metrics.rows`.
    """
    total = folder.experiment.run.iterations
    size = folder.metrics.size()  # first, so that a row that is added meanwhile is read later
    rows = folder.metrics.rows()
    with Progress(total, title, columns, stream, done=len(rows)) as progress:

        def show(rows: Sequence[dict[str, Any]], how: Callable[[dict[str, Any]], None]) -> None:
            for row in rows:
                how(row)
                for warning in warnings.after(row):
                    progress.note(warning)

        warnings = Warnings()
        show(rows, progress.earlier)
        silent = 0.0
        while len(rows) < total:
            wait(POLL)
            before, last = len(rows), size
            size = folder.metrics.size()
            rows = rows if size == last else folder.metrics.rows()
            if len(rows) < before:
                progress.note(f"resumed after iteration {len(rows)}: later ones are computed again")
                warnings = Warnings(rows)
            show(rows[before:], progress.update)
            silent = silent + POLL if len(rows) == before else 0.0
            if 0 <= silent - _patience(rows) < POLL:  # once
                progress.note(f"no row for {silent:.0f} s: does the process that trains {folder.path} still run?")


def _patience(rows: Sequence[dict[str, Any]]) -> float:
    return max([SILENCE, *(5 * (row.get("iteration_seconds") or 0.0) for row in rows)])
