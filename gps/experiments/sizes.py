"""How much memory a run takes, from the shapes of what its programs make: told before anything is made."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gps.settings import SettingsError, flat

LIMIT = "GPS_MEMORY_GB"  # a variable of the environment, as its value is the machine's affair and not the run's
_COUNTED = 1000  # bytes that a task of the catalogue keeps at least for each thing that one of its settings counts
_FREE = ("broadcast_in_dim", "iota")  # XLA makes no array for them


def require_room(needed: float, settings: Mapping[str, Any], where: str = "") -> None:
    """Raise SettingsError where the machine has less than the needed bytes, naming the settings that are to blame.

    Args:
        settings: nested; the largest integers among them are named, as numbers that sizes are made of.
        where: the dotted name of these settings.
    """
    if needed > memory():
        raise _too_large(f"{_shown(needed)} of memory, and there are {_shown(memory())}", settings, where)


@contextmanager
def countable(settings: Mapping[str, Any]) -> Iterator[None]:
    """Raise the same error where the block fails because the shapes that it asks for are those of no array."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Explicitly requested dtype")  # jax, of an axis that is far too long
            yield
    except (OverflowError, MemoryError) as error:
        raise _too_large("more memory than there can be", settings) from error
    except ValueError as error:
        if "array is too big" not in str(error):
            raise
        raise _too_large("more memory than there can be", settings) from error


def _too_large(what: str, settings: Mapping[str, Any], where: str = "") -> SettingsError:
    counts = {name: max(_integers(value), default=0) for name, value in flat(settings, where).items()}
    largest = sorted((name for name in counts if not name.startswith("run.")), key=counts.__getitem__)[:-4:-1]
    named = ", ".join(f"{name} = {counts[name]}" for name in largest)
    return SettingsError(f"this run would take {what}: lower its largest settings ({named})")


def require_countable(settings: Mapping[str, Any], where: str) -> None:
    """The same, before a task of the catalogue is built, of whose settings every integer counts something."""
    counts = [count for value in flat(settings).values() for count in _integers(value)]
    require_room(_COUNTED * max(counts, default=0), settings, where)


def bytes_of(shapes: Iterable[Any]) -> int:
    """Of arrays, given by what has their shapes and dtypes."""
    return sum(shape.size * shape.dtype.itemsize for shape in shapes if hasattr(shape, "dtype"))


def largest_step(jaxpr: Any) -> int:
    """Bytes of the largest single result inside a program, the bodies of its loops and branches included."""
    most = 0
    for equation in jaxpr.eqns:
        inside = [part for value in equation.params.values() for part in _programs(value)]
        if inside:
            most = max(most, *map(largest_step, inside))
        if equation.primitive.name not in _FREE:
            most = max(most, bytes_of(variable.aval for variable in equation.outvars))
    return most


def memory() -> int:
    """Bytes that this process may have: of the machine, the container that it runs in, or `GPS_MEMORY_GB` if it is set.

    Errors:
        SettingsError where that variable of the environment is not a number above 0.
    """
    room = [_asked()] if LIMIT in os.environ else []
    room += [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**40]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(limit).read_text().strip() if Path(limit).is_file() else ""
        room += [int(text)] if text.isdigit() else []
    return min(room)


def _asked() -> int:
    text = os.environ[LIMIT]
    try:
        asked = float(text)
    except ValueError:
        asked = math.nan
    if not 0 < asked < math.inf:
        raise SettingsError(f"{LIMIT} = {text!r} in the environment: it must be a number of gigabytes above 0")
    return int(asked * 1000**3)


def _integers(value: Any) -> list[int]:
    return [item for item in (value if isinstance(value, list) else [value]) if type(item) is int]


def _programs(value: Any) -> list[Any]:
    """The programs in a parameter of an equation."""
    parts = value if isinstance(value, tuple | list) else [value]
    return [part for part in (getattr(part, "jaxpr", part) for part in parts) if hasattr(part, "eqns")]


def _shown(count: float) -> str:
    units = ("bytes", "kB", "MB", "GB", "TB", "PB")
    power = min(int(len(str(int(count))) - 1) // 3, len(units) - 1)
    return f"{count / 1000**power:.3g} {units[power]}"
