"""What a name in the lists of tasks and guiders stands for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A task or a guider: its default settings, and what builds it from settings.

    An entry of one's own holds both. An entry of the catalogues names both as "module:NAME", so that listing names
    imports nothing; `load` imports them.
    """

    settings: Any  # a frozen dataclass of defaults, or what makes one from `values`: its class, or a function
    # A guider from (task, settings), a task from (settings, name), or (settings, engine, name) where `engines`.
    build: Any
    about: str = ""  # a line about it
    engines: bool = False  # of a task: there is an engine to choose
    values: Mapping[str, Any] = field(default_factory=dict)  # of the settings, where they are not their class's own
    # Of a task: tables of settings over the defaults of guiders of that kind, see `gps.tasks.presets`.
    model_free: Mapping[str, Any] = field(default_factory=dict)
    model_based: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Entry:
        """The same with everything imported: `settings` are an object, and `build` can be called.

        Errors:
            ImportError and AttributeError where a module or a name in it is missing.
        """
        settings, build = (imported(value) for value in (self.settings, self.build))
        return replace(self, settings=settings(**self.values) if callable(settings) else settings, build=build)


def imported(value: Any) -> Any:
    """The object that a text "module:NAME" names; anything else is itself."""
    if not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    return getattr(importlib.import_module(module), name)
