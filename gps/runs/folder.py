"""The folder of a run: its settings, its metrics, its checkpoints, its figures and the numbers of its end.

    config.toml      all settings, resolved
    metrics.jsonl    one JSON object per iteration
    checkpoints/     see `gps.runs.checkpoints`
    figures/
    summary.json     written when the run ends
    .lock            empty; locked by the process that trains

Everything in it is text or arrays: opening a run executes nothing that it holds.
"""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.files import temporary, write_text
from gps.settings import SettingsError, read_toml, write_toml

if TYPE_CHECKING:
    from gps.runs.checkpoints import Checkpoints

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_CONFIG = "config.toml"
_METRICS = "metrics.jsonl"
_SUMMARY = "summary.json"
_LOCK = ".lock"
_SUBFOLDERS = ("checkpoints", "figures")


class RunError(UserError):
    """A folder that is no run, or a file in it that cannot be read; the message says what is missing."""


class RunExistsError(RunError):
    """A new run was asked for in a place that is taken."""


class RunFolder:
    """One run on the disk. Made by `create` or `open`; one process at a time may write: it holds `locked`."""

    path: Path
    settings: dict[str, Any]  # as in config.toml
    figures: Path

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any]):
        self.path = Path(path)
        self.settings = settings
        self.figures = self.path / "figures"
        self._checkpoints = self.path.absolute() / "checkpoints"  # it stays where it is when the process moves

    @functools.cached_property
    def experiment(self) -> Experiment:
        """All settings of the run; read once.

        Errors:
            As in `Experiment.resolve`, naming the file.
        """
        try:
            return Experiment.resolve(self.settings)
        except SettingsError as error:
            raise SettingsError(f"{self.path / _CONFIG}: {error}") from error

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        from gps.runs.checkpoints import Checkpoints  # it imports jax, which listing runs need not wait for

        return Checkpoints(self._checkpoints)

    @classmethod
    def create(cls, path: str | os.PathLike[str], experiment: Experiment) -> RunFolder:
        """Make the folder of a new run, with the settings of the experiment as its config.toml.

        An empty folder is taken, and so is what a kill in the middle of `create` leaves behind.

        Errors:
            RunExistsError when anything else stands at `path`; nothing is ever overwritten.
        """
        path = Path(path)
        cls.check_free(path)
        for name in _SUBFOLDERS:
            (path / name).mkdir(parents=True, exist_ok=True)
        # Last and all at once: a folder with a config.toml is a run, one without is none.
        write_toml(path / _CONFIG, experiment.to_dict())
        return cls.open(path)

    @staticmethod
    def check_free(path: str | os.PathLike[str]) -> None:
        """Raise the RunExistsError of `create` if it cannot make a run at `path`."""
        path = Path(path)
        if (path / _CONFIG).exists():
            raise RunExistsError(f"{path} exists: continue that run with --resume, or start anew with another --out")
        if path.exists() and not _is_unused(path):
            raise RunExistsError(f"{path} exists and holds something that is no run: start with another --out")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run in the folder `path`.

        Errors:
            RunError when there is no run, naming what is missing; SettingsError when config.toml is not TOML, or
            is empty.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path} is no run: there is no such folder")
        if not (path / _CONFIG).is_file():
            raise RunError(f"{path} is no run: it has no {_CONFIG}")
        settings = read_toml(path / _CONFIG)
        if not settings:  # which would be read as a run of nothing but defaults
            raise SettingsError(
                f"{path / _CONFIG} holds no settings: restore the file, or start anew with another --out"
            )
        return cls(path, settings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing this run; those that read it need no lock.

        The kernel lets go of the lock when the process ends, however it ends; the file stays, because a process that
        deletes it could delete the one that another has just locked. Where there are no locks, nothing is done.

        A child forked meanwhile, and not replaced by another program, keeps it.

        Errors:
            RunError where the lock is taken, by another process or by this one.
        """
        with open(self.path / _LOCK, "ab") as file:
            try:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"another process trains {self.path}: wait for its end, or start anew with another --out"
                ) from error
            except OSError:
                pass  # a file system without locks
            yield

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl; when this returns, the line is on the disk.

        Args:
            row: numbers, texts, lists, and arrays of numpy or jax. NaN and infinities become null, because JSON
                has no word for them.
        """
        line = json.dumps(_plain(row, "metrics"), allow_nan=False) + "\n"
        file = self.path / _METRICS
        with open(file, "a+b") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    # A kill tore the last line; the new one must not be glued to what is left of it.
                    stream.truncate(sum(map(len, _whole_lines(file))))
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, without a last line that a kill has torn.

        Errors:
            RunError naming the line, for any other line that is not JSON.
        """
        return [row for _, row in self._lines()]

    def rewind_metrics(self, iteration: int) -> None:
        """Drop the rows of this iteration and of later ones, all at once: a resumed run computes them again."""
        if (self.path / _METRICS).exists():
            kept = [line for line, row in self._lines() if row.get("iteration", -1) < iteration]
            write_text(self.path / _METRICS, "".join(kept))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json all at once; values as in `append_metrics`."""
        text = json.dumps(_plain(summary, "summary"), allow_nan=False, indent=2) + "\n"
        write_text(self.path / _SUMMARY, text)

    def read_summary(self) -> dict[str, Any]:
        """What `write_summary` wrote.

        Errors:
            RunError when the run has no summary (it has not ended) or one that is not a JSON object.
        """
        file = self.path / _SUMMARY
        if not file.is_file():
            raise RunError(f"{self.path} has no {_SUMMARY}: the run has not ended")
        try:
            return dict(json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{file} is not a JSON object ({error}): delete it, and the resumed run writes it again"
            ) from error

    def _lines(self) -> list[tuple[str, dict[str, Any]]]:
        """Each whole line of metrics.jsonl with its row."""
        file = self.path / _METRICS
        lines = []
        for number, line in enumerate(_whole_lines(file) if file.exists() else [], start=1):
            try:
                lines.append((line.decode(), dict(json.loads(line))))
            except (ValueError, TypeError) as error:
                raise RunError(f"{file}, line {number}: not a JSON object ({error})") from error
        return lines


def iteration_seconds(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of each iteration without compilation.

    The first one of each process compiles, or loads what an earlier run has compiled: it counts as long as the median
    of the others, if there are any.
    """
    first = [row.get("compiles", number == 0) for number, row in enumerate(rows)]
    others = [row["iteration_seconds"] for row, compiles in zip(rows, first, strict=True) if not compiles]
    return [
        statistics.median(others) if compiles and others else row["iteration_seconds"]
        for row, compiles in zip(rows, first, strict=True)
    ]


def _whole_lines(file: Path) -> list[bytes]:
    """The lines that end: each is written at once with its end, so one without was torn by a kill."""
    return [line + b"\n" for line in file.read_bytes().split(b"\n")[:-1]]


def _is_unused(path: Path) -> bool:
    """Whether a folder is empty, or holds only what `create` makes before config.toml has its name, or a lock."""
    if not path.is_dir():
        return False
    leftovers = {path / name for name in _SUBFOLDERS}
    files = (temporary(path / _CONFIG), path / _LOCK)
    return all(
        (entry in leftovers and entry.is_dir() and not any(entry.iterdir())) or entry in files
        for entry in path.iterdir()
    )


def _plain(value: Any, where: str) -> Any:
    """The value in the types of JSON; NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if hasattr(value, "tolist"):  # arrays and scalars of numpy and jax
        return _plain(value.tolist(), where)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"'{where}' is a {type(value).__name__}: only numbers, texts, lists and arrays can be written")
