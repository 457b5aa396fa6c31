"""What tests of the command line share: a command is run in this process, and nothing is compiled twice."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest
from support.tiny import TRAIN

from gps.cli.main import main
from gps.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def place(quick, monkeypatch, tmp_path):
    """Nothing is drawn, nothing compiled twice; runs/ is made in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys):
    """Runs a command; returns its status and the lines on standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def finished(said):
    """The folder of a finished run."""
    status, _, errors = said(*TRAIN, "--out", "run")
    assert (status, errors) == (0, [])
    return Path("run")


@pytest.fixture
def without_times():
    """Reads the rows of a run's metrics, but for the times."""

    def rows(folder: Path) -> list[dict]:
        times = ("seconds", "iteration_seconds", "compiles")
        return [{k: v for k, v in row.items() if k not in times} for row in RunFolder.open(folder).metrics.rows()]

    return rows


@pytest.fixture
def refused(said, caplog):
    """Runs a command that is a mistake: one line on standard error, status 2, nothing on the disk, nothing compiled.

    Returns the line.
    """

    def run(*arguments) -> str:
        with jax.log_compiles(), caplog.at_level("WARNING"):
            status, out, errors = said(*arguments)
        assert (status, out, len(errors)) == (2, [], 1)
        assert errors[0].startswith("gps: ")
        assert list(Path().iterdir()) == []
        messages = [record.getMessage() for record in caplog.records]
        compiled = {message.split()[1] for message in messages if message.startswith("Compiling")}
        assert compiled <= {"jit(convert_element_type)"}  # of the targets, when the task is built
        return errors[0]

    return run
