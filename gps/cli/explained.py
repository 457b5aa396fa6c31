"""Settings as a user reads them: names, values, and what the comments beside them in the source say."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import shutil
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

_COLUMN = 46  # where explanations begin
_FIELD = re.compile(r"\s+(\w+)\s*:\s*\S")


def explained(settings: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """The dotted name, the value and the explanation of every setting in a dataclass of them and in its tables."""
    said = comments(type(settings))
    for field in dataclasses.fields(settings):
        if not field.init:
            continue
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from explained(value, f"{name}.")
        else:
            yield name, list(value) if isinstance(value, tuple) else value, said.get(field.name, "")


def lines(settings: Any, prefix: str, indent: str = "  ") -> Iterator[str]:
    """The same as lines of a terminal's width."""
    width = max(100, min(160, shutil.get_terminal_size((120, 24)).columns))
    for name, value, said in explained(settings, prefix):
        head = f"{indent}{name} = {value}"
        texts = textwrap.wrap(said, width - _COLUMN - 1) or [""]
        if texts[0] and len(head) > _COLUMN - 2:
            yield head
            head = ""
        yield f"{head:{_COLUMN}}{texts[0]}".rstrip()
        yield from (" " * _COLUMN + text for text in texts[1:])


def comments(cls: type) -> dict[str, str]:
    """What the comments in a class say of its fields: those in the lines above a field, and the one beside it."""
    said: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # built in, or made where there is no file
            continue
        said |= _comments(source)
    return said


def _comments(source: str) -> dict[str, str]:
    said: dict[str, str] = {}
    beside = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    above: list[str] = []
    for number, line in enumerate(source.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            above.append(beside.get(number, ""))  # none in a text of several lines
            continue
        if line.lstrip().startswith("def "):
            break  # the fields come first
        if field := _FIELD.match(line):
            said[field[1]] = " ".join([*above, *([beside[number]] if number in beside else [])])
        above = []
    return said
