"""What can be run, by name: tasks, guiders, and what guiders take as defaults on each task."""

from __future__ import annotations

from typing import Any

from gps.entry import Entry, imported
from gps.guiders.catalogue import GUIDERS
from gps.guiders.model_free.methods import METHODS
from gps.settings import SettingsError, unknown
from gps.tasks import presets
from gps.tasks.catalogue import TASKS


def find(kind: str, name: str) -> Entry:
    """The "task" or the "guider" of a name, loaded; one's own has the name "module:ENTRY" of an `Entry` in a module.

    Errors:
        SettingsError for an unknown name, a module that can not be imported, and an object in it that is no `Entry`.
    """
    known = {"task": TASKS, "guider": GUIDERS}[kind]
    if name in known:
        return known[name].load()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown(kind, name, known)
    if not module or not attribute:
        raise SettingsError(f"{kind} {name!r} must be a name of `gps list`, or module:ENTRY for one of your own")
    try:
        entry = imported(name)
    except AttributeError as error:
        raise SettingsError(f"{kind} {name!r}: {error}") from error
    except ImportError as error:
        raise SettingsError(f"{kind} {name!r}: {error}; is the module's folder in PYTHONPATH?") from error
    if not isinstance(entry, Entry):
        raise SettingsError(f"{kind} {name!r}: {attribute} in {module} must be a gps.entry.Entry, not {entry!r}")
    return entry.load()


def defaults(task: str, guider: str) -> dict[str, Any]:
    """Tables "run" and "guider" of settings that a guider takes on a task over its own defaults."""
    entry = find("task", task)
    tables = entry.model_free if guider in METHODS else entry.model_based
    return presets.of(tables, guider, find("guider", guider).settings)
