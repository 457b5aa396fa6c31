"""Trials of a tiny run: a fault, commands that meet it, and whether each answers as promised in docs/reliability.md.

A command may do what it does without the fault, to the same bits, or end in one line that names what is wrong. Anything
else is a `Violation`: a traceback, a silent difference, a change outside of the run, an escape sequence, a long wait.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.guided import rows_of, tables
from support.sharing import share_programs

from gps.cli.main import main
from gps.figures.report.page import unpacked
from gps.files import written_whole
from gps.runs import finish
from gps.runs.folder import RunFolder
from gps.runs.resume import load
from gps.settings import flat

PATIENCE = 60.0  # seconds for a command
SETTINGS = flat(tables("ppo", "tiger-door", "run.checkpoint_every=1"))
TRAIN = [
    *("train", "tiger-door", "--guider", "ppo", "--out", "run"),
    *(f"--set={name}={value}" for name, value in SETTINGS.items() if name not in ("run.task", "run.guider")),
]
RESUME = [*TRAIN, "--resume"]
READERS = {
    **{name: [name, "run"] for name in ("evaluate", "plot", "report")},
    "list": ["list", "--runs", "."],
}


class Violation(AssertionError):
    """A promise that was broken."""


class Killed(BaseException):
    """A process that dies, played in this one: nothing that is meant to catch errors catches it."""


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its status."""

    status: Any
    out: str
    err: str

    @property
    def line(self) -> str:
        return self.err.strip().split("\n")[-1]


@dataclass
class Trial:
    """A folder with a whole run, another one beside it, and a file outside of both that nothing may change."""

    rng: random.Random
    path: Path  # the working folder
    whole: Whole
    log: list[str] = field(default_factory=list)  # what was done, for the message of a violation

    @property
    def run(self) -> Path:
        return self.path / "run"

    def command(self, *arguments: str) -> Answer:
        """Run a command in this process; it never raises, takes long, or prints what a terminal would obey."""
        self.log.append(" ".join(arguments)[:200])
        out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(list(arguments))
        except SystemExit as error:  # of argparse
            status = error.code
        except Killed:
            raise
        except BaseException as error:
            raise self.violation(f"{type(error).__name__}: {str(error)[:300]}") from error
        answer = Answer(status, out.getvalue(), err.getvalue())
        self.log.append(f"-> {status} {answer.line[:300]}")
        if time.monotonic() - began > PATIENCE:
            raise self.violation(f"it took {time.monotonic() - began:.0f} s")
        if any(not (c.isprintable() or c in "\n") for c in answer.out + answer.err):
            raise self.violation(f"it printed {answer.out + answer.err!r}")
        return answer

    def violation(self, message: str) -> Violation:
        return Violation("\n  ".join([message, *self.log]))

    def expect(self, answer: Answer, names: tuple[str, ...], same: Callable[[], bool]) -> str:
        """Whether it is the "same" as without the fault or an "error" in one line, with a name; else a violation."""
        if answer.status == 0:
            if not same():
                raise self.violation("it went on with something else, and said nothing")
            return "same"
        told = answer.err.split("\ngps: ")[-1].strip()  # after notes
        if answer.status not in (2, 130) or not ("\ngps: " in answer.err or told.startswith("gps: ")):
            raise self.violation(f"status {answer.status}, {answer.err[:500]!r}")
        lists = ("no checkpoint is whole", "of another structure")  # a line for each checkpoint or leaf
        if "\n" in told and not any(words in told for words in lists):
            raise self.violation(f"more than a line: {answer.err[:500]!r}")
        if names and not any(name in told for name in names):
            raise self.violation(f"none of {names} is named")
        return "error"

    def readers(self, names: tuple[str, ...]) -> set[str]:
        """All commands that read, with the answers that they gave."""
        answers = set()
        for name in self.rng.sample(sorted(READERS), len(READERS)):
            answer = self.command(*READERS[name])
            if name == "list":
                line = next((line for line in answer.out.split("\n") if line.startswith("  other")), "")
                if answer.status or not line.endswith("4 of 4 iterations"):
                    raise self.violation(f"the other run is hidden: {answer.out[-300:]!r}")
            elif name == "plot":
                answers.add(self.expect(answer, names, lambda: self.drawn() == self.whole.drawn))
            elif name == "report":
                answers.add(self.expect(answer, names, lambda: self.reported() == self.whole.reported))
            else:
                answers.add(self.expect(answer, names, lambda out=answer.out: out == self.whole.evaluated))
        return answers

    def resumed(self, names: tuple[str, ...]) -> str:
        """`gps train --resume`, which ends at the same bits or says why not."""
        return self.expect(self.command(*RESUME), names, lambda: digest(self.run) == self.whole.digest)

    def clean(self) -> None:
        """Nothing is left of what a kill interrupts, once the run has come to its end."""
        left = [path for path in self.run.rglob("*") if "tmp" in path.name and "figures" not in path.parts]
        if left:
            raise self.violation(f"left behind: {left}")

    def drawn(self) -> str:
        return (self.run / "figures" / "drawn.txt").read_text()

    def reported(self) -> list[Any]:
        """The learning curves of the page, but for the times."""
        text = (self.run / "figures" / "report.html").read_text()
        report = json.loads(unpacked(re.search(r'id="report">([^<]*)<', text)[1]))
        panels = next(part["panels"] for part in report["sections"] if part["title"] == "Learning")
        return [(trace["xs"]["steps"], trace["y"]) for panel in panels for trace in panel["data"]]

    def outside(self) -> dict[str, bytes]:
        """All that is not of the run itself."""
        files = [file for file in self.path.rglob("*") if file.is_file() and not file.is_symlink()]
        return {str(file): file.read_bytes() for file in files if self.run not in file.parents and file != self.run}


