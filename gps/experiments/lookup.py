"""What can be run, by name: tasks, guiders, and what guiders take as defaults on each task."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from gps.entry import Entry, imported
from gps.guiders.catalogue import GUIDERS
from gps.guiders.model_free.methods import METHODS
from gps.settings import SettingsError, flat
from gps.tasks import presets
from gps.tasks.catalogue import GYMNASIUM, TASKS, gymnasium_entry

CODE, ENCODER = ("run.task", "run.guider"), ".vision.encoder"  # settings that may name some; of any network


def find(kind: str, name: str) -> Entry:
    """The "task" or the "guider" of a name, loaded; one's own has the name "module:ENTRY" of an `Entry` in a module.

    A task "gymnasium:NAME" is Gymnasium's environment of that name.

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
    if (kind, module) == ("task", GYMNASIUM):
        return gymnasium_entry(attribute).load()
    try:
        entry = imported(name)
    except AttributeError as error:
        raise SettingsError(f"{kind} {name!r}: {error}") from error
    except ImportError as error:
        raise SettingsError(f"{kind} {name!r}: {error}; is the module's folder in PYTHONPATH?") from error
    if not isinstance(entry, Entry):
        raise SettingsError(f"{kind} {name!r}: {attribute} in {module} must be a gps.entry.Entry, not {entry!r}")
    return entry.load()


def code(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that name code of somebody's own, "module:NAME", which is imported where a run is built.

    What Gymnasium has by a plain name, "gymnasium:NAME", is not among them, and "gymnasium:module:NAME" is.
    """
    named = {name: value for name, value in flat(settings).items() if name in CODE or name.endswith(ENCODER)}
    own = {name: value for name, value in named.items() if isinstance(value, str) and ":" in value}
    task = str(own.get("run.task", ""))
    if task.startswith(f"{GYMNASIUM}:") and task.count(":") == 1:
        del own["run.task"]
    return own


def unknown(kind: str, name: str, known: Iterable[str]) -> SettingsError:
    """The error for a name that nothing has: it names the nearest ones, and where all of them are."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=4) or [other for other in known if name in other][:4]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    near = f"or {', '.join(close[1:])}; " if close[1:] else ""
    return SettingsError(f"unknown {kind} {name!r}{hint} ({near}`gps list` names all {len(known)})")


def defaults(task: str, guider: str) -> dict[str, Any]:
    """Tables "run" and "guider" of settings that a guider takes on a task over its own defaults."""
    entry = find("task", task)
    tables = entry.model_free if guider in METHODS else entry.model_based
    return presets.of(tables, guider, find("guider", guider).settings)
