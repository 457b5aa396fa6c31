"""What a training run shows while it runs: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TextIO

from gps.columns import Column
from gps.errors import printable

_SHOWN_ROWS = 10
_OTHER_LINES = 6  # of the live display: title, column titles, units, progress and the margins
_RECENT = 10  # iterations from which the time left is estimated
_BAD = ("nan", "inf", "-inf")  # red on a terminal


class Clock:
    """How far a run is and how long the rest will take, from the pace of the last iterations.

    Args:
        total: iterations of the whole run.
        done: iterations that earlier processes have done, when a run is resumed.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, total: int, done: int = 0, now: Callable[[], float] = time.monotonic):
        self.total = total
        self.done = done
        self._now = now
        self._start = now()
        # The first iteration compiles, so the pace is measured from its end.
        self._ends: deque[float] = deque(maxlen=_RECENT + 1)

    def tick(self) -> None:
        """One more iteration is done."""
        self.done += 1
        self._ends.append(self._now())

    @property
    def elapsed(self) -> float:
        """Seconds since this process began."""
        return self._now() - self._start

    @property
    def left(self) -> float | None:
        """Seconds to the end; None before the first iteration is done."""
        if not self._ends:
            return None
        if len(self._ends) == 1:
            pace = self._ends[0] - self._start
        else:
            pace = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        since = self._now() - self._ends[-1]
        return max(0.0, pace * (self.total - self.done) - min(since, pace))

    def __str__(self) -> str:
        left = "-" if self.left is None else _duration(self.left)
        return f"{self.done}/{self.total}  elapsed {_duration(self.elapsed)}  left {left}"


class _View(Protocol):
    def row(self, row: Mapping[str, Any]) -> None: ...
    def note(self, message: str) -> None: ...
    def close(self) -> None: ...


class Progress:
    """Shows the rows of a run as they come.

        with Progress(100, "reacher with badmm", columns) as progress:
            progress.update({"iteration": 0, "cost": 12.3})

    Args:
        total_iterations: of the whole run.
        title: shown above.
        columns: the quantities of a row that are shown.
        stream: standard output by default. On a terminal the rows are one live table, elsewhere a line each.
        done: iterations that earlier processes have done, when a run is resumed.
    """

    def __init__(
        self,
        total_iterations: int,
        title: str,
        columns: Sequence[Column],
        stream: TextIO | None = None,
        *,
        done: int = 0,
    ):
        if not columns:
            raise ValueError("columns must hold at least one column")
        self.title, self.columns = printable(title), tuple(columns)
        self._total, self._done = total_iterations, done
        self._stream = sys.stdout if stream is None else stream
        self._clock: Clock | None = None
        self._view: _View | None = None

    def __enter__(self) -> Progress:
        self._clock = Clock(self._total, self._done)
        live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._view = (_Table if live else _Lines)(self._stream, self.title, self.columns, self._clock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.close()
        self._view = None

    def update(self, row: Mapping[str, Any]) -> None:
        """Show the row of an iteration that is done. Keys without a column are not shown."""
        view, clock = self._entered()
        clock.tick()
        view.row(row)

    def earlier(self, row: Mapping[str, Any]) -> None:
        """Show the row of one of the iterations that were done before."""
        self._entered()[0].row(row)

    def note(self, message: str) -> None:
        """Show a message that must not be missed, above the table or as a line."""
        self._entered()[0].note(printable(message))

    def _entered(self) -> tuple[_View, Clock]:
        if self._view is None or self._clock is None:
            raise RuntimeError("Progress is used outside of its 'with' block")
        return self._view, self._clock


class _Lines:
    """A line for each iteration, for log files and pipes."""

    def __init__(self, stream: TextIO, title: str, columns: Sequence[Column], clock: Clock):
        self._stream, self._columns, self._clock = stream, columns, clock
        self._widths = dict.fromkeys(columns, len(str(clock.total)))
        self._print(f"{title}: {clock.total} iterations" + (f", {clock.done} done before" if clock.done else ""))

    def row(self, row: Mapping[str, Any]) -> None:
        parts = []
        for column in self._columns:
            text = column.text(row)
            # As wide as the widest so far, so that the lines of a log stay in columns.
            self._widths[column] = max(self._widths[column], len(text))
            parts.append(f"{column.title} {text:>{self._widths[column]}}" + (f" {column.unit}" if column.unit else ""))
        left = self._clock.left
        self._print("  ".join(parts) + ("" if left is None else f"  left {_duration(left)}"))

    def note(self, message: str) -> None:
        self._print(f"note: {message}")

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class _Table:
    """One live display: the last rows in a table, and a bar."""

    def __init__(self, stream: TextIO, title: str, columns: Sequence[Column], clock: Clock):
        from rich.console import Console
        from rich.live import Live

        self._title, self._columns, self._clock = title, columns, clock
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=_SHOWN_ROWS)
        self._widths = {column: max(len(column.title), len(column.unit)) for column in columns}
        self._console = Console(file=stream, highlight=False)
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
        self._live.start()

    def row(self, row: Mapping[str, Any]) -> None:
        self._rows.append(dict(row))
        for column, width in self._widths.items():
            # As wide as the widest so far, so that the columns do not dance.
            self._widths[column] = max(width, len(column.text(row)))
        self._live.refresh()

    def note(self, message: str) -> None:
        self._console.print(message, style="yellow", markup=False)

    def close(self) -> None:
        self._live.stop()

    def _fitting(self) -> list[Column]:
        """The columns that the terminal has room for; the last ones go first, and no number is ever cut."""
        fitting, used = list(self._columns[:1]), self._widths[self._columns[0]]
        for column in self._columns[1:]:
            used += 1 + self._widths[column]
            if used > self._console.width:
                break
            fitting.append(column)
        return fitting

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        columns = self._fitting()
        spare = self._console.width - sum(self._widths[column] for column in columns)
        gap = max(1, min(3, spare // len(columns)))
        table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
        for column in columns:
            title = Text.assemble(f"{column.title}\n", (column.unit, "dim"))
            table.add_column(title, justify="right", min_width=self._widths[column], no_wrap=True)
        room = max(1, self._console.height - _OTHER_LINES)
        rows = list(self._rows)[-room:]
        for number, row in enumerate(rows):
            newest = number == len(rows) - 1
            texts = [column.text(row) for column in columns]
            cells = [Text(text, style="red" if text in _BAD else "") for text in texts]
            table.add_row(*cells, style="" if newest else "dim")
        progress = str(self._clock)
        room = self._console.width - len(progress) - 4
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=max(1, self._clock.total), completed=self._clock.done, width=max(4, min(30, room))),
            Text(progress, no_wrap=True),
        )
        return Group(Text(self._title, style="bold"), table, bar)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
