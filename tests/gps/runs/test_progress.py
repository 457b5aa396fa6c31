"""The progress display: plain lines without a terminal, one live table on one."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import jax.numpy as jnp
import pytest
from support.display import COLUMNS, row_of
from support.processes import ENVIRONMENT

from gps.columns import Column
from gps.runs.progress import Clock, Progress


def lines_of(rows, notes=(), total=3, columns=COLUMNS, **options) -> list[str]:
    stream = io.StringIO()
    with Progress(total, "reacher with badmm", columns, stream, **options) as progress:
        for note in notes:
            progress.note(note)
        for row in rows:
            progress.update(row)
    return stream.getvalue().splitlines()


def test_without_a_terminal_each_iteration_is_one_plain_line():
    lines = lines_of(
        [row_of(0) | {"kl_ratio": jnp.float32(0.987)}, row_of(1)],
        notes=["checkpoint 12 damaged [a/b], resuming from 11"],
    )
    assert lines[0] == "reacher with badmm: 3 iterations"
    assert lines[1] == "note: checkpoint 12 damaged [a/b], resuming from 11"
    assert lines[2] == (
        "iter 0  cost 12.5  min..max 9.00..16.0  KL/lim 0.99  |lambda| 0.0123  penalty 1.0e-05  learner 0.500"
        "  train 1.25 cm  test 2.50 cm  steps 12.8k  time 2.3 s  left 0:00:00"
    )
    assert lines[3].startswith("iter 1  cost 12.5")
    assert len(lines) == 4


def test_lines_are_there_at_once():
    """Whoever follows a log file sees an iteration when it is done, not when a buffer is full."""
    read, write = os.pipe()
    os.set_blocking(read, False)  # a line that is not there is an error, not an endless wait
    with os.fdopen(write, "w") as stream, Progress(3, "t", COLUMNS[:1], stream) as p:
        p.update({"iteration": 0})
        assert os.read(read, 1000) == b"t: 3 iterations\niter 0  left 0:00:00\n"
    os.close(read)


def test_missing_and_odd_values_do_not_end_a_run():
    row = {
        "iteration": None,
        "cost": [float("nan")],
        "kl_ratio": "kept",
        "penalty": [1],
        "steps": -0.0,
    }
    line = lines_of([row])[1]
    assert line.startswith(
        "iter -  cost nan  min..max nan..nan  KL/lim kept  |lambda| -  penalty 1.00  learner -  train - cm"
    )
    assert lines_of([{}])[1].count(" -") == 11


def test_lines_stay_in_columns():
    columns = [Column("a", "a", ".1f"), Column("b", "b", ".0f", "cm")]
    lines = lines_of([{"a": 100.0, "b": 1}, {"a": 1.0, "b": 20}, {"b": 3}], columns=columns)[1:]
    assert [line.split("  left")[0] for line in lines] == ["a 100.0  b 1 cm", "a   1.0  b 20 cm", "a     -  b  3 cm"]


def test_a_resumed_run_says_what_was_done_before():
    assert lines_of([], total=10, done=4) == ["reacher with badmm: 10 iterations, 4 done before"]


def test_the_time_left_comes_from_the_pace_after_the_first_iteration():
    """Ends at 100 (compiling), 110, 120, ...: 10 s an iteration, whatever the first one took."""
    time = [0.0]
    clock = Clock(20, done=5, now=lambda: time[0])
    assert clock.left is None
    assert str(clock) == "5/20  elapsed 0:00:00  left -"
    time[0] = 100.0
    clock.tick()
    assert clock.left == 14 * 100.0  # nothing better is known
    for end in (110.0, 120.0, 130.0):
        time[0] = end
        clock.tick()
    assert (clock.done, clock.elapsed, clock.left) == (9, 130.0, 11 * 10.0)
    time[0] = 134.0
    assert clock.left == 11 * 10.0 - 4.0  # goes on between iterations
    time[0] = 1130.0
    assert clock.left == 10 * 10.0  # but the one that runs is not done before it ends
    assert str(clock) == "9/20  elapsed 0:18:50  left 0:01:40"


def test_the_pace_forgets_what_is_long_ago():
    time = [0.0]
    clock = Clock(100, now=lambda: time[0])
    for seconds in [50.0] * 20 + [2.0] * 10:
        time[0] += seconds
        clock.tick()
    assert clock.left == 70 * 2.0


def test_progress_outside_of_its_block_is_an_error():
    progress = Progress(1, "t", COLUMNS, io.StringIO())
    for call in (lambda: progress.update({}), lambda: progress.note("x")):
        with pytest.raises(RuntimeError, match="outside of its 'with' block"):
            call()
    with progress:
        pass
    with pytest.raises(RuntimeError, match="outside of its 'with' block"):
        progress.update({})


def test_an_error_in_the_run_is_passed_on():
    with pytest.raises(KeyError), Progress(1, "t", COLUMNS, io.StringIO()):
        raise KeyError("mine")


def on_terminal(columns: int, lines: int, *arguments: str, term: str = "xterm") -> str:
    """What the demonstration writes to a terminal of this size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in unset} | {"TERM": term}
    child = subprocess.Popen(
        [sys.executable, "-m", "support.display", *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        output += chunk
    child.wait(timeout=30)
    os.close(master)
    return output.decode()


def last_screen(output: str) -> list[str]:
    """The last frame of the display and what follows, without control sequences."""
    frame = output[output.rindex("\x1b[1mreacher") :]
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).replace("\r", "").split("\n")]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_the_last_ten_rows_within_its_width(columns):
    output = on_terminal(columns, 40)
    screen = last_screen(output)
    assert screen[0] == "reacher with [badmm]"
    assert screen[1].split()[0] == "iter"
    assert screen[1].split()[-1] == "time"
    assert screen[2].split() == ["cm", "cm", "s"]
    cells = [line.split() for line in screen[3:13]]
    assert [line[0] for line in cells] == [str(iteration) for iteration in range(4, 14)]
    middle = ["9.00..16.0", "0.99", "0.0123"]
    assert cells[0] == ["4", "12.5", *middle, "1.0e-05", "0.500", "1.25", "2.50", "12.8k", "2.3"]
    assert cells[9] == ["13", "nan", "nan..nan", *middle[1:], "-", "0.500", "1.25", "2.50", "12.8k", "2.3"]
    assert re.search(r"14/14  elapsed 0:00:\d\d  left 0:00:00$", screen[13])
    assert screen[14] == "True"  # rich is there, and the display is over
    assert max(map(len, screen)) <= columns
    assert len(screen[1]) == {80: 74, 120: 94}[columns]  # gaps of one and of three characters
    assert output.endswith("True\r\n")
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor comes back


