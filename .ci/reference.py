"""A page of the site for each guider and each task, from what `gps list` reads: catalogue, docstrings, settings.

    reference/guiders/index.md, reference/guiders/NAME.md
    reference/tasks/index.md, reference/tasks/NAME.md

Nothing stands here that the source does not say. Of an external task, the package that it needs is not imported.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from gps.cli.explained import explained
from gps.entry import Entry
from gps.experiments.experiment import RunSettings
from gps.experiments.lookup import GUIDERS, TASKS
from gps.guiders.model_free import methods
from gps.settings import flat

DOCS = Path(__file__).parent.parent / "docs"
ACTS = {"guider": "the guider", "learner": "the learner", "halves": "the learner and the imitator, half each"}
# where the mathematics of a model-free method stands, beside the terms of all of them
FORMULAS = {"sitt": ("alignment", "rewards")}


@functools.cache
def pages() -> dict[str, str]:
    """All pages as Markdown, by their paths in the site."""
    texts = {f"reference/guiders/{name}.md": guider_page(name) for name in GUIDERS}
    texts |= {f"reference/tasks/{name}.md": task_page(name) for name in TASKS}
    settings = f"## Settings of every run\n\n{settings_table(RunSettings(), 'run.')}"
    texts["reference/guiders/index.md"] = f"# All guiders\n\n{index(GUIDERS)}\n\n{settings}\n"
    texts["reference/tasks/index.md"] = f"# All tasks\n\n{index(TASKS)}\n"
    return texts


def guider_page(name: str) -> str:
    """What it is, its mathematics, its command and its settings."""
    entry = GUIDERS[name]
    loaded = entry.load()
    parts = [f"# {name}", f"{_sentence(entry.about)}.", _command("reacher", name)]
    if name in methods.METHODS:
        modules = [f"gps.guiders.model_free.{module}" for module in FORMULAS.get(name, ())]
        parts += ["## What it does", _row(name), *map(_docstring, modules)]
    else:
        parts += ["## What it does", _docstring(entry.build.partition(":")[0])]
    parts += ["## Settings", settings_table(loaded.settings, "guider.")]
    parts.append("All of them at once: [guiders](../../guiders.md). The symbols: [notation](../../notation.md).")
    return "\n\n".join(parts) + "\n"


def task_page(name: str) -> str:
    """What is to be done, a picture where there is one, its command, its settings, and what guiders take for it."""
    entry = TASKS[name]
    loaded = entry.load()
    parts = [f"# {name}", f"{_sentence(entry.about)}."]
    if picture := _picture(name):
        parts.append(f"![{name}](../../images/tasks/{picture})")
    parts.append(_command(name, "badmm" if entry.engines else "gpo-clip"))
    where, _, builder = entry.build.partition(":")
    parts += ["## What it is", _docstring(where)]
    if inspect.isclass(maker := getattr(importlib.import_module(where), builder)):
        parts.append(_markdown(re.sub(r"^See (the top of this file|`\w+`)\.\s*", "", inspect.getdoc(maker) or "")))
    parts += ["## Settings", settings_table(loaded.settings, "task.")]
    for kind, tables in (("Model-based", entry.model_based), ("Model-free", entry.model_free)):
        if tables:
            parts += [f"## {kind} guiders on it", "What they take here instead of their own defaults:"]
            parts.append(_changes(tables))
    parts.append("All of them at once: [tasks](../../tasks.md).")
    return "\n\n".join(filter(None, parts)) + "\n"


def index(entries: Mapping[str, Entry]) -> str:
    """A table of names, each a link to its page, and what `gps list` says of them."""
    rows = [(f"[{name}]({name}.md)", _cell(entry.about)) for name, entry in entries.items()]
    return table(("name", ""), rows)


def settings_table(settings: Any, prefix: str) -> str:
    """Every setting with its default and what the comment beside it in the source says."""
    rows = [(f"`{name}`", _value(value), _cell(said)) for name, value, said in explained(settings, prefix)]
    rows = table(("setting", "default", ""), rows)
    return "\n\n".join([*(f"`{name}`: {said}" for name, said in _tables_of(settings, prefix)), rows])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tables_of(settings: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """What the docstrings of its tables say of them."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield f"{prefix}{field.name}", (inspect.getdoc(type(value)) or "").partition("\n\n")[0].replace("\n", " ")


def _row(name: str) -> str:
    """What a row of the model-free methods says, in words."""
    row = methods.METHODS[name]
    meanings = dict(re.findall(r"^    (\w+) +(.+)$", methods.__doc__ or "", re.MULTILINE))
    terms = table(("term of its loss", ""), [(f"`{term}`", _cell(meanings[term])) for term in row.terms])
    said = [
        f"In training {ACTS[row.collects]} acts.",
        f"The critic sees what the {row.critic} sees." if "critic" in row.critics else "",
        "The teacher is trained first, then frozen." if row.teacher_first else "",
        "Each update begins with the guider as a copy of the learner." if row.backtracks else "",
        "The learner's reward is shaped by the value of the imitator." if row.shaped else "",
    ]
    source = (methods.__doc__ or "").partition("Source:\n")[2]
    return "\n\n".join([" ".join(filter(None, said)), terms, f"Source: {_cell(inspect.cleandoc(source))}"])


def _docstring(module: str) -> str:
    return _markdown(importlib.import_module(module).__doc__ or "")


def _markdown(text: str) -> str:
    """A docstring as Markdown: the paragraph after a heading such as "Source:" is text and not code."""
    lines = []
    indented = False
    for line in inspect.cleandoc(text).splitlines():
        if heading := re.fullmatch(r"(Source|Errors|Args|Returns):", line):
            indented, line = True, f"**{heading[1]}.**"
        elif line and not line.startswith(" "):
            indented = False
        lines.append(line.removeprefix("    ") if indented else line)
    return "\n".join(lines)


def _picture(name: str) -> str:
    """The file of a task's picture, or of those that it is a variant of; "" where there is none."""
    if not TASKS[name].engines:
        return ""
    files = (f"{part}.png" for part in (name, name.rpartition("-")[2], name.partition("-")[0]))
    return next((file for file in files if (DOCS / "images" / "tasks" / file).exists()), "")


def _changes(tables: Mapping[str, Any]) -> str:
    shared = flat({name: own for name, own in tables.items() if name != "methods"})
    rows = [("all that have it", name, value) for name, value in shared.items()]
    for guider, own in tables.get("methods", {}).items():
        rows += [(f"`{guider}`", f"guider.{name}", value) for name, value in flat(own).items()]
    return table(("of", "setting", "value"), [(who, f"`{name}`", _value(value)) for who, name, value in rows])


def _command(task: str, guider: str) -> str:
    return f"```sh\ngps train {task} --guider {guider}\n```"


def _value(value: Any) -> str:
    return f"`{value!r}`" if isinstance(value, str) else f"`{list(value) if isinstance(value, tuple) else value}`"


def _cell(text: str) -> str:
    """A text in a cell of a table."""
    return " ".join(text.split()).replace("|", "&#124;")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