@dataclass(frozen=True)
class Whole:
    """A run that nothing has disturbed, and what commands make of it."""

    path: Path
    other: Path  # the same with another seed
    digest: str
    evaluated: str
    drawn: str
    reported: list[Any]
    operations: int  # changes to the disk of a whole run, of those that `disturbed` counts

    def trial(self, rng: random.Random, path: Path, *, trained: bool = True) -> Trial:
        """A fresh working folder, which is made the current one."""
        shutil.rmtree(path, ignore_errors=True)
        (path / "outside" / "folder").mkdir(parents=True)
        for name in ("victim.txt", "folder/kept.txt"):
            (path / "outside" / name).write_text("mine")
        shutil.copytree(self.other, path / "other")
        if trained:
            shutil.copytree(self.path, path / "run")
        os.chdir(path)
        return Trial(rng, path, self)


def digest(path: Path) -> str:
    """Of all that a run is, but for the times: every bit of its last state and its best learner, and its rows."""
    folder = RunFolder.open(path)
    run = load(folder)
    summary = folder.read_summary()
    total = hashlib.sha256(repr((rows_of(folder), summary["iterations"], summary["learner_return"])).encode())
    for leaf in jax.tree.leaves((run.state, run.best)):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def prepare(place: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """Train the runs that trials begin with. Programs are compiled once; figures and evaluations are sums of bits."""
    share_programs(monkeypatch, {}, {})
    monkeypatch.setattr("gps.runs.programs.Programs.require_room", lambda *_: None, raising=False)

    def draw(folder, task, evaluation, *_):
        from gps.runs import integrity

        integrity.check(folder, folder.checkpoints.newest(), folder.experiment.run.first_checkpoint)
        bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(evaluation))
        folder.figures.mkdir(exist_ok=True)
        with written_whole(folder.figures / "drawn.txt") as waiting:
            waiting.write_text(hashlib.sha256(bits + repr(rows_of(folder)).encode()).hexdigest())
        return [folder.figures / "drawn.txt"]

    def episodes(task, policy, *_):
        bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(policy))
        return [hashlib.sha256(bits).hexdigest()]

    monkeypatch.setattr(finish, "draw", draw)
    monkeypatch.setattr("gps.figures.report.page._plotly", str)  # packing it takes longer than a trial
    monkeypatch.setattr("gps.cli.evaluate._episodes", episodes)
    blank = Whole(place / "whole", place / "other", "", "", "", [], 0)
    blank.other.mkdir(parents=True)
    trial = blank.trial(random.Random(0), place / "first", trained=False)
    for seed, path in ((1, blank.other), (0, blank.path)):
        with disturbed(-1, lambda: None) as counted:
            answer = trial.command(*TRAIN, "--seed", str(seed))
        assert answer.status == 0, answer
        shutil.rmtree(path, ignore_errors=True)
        shutil.move(trial.run, path)
    shutil.copytree(blank.path, trial.run)
    evaluated = trial.command(*READERS["evaluate"]).out
    assert trial.command(*READERS["report"]).status == 0
    return Whole(blank.path, blank.other, digest(blank.path), evaluated, trial.drawn(), trial.reported(), counted[0])


CHANGES = ("open", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "fsync", "ftruncate")


@contextlib.contextmanager
def disturbed(number: int, act: Callable[[], None], *, once: bool = True) -> Iterator[list[int]]:
    """Call `act` before change `number` to the disk of those that gps makes, and unless `once` before all later ones.

    Yields:
        A list that holds how many there were.
    """
    count, acting = [0], [False]

    def wrapped(real):
        def call(*arguments, **options):
            if not acting[0] and _of_gps(real, arguments):
                count[0] += 1
                if count[0] - 1 == number or (not once and count[0] - 1 > number >= 0):
                    acting[0] = True
                    try:
                        act()
                    finally:
                        acting[0] = False
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield count


def _of_gps(real: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether gps makes this call, itself or through the standard library, and it changes the disk."""
    if real.__name__ == "open" and not (len(arguments) > 1 and arguments[1] & (os.O_WRONLY | os.O_RDWR)):
        return False
    frame = sys._getframe(2)
    for _ in range(8):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("gps."):
            return True
        if name.split(".")[0] not in ("pathlib", "shutil", "contextlib", "os"):
            return False
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def die() -> None:
    """To be called by `disturbed`, with once=False: the dead do not clean up."""
    raise Killed


def fail(rng: random.Random) -> Callable[[], None]:
    """The same for a disk that is full, broken, or read-only."""
    code = rng.choice([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])

    def act():
        raise OSError(code, os.strerror(code))

    return act


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk does to those who write in C++."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
