"""The folder of a run: its settings, its metrics, its checkpoints, its figures and the numbers of its end.

    config.toml      all settings, resolved
    metrics.jsonl    one JSON object per iteration
    checkpoints/     see `gps.runs.checkpoints`
    figures/
    tensorboard/     event files, where `run.tensorboard` asks for them
    summary.json     written when the run ends
    .lock            empty; locked by the process that trains

Everything in it is text or arrays, and it holds no links: opening a run executes nothing that it holds, and reads and
writes nothing outside of it. Code that its settings name is imported only for who trusts it. docs/reliability.md says
what is promised.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gps.errors import UserError
from gps.experiments import lookup
from gps.experiments.experiment import Experiment
from gps.files import is_temporary, open_plain, read_bytes, require_plain, sweep, told, write_text
from gps.runs.metrics import REMEDY, Metrics, RunError, plain
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
TENSORBOARD = "tensorboard"
_SUBFOLDERS = ("checkpoints", "figures")
_MOST = 2**24  # bytes of a summary
EVERYTHING = ("*",)  # trusted: whatever code the settings of a run name


class RunExistsError(RunError):
    """A new run was asked for in a place that is taken."""


class UntrustedError(UserError):
    """A run's settings name code that nobody has said to trust."""


class RunFolder:
    """One run on the disk. Made by `create` or `open`; one process at a time may write: it holds `locked`."""

    path: Path
    settings: dict[str, Any]  # as in config.toml
    metrics: Metrics
    figures: Path

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any], trusted: Collection[str] = ()):
        self.path = Path(path)
        self.settings = settings
        self.trusted = trusted
        self.figures = self.path / "figures"
        self.metrics = Metrics(self.path / _METRICS)
        self._checkpoints = self.path.absolute() / "checkpoints"  # it stays where it is when the process moves

    @functools.cached_property
    def experiment(self) -> Experiment:
        """All settings of the run; read once.

        Errors:
            As in `Experiment.resolve`, naming the file; UntrustedError where a setting names code of
            somebody's own ("module:NAME") that is not among the trusted.
        """
        for name, code in lookup.code(self.settings).items():
            if self.trusted != EVERYTHING and code not in self.trusted:
                raise UntrustedError(
                    f"{self.path / _CONFIG}: {name} = {code!r} is code, which this command would run: where you "
                    "trust it, add --trust"
                )
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

        An empty folder is taken, and so is that of a run that ended before its first iteration did: a kill in the
        middle of `create` leaves one, and so does a mistake that is found when programs are compiled.

        Errors:
            RunExistsError when anything else stands at `path`; nothing is ever overwritten.
        """
        path = Path(path)
        cls.check_free(path)
        with told(path, "made"):
            path.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            cls.check_free(path)  # again: the process that had the lock may have changed it
            with told(path, "made"):
                for entry in path.iterdir():
                    if entry.name != _LOCK:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                for name in _SUBFOLDERS:
                    (path / name).mkdir()
            # Last and all at once: a folder with a config.toml is a run, one without is none.
            write_toml(path / _CONFIG, experiment.to_dict(), new=True)
        return cls.open(path, EVERYTHING)  # whose code has been imported

    @staticmethod
    def check_free(path: str | os.PathLike[str]) -> None:
        """Raise the RunExistsError of `create` if it cannot make a run at `path`."""
        path = Path(path)
        if not path.exists() or _is_unused(path):
            return
        if (path / _CONFIG).exists():
            raise RunExistsError(f"{path} exists: continue that run with --resume, or start anew with another --out")
        if path.is_dir() and is_run(path):
            raise RunExistsError(f"{path} exists, and its {_CONFIG} is missing: {REMEDY}")
        raise RunExistsError(f"{path} exists and holds something that is no run: start with another --out")

    @classmethod
    def open(cls, path: str | os.PathLike[str], trusted: Collection[str] = ()) -> RunFolder:
        """The run in the folder `path`.

        Args:
            trusted: code that its settings may name ("module:NAME"), or `EVERYTHING`.

        Errors:
            RunError when there is no run, naming what is missing; FileError where it holds links or pipes;
            SettingsError when config.toml is not TOML, or is empty.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path} is no run: there is no such folder")
        require_plain(path)
        if not (path / _CONFIG).is_file():
            raise RunError(f"{path} is no run: it has no {_CONFIG}")
        settings = read_toml(path / _CONFIG)
        if not settings:  # which would be read as a run of nothing but defaults
            raise SettingsError(f"{path / _CONFIG} holds no settings: {REMEDY}")
        return cls(path, settings, trusted)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing this run; those that read it need no lock.

        Errors:
            RunError where the lock is taken, by another process or by this one, and where the run's settings are no
            longer those that were read.
        """
        with _lock(self.path):
            if repr(read_toml(self.path / _CONFIG)) != repr(self.settings):  # of NaN, too
                raise RunError(f"another process has changed {self.path / _CONFIG} meanwhile: try again")
            yield

    def sweep(self) -> None:
        """Delete what processes that were killed have left; called by who holds the lock."""
        sweep(self.path)
        sweep(self.figures, age=3600.0)  # figures are drawn without the lock
        self.checkpoints.sweep()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json all at once; values as in `Metrics.append`."""
        text = json.dumps(plain(summary, "summary"), allow_nan=False, indent=2) + "\n"
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
            return dict(json.loads(read_bytes(file, _MOST)))
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(
                f"{file} is not a JSON object ({error}): delete it, and the resumed run writes it again"
            ) from error


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, or what is left of one."""
    return any((path / name).exists() for name in (_CONFIG, _METRICS, _SUBFOLDERS[0]))


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


@contextmanager
def _lock(path: Path) -> Iterator[IO[bytes]]:
    """Hold the lock of the run at `path`.

    The kernel lets go of it when the process ends, however it ends; the file stays, because a process that deletes it
    could delete the one that another has just locked. Where there are no locks, nothing is done. A child forked
    meanwhile, and not replaced by another program, keeps it.

    Errors:
        RunError where the lock is taken.
    """
    with told(path / _LOCK, "locked"):
        descriptor = open_plain(path / _LOCK, os.O_WRONLY | os.O_CREAT)
    with os.fdopen(descriptor, "ab") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another process trains {path}: wait for its end, or start anew with another --out"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield file


def _is_unused(path: Path) -> bool:
    """Whether a folder is empty, or holds what is left of a run of which no iteration was finished."""
    if not path.is_dir():
        return False
    require_plain(path)
    known = {_CONFIG, _LOCK, _METRICS, TENSORBOARD, *_SUBFOLDERS}
    if any(entry.name not in known and not is_temporary(entry.name) for entry in path.iterdir()):
        return False
    if any((path / name).is_file() for name in _SUBFOLDERS) or Metrics(path / _METRICS).lines():
        return False
    left = [entry for name in _SUBFOLDERS if (path / name).is_dir() for entry in (path / name).iterdir()]
    return all(entry.name.startswith("tmp-") or entry.name == "00000000" for entry in left)
