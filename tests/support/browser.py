"""A headless Chromium that opens a page from a file, with what the page asks for and complains of."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 120  # s; WebGL is computed without a GPU


@dataclass
class Opened:
    """A page, its errors, and the addresses that it asked for besides its own."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def when(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds; the driver's own way needs `eval`, which the page bars."""
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"waited in vain for {condition}; errors: {self.errors}"
            self.page.wait_for_timeout(50)


@contextmanager
def opened(file: Path, profile: Path) -> Iterator[Opened]:
    """The page of a file that has drawn itself; the test is skipped where there is no browser."""
    driver = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with driver.sync_playwright() as play:
        browser = play.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS, viewport={"width": 1360, "height": 1000}
        )
        found = Opened(browser.new_page())
        found.page.on("pageerror", lambda error: found.errors.append(str(error)))
        found.page.on("console", lambda said: said.type == "error" and found.errors.append(said.text))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(file.as_uri())
        found.when("document.body.dataset.ready")
        found.asked.remove(file.as_uri())
        yield found
        browser.close()
