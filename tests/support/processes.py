"""Python processes of their own: they import this tree, wherever they start and whatever is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
GPS = [sys.executable, "-m", "gps.cli.main"]  # the command line


def finished(*command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that has come to its end: what it has printed, and its exit status."""
    return subprocess.run(
        command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def printed(code: str) -> str:
    """What a piece of Python prints, in an interpreter of its own."""
    done = finished(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
