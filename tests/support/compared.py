"""Comparisons of tiny runs."""

from __future__ import annotations

from typing import Any

from gps.comparisons.compare import Comparison, compare
from support.tiny import SETTINGS

SMALL = ["run.engine=mujoco", "run.iterations=3", *SETTINGS]
BOTH = ("badmm", "other")


def compared(*changes: str, tasks=("reacher",), guiders=BOTH, seeds: int = 2, **options: Any) -> Comparison:
    """Of badmm and a second guider on the arm, by default."""
    return compare(tasks, guiders, seeds, settings=[*SMALL, *changes], **options)
