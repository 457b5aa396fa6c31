"""The docs: code prints what stands under it, commands have the options and settings that they name."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from gps.cli.main import _parser
from gps.cli.train import settings_of
from gps.experiments.experiment import Experiment

TOP = Path(__file__).parent.parent
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
PRINTED = re.compile(r"```python\n((?:(?!```).)*)```\n\n```text\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SNIPPETS = [
    pytest.param(*block, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, block in enumerate(PRINTED.findall(page.read_text()))
]
PLACEHOLDERS = {"my_module", "broken"}  # modules that only a reader has


@pytest.mark.parametrize(("code", "expected"), SNIPPETS)
def test_code_prints_what_stands_under_it(code, expected):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs", "exec"), {"__name__": "docs"})
    assert printed.getvalue() == expected


def commands(page: Path) -> list[list[str]]:
    """The `gps` commands of a page's shell blocks, as lists of arguments, without what follows a comment sign."""
    lines = "\n".join(SHELL.findall(page.read_text())).replace("\\\n", " ").splitlines()
    parts = [shlex.split(line, comments=True) for line in lines]
    return [part[part.index("gps") + 1 :] for part in parts if "gps" in part]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_name_options_and_settings_that_there_are(page, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(TOP / "examples"), *sys.path])
    for arguments in commands(page):
        if PLACEHOLDERS & set(re.findall(r"\w+", " ".join(arguments))):
            continue
        options = _parser().parse_args([argument for argument in arguments if argument != "--help"])
        if arguments[0] == "train":
            Experiment.resolve(settings_of(options, "task", "guider", "engine", "seed", "iterations"))
        elif arguments[0] == "compare":
            for task in options.tasks:
                for guider in options.guiders:
                    Experiment.resolve({"run": {"task": task, "guider": guider}})


def test_every_column_of_a_log_is_explained():
    """Those that the source names; on the page a title stands in a cell, where a bar is escaped."""
    page = (TOP / "docs" / "reading_a_log.md").read_text()
    source = "\n".join(path.read_text() for path in (TOP / "gps").rglob("*.py"))
    titles = set(re.findall(r'Column\("\w+", "([^"]+)"', source))
    assert {"cost", "entropy", "|u - pi|"} < titles
    assert [title for title in titles if f"`{title}`".replace("|", "\\|") not in page and f"`{title}`" not in page] == [
        "iter"
    ]
