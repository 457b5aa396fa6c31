"""Sweeps whose cells are a formula: what tests of them share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gps.runs.folder import RunFolder
from gps.sweeps import sweep as module
from gps.sweeps.plan import Plan, read_plan
from gps.sweeps.workers import CellError

FILE = """
task = "tiger-door"
guider = "{guider}"
{values}

[settings]
{iterations}
{settings}

[vary]
{vary}
"""


@pytest.fixture
def plan(tmp_path):
    """A plan, of the text of its file."""

    def made(
        vary: str,
        values: str = "",
        settings: str = "",
        guider: str = "gpo-clip",
        iterations: str = "run.iterations = 2",
    ) -> Plan:
        path = tmp_path / "s.toml"
        path.write_text(FILE.format(vary=vary, values=values, settings=settings, guider=guider, iterations=iterations))
        return read_plan(path)

    return made


class Formula:
    """Runs a cell by writing the summary that a formula of its settings and its seed gives."""

    def __init__(self, value):
        self.value, self.ran = value, []

    def run(self, paths, log: Path) -> None:
        log.write_text("")
        for path in paths:
            self.ran.append(path.name)
            experiment = RunFolder.open(path).experiment
            value = self.value(experiment)
            if value is None:
                raise CellError("it diverged")
            summary = {"learner_return": value, "iterations": experiment.run.iterations, "said": "text"}
            (path / "summary.json").write_text(json.dumps(summary))

    def stop(self) -> None:
        self.ran.append("stopped")


@pytest.fixture
def formula(monkeypatch):
    """Replaces whatever trains."""

    def use(value) -> Formula:
        jobs = Formula(value)
        monkeypatch.setattr(module, "jobs_of", lambda *_: jobs)
        return jobs

    return use
