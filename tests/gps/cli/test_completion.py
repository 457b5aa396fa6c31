"""What a shell is told where somebody presses the tabulator."""

from __future__ import annotations

import pytest
from support.processes import GPS, finished

from gps.experiments.lookup import GUIDERS, TASKS


@pytest.fixture
def proposed(tmp_path):
    """What is proposed at the end of a line."""

    def ask(line: str) -> set[str]:
        asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "out"), "_ARGCOMPLETE_IFS": "\n"}
        asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
        done = finished(*GPS, **asked)
        assert (done.returncode, done.stderr) == (0, "")
        return set((tmp_path / "out").read_text().splitlines())

    return ask


def test_a_shell_proposes_names_and_settings(proposed):
    assert proposed("gps train reacher") == {name for name in TASKS if name.startswith("reacher")}
    assert proposed("gps compare peg --guiders mdgps pi") == {name for name in GUIDERS if name.startswith("pi")}
    assert proposed("gps list tig") == {name for name in TASKS if name.startswith("tig")}
    assert proposed("gps wat") == {"watch"}
    assert proposed("gps train tiger-door --guider gpo-clip --set guider.region.") == {
        "guider.region.form=",
        "guider.region.size=",
    }
    assert proposed("gps train tiger-doo --set guider.region.") == set()
