"""Compiled programs that runs of equal settings share, in one process."""

from __future__ import annotations

from typing import Any

import pytest


def share_programs(monkeypatch: pytest.MonkeyPatch, guiders: dict[str, Any], programs: dict[tuple[int, int], Any]):
    """Equal settings get the same guider and programs; returns the function that gives the programs of a guider."""
    from gps.comparisons import compare
    from gps.experiments.experiment import Experiment
    from gps.runs import programs as module
    from gps.runs import train

    build, start = Experiment.build, module.Programs

    def same_guider(experiment, warn=None):
        run = experiment.run
        key = repr((run.task, run.guider, run.engine, run.plant, experiment.task, experiment.guider))
        if key not in guiders:
            guiders[key] = build(experiment)
        return guiders[key]

    def same_programs(guider, devices=1):
        if (id(guider), devices) not in programs:
            programs[id(guider), devices] = start(guider, devices)
        return programs[id(guider), devices]

    monkeypatch.setattr(Experiment, "build", same_guider)
    for user in (module, train, compare):
        monkeypatch.setattr(user, "Programs", same_programs)
    return same_programs