def test_notes_and_other_prints_stand_above_the_display():
    output = on_terminal(80, 40)
    for message in ("checkpoint 12 damaged [a/b], resuming from 11", "controllers kept", "printed by others"):
        assert output.count(message) == 1
        assert output.index(message) < output.rindex("\x1b[1mreacher")


def test_a_narrow_and_low_terminal_shows_fewer_columns_and_rows_but_whole_numbers():
    screen = last_screen(on_terminal(43, 10))
    assert screen[1].split() == ["iter", "cost", "min..max", "KL/lim", "|lambda|"]
    assert [line.split() for line in screen[3:7]] == [
        [str(iteration), *(("nan", "nan..nan") if iteration == 13 else ("12.5", "9.00..16.0")), "0.99", "0.0123"]
        for iteration in range(10, 14)
    ]
    assert re.search(r"14/14  elapsed 0:00:\d\d  left 0:00:00$", screen[7])
    assert max(map(len, screen)) <= 43


def test_the_cursor_comes_back_when_a_run_dies():
    output = on_terminal(80, 40, "die")
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    assert output.endswith("died\r\n")


def test_a_dumb_terminal_gets_plain_lines_and_rich_is_not_imported():
    output = on_terminal(80, 40, term="dumb").replace("\r", "")
    assert "\x1b" not in output
    assert output.startswith("reacher with [badmm]: 14 iterations\nnote: checkpoint 12 damaged")
    assert output.count("\niter ") == 14
    assert output.endswith("printed by others\nFalse\n")
