"""`gps view` where there is no display."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="DISPLAY is Linux's")
def test_without_a_display_another_way_is_told(said, finished, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert said("view", finished) == (
        2,
        [],
        ["gps: there is no display (DISPLAY is not set): gps render writes a video instead"],
    )
