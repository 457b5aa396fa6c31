"""What tests of runs share: runs that nothing has interrupted, to compare others with."""

from __future__ import annotations

import pytest

from gps.runs import train
from gps.runs.folder import RunFolder


@pytest.fixture(scope="module")
def ended():
    return {}


@pytest.fixture
def run_of(tiny, tmp_path_factory, ended):
    """The folder of a run with such settings that nothing has interrupted; not to be written."""

    def run(*changes):
        if changes not in ended:
            ended[changes] = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", tiny(*changes))
            train.train(ended[changes], quiet=True)
        return ended[changes]

    return run
