"""Who runs the cells of a sweep: processes of this machine, or jobs of Ray or Slurm.

A cell is one job: its seeds run one after the other in one process and share their compiled programs. Whoever starts it
again goes on from the last checkpoints.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gps.errors import UserError, not_installed, printable
from gps.settings import SettingsError

ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several may share a GPU
RETRIES = 2  # of a job of Ray whose machine is lost


class Jobs(Protocol):
    """An executor of cells."""

    def run(self, paths: Sequence[Path], log: Path) -> None:
        """Bring the runs of a cell to their end; several threads call it at a time.

        Args:
            log: takes what a process says, and what a job of Ray or Slurm says where it fails.

        Errors:
            CellError where that fails.
        """
        ...

    def stop(self) -> None:
        """End all that runs; what was saved stays."""
        ...


class CellError(UserError):
    """A cell did not come to its end; the message says why."""


def train_cell(paths: Sequence[str | Path], trust: bool) -> None:
    """Bring the runs of one cell to their end, in this process.

    Errors:
        As in `gps.runs.train.train`.
    """
    from gps.runs.folder import EVERYTHING, RunFolder
    from gps.runs.programs import Programs
    from gps.runs.train import train

    programs = None
    for path in paths:
        folder = RunFolder.open(path, EVERYTHING if trust else ())
        if programs is None:
            programs = Programs(folder.experiment.build(), folder.experiment.run.devices)
            programs.require_room(folder.experiment)
        train(folder, programs=programs)


def outcome(paths: Sequence[str | Path], trust: bool) -> str:
    """Why `train_cell` can not bring these runs to their end; empty where it does."""
    try:
        train_cell(paths, trust)
    except (UserError, OSError) as error:
        return printable(" ".join(str(error).split()))
    return ""


def jobs_of(executor: str, options: Mapping[str, Any], out: Path, trust: bool) -> Jobs:
    """The executor of a name.

    Args:
        options: of it: for "ray", those of `ray.remote` (such as num_cpus), and `address` for `ray.init`; for "slurm",
            those of submitit's `update_parameters` (such as slurm_partition and timeout_min), and `cluster`.

    Errors:
        SettingsError where it is not installed, or has no such options.
    """
    if executor == "processes":
        if options:
            raise SettingsError(f"options.{next(iter(options))}: executor = 'processes' has no options")
        return _Processes(trust)
    package, kind = {"ray": ("ray", _Ray), "slurm": ("submitit", _Slurm)}[executor]
    if importlib.util.find_spec(package) is None:
        raise SettingsError(not_installed(f"executor = {executor!r}", package, executor))
    try:
        return kind(dict(options), out, trust)
    except (TypeError, ValueError, NameError, RuntimeError, ConnectionError) as error:
        # NameError is submitit's for an unknown parameter, RuntimeError that for a machine without Slurm
        raise SettingsError(f"executor = {executor!r}: {' '.join(str(error).split())}") from error


class _Processes:
    def __init__(self, trust: bool):
        self._command = [sys.executable, "-m", "gps.sweeps.workers", *(["--trust"] if trust else [])]
        self._running: set[subprocess.Popen[bytes]] = set()
        self._starting, self._stopped = threading.Lock(), False

    def run(self, paths: Sequence[Path], log: Path) -> None:
        with log.open("wb") as stream:
            with self._starting:
                if self._stopped:
                    raise CellError("the sweep was stopped")
                process = subprocess.Popen(
                    [*self._command, *map(str, paths)],
                    stdin=subprocess.PIPE,  # nothing is written: it ends where this process dies, and so does the other
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=ENVIRONMENT | os.environ,
                )
                self._running.add(process)
            status = process.wait()
        self._running.discard(process)
        if status < 0:
            raise CellError(f"its process was ended by signal {-status}, such as for want of memory; see {log}")
        if status:
            raise CellError(_last(log.read_text(errors="replace")) or f"exit status {status}")

    def stop(self) -> None:
        with self._starting:
            self._stopped = True
        for process in tuple(self._running):
            process.terminate()


class _Ray:
    def __init__(self, options: dict[str, Any], _out: Path, trust: bool):
        import ray  # pyright: ignore[reportMissingImports]  (an extra)

        address = options.pop("address", None)
        self._job = ray.remote(**{"max_retries": RETRIES, "num_cpus": 1, **options})(outcome)
        self._ray, self._trust = ray, trust
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)

    def run(self, paths: Sequence[Path], log: Path) -> None:
        try:
            why = self._ray.get(self._job.remote([str(path.absolute()) for path in paths], self._trust))
        except self._ray.exceptions.RayError as error:
            log.write_text(str(error))
            why = _last(str(error))
        if why:
            raise CellError(why)

    def stop(self) -> None:
        self._ray.shutdown()


class _Slurm:
    def __init__(self, options: dict[str, Any], out: Path, trust: bool):
        import submitit
        from submitit.core.utils import FailedJobError, UncompletedJobError

        self._executor = submitit.AutoExecutor(folder=out / "slurm", cluster=options.pop("cluster", "slurm"))
        self._executor.update_parameters(**options)
        self._failures = (UncompletedJobError, FailedJobError)
        self._trust, self._jobs = trust, []

    def run(self, paths: Sequence[Path], log: Path) -> None:
        try:
            job = self._executor.submit(outcome, [str(path.absolute()) for path in paths], self._trust)
            self._jobs.append(job)
            why = job.result()
        except self._failures as error:
            log.write_text(str(error))
            why = f"{log}: {' '.join(str(error).split())[:200]}"
        if why:
            raise CellError(why)

    def stop(self) -> None:
        for job in self._jobs:
            if not job.done():
                job.cancel()


def _last(text: str) -> str:
    """The last line of what was said."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def main(arguments: Sequence[str]) -> int:
    """A process of its own for one cell; it ends where the one that started it does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        why = outcome([argument for argument in arguments if argument != "--trust"], "--trust" in arguments)
    except KeyboardInterrupt:
        return 130
    if why:
        print(why, file=sys.stderr)
    return 2 if why else 0


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is a pipe of the parent's, and end: what was saved stays."""
    while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold where the interpreter ends
        pass
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
