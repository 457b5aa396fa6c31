"""Settings and their TOML files.

Settings are nested frozen dataclasses of plain values (int, float, bool, str, tuples of these, other settings),
each with its check in `__post_init__`. A mistake in what a user wrote is a `SettingsError` whose
message names the setting as the user would write it: `guider.learner.network.hidden`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import tomli_w

from gps.errors import UserError
from gps.files import read_bytes, write_text

Settings = TypeVar("Settings")

_MOST = 2**20  # bytes of a TOML file
_SUM = "# sha256 of the text above: "  # the last line that `write_toml` writes

_TOO_MUCH = "a number has too many digits, or a list too many levels"
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", dict: "a table"}


class SettingsError(UserError, ValueError):
    """A setting that is unknown, of the wrong type or impossible; the message names it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of every "unknown X" message: "did you mean 'badmm'? (known: badmm, mdgps)"."""
    known = list(known)
    listed = f"known: {', '.join(known) or 'none'}"
    lowered = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean '{lowered[matches[0]]}'? ({listed})" if matches else listed


def unknown(kind: str, name: str, known: Iterable[str]) -> SettingsError:
    """The error to raise for a name that is not among the known ones: "unknown guider 'bdmm'; did you mean ...".

    Args:
        kind: what the name should have named, such as "guider".
        name: what the user wrote.
        known: the names there are.
    """
    return SettingsError(f"unknown {kind} {name!r}; {nearest(name, known)}")


def from_dict(cls: type[Settings], mapping: Mapping[str, Any], where: str = "") -> Settings:
    """Build settings from a nested mapping; keys that are missing take their defaults.

    An integer is accepted for a float and a list for a tuple; a bool is not an integer.

    Args:
        cls: the dataclass of the settings.
        mapping: what a TOML file holds.
        where: the dotted name of these settings inside the whole, for the messages.

    Errors:
        SettingsError for an unknown key, a missing key that has no default, a value of the wrong type, and
        whatever the settings' own check rejects.
    """
    if not isinstance(mapping, Mapping):
        raise _wrong_type(where, mapping, _WORDS[dict])
    types = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls)) if field.init}
    for key in mapping:
        if key not in fields:
            raise SettingsError(f"unknown setting '{_join(where, key)}'; {_nearest_setting(cls, str(key), where)}")
    values = {key: _convert(types[key], value, _join(where, key)) for key, value in mapping.items()}
    for name, field in fields.items():
        has_default = not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
        if name not in values and not has_default:
            raise SettingsError(f"setting '{_join(where, name)}' is missing and has no default")
    try:
        settings = cls(**values)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{where}: {error}" if where else str(error)) from error
    for name, value in values.items():
        if any(type(item) is int and abs(item) >= 2**63 for item in (value if isinstance(value, tuple) else (value,))):
            raise SettingsError(f"setting '{_join(where, name)}' must be below 2^63")
    return settings


def _nearest_setting(cls: type, key: str, where: str) -> str:
    """As `nearest`; a setting of that very name in a table below comes first."""
    names = [field.name for field in dataclasses.fields(typing.cast(Any, cls)) if field.init]
    below = " or ".join(f"'{_join(where, name)}'" for name in _dotted(cls) if name.endswith(f".{key}"))
    return f"did you mean {below}? (known: {', '.join(names)})" if below else nearest(key, names)


def _dotted(cls: type) -> Iterator[str]:
    """The names of all settings in a dataclass of them and in its tables."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from (f"{name}.{below}" for below in _dotted(typing.cast(type, kind)))
        else:
            yield name


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as nested dicts, with lists for tuples: what `read_toml` returns after `write_toml`."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return plain(settings)


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    names = {}
    for key, value in tables.items():
        names |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return names


def override(mapping: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of the nested mapping with assignments such as "guider.trust_region.kl_step=0.1", made in their order.

    A value is read as TOML (`3`, `0.1`, `true`, `[1, 2]`, `"text"`); what is not TOML is taken as a text, so that
    `run.engine=mjx` needs no quotes. Whether the settings exist is for `from_dict` to say.

    Errors:
        SettingsError for an assignment without "=" or name, and for one that reaches into a plain value.
    """
    result = _copy(mapping)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        keys = [key.strip() for key in name.split(".")]
        if not equals or not all(keys):
            raise SettingsError(
                f"cannot read the assignment '{assignment}'; write name=value, such as guider.trust_region.kl_step=0.1"
            )
        table = result
        for depth, key in enumerate(keys[:-1], start=1):
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise SettingsError(f"'{assignment}': '{'.'.join(keys[:depth])}' is a plain value, it has no settings")
        try:
            table[keys[-1]] = _parse(text.strip())
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"'{name.strip()}' can not be read: {_TOO_MUCH}") from error
    return result


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The nested dict in a TOML file.

    Errors:
        SettingsError naming file and line of a text that is not TOML, and for one that has changed since `write_toml`
        wrote it; OSError for a file that cannot be read, FileError for a link and for one of more than a megabyte.
    """
    data = read_bytes(path, _MOST)
    above, found, written = data.rpartition(_SUM.encode())
    try:
        text = data.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}, line {line}: not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 gives the line in the message alone, and none where the text ends too early.
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(place.group(1)) if place else len(text.splitlines())
        raise SettingsError(f"{path}, line {line}: {str(error).split(' (at ')[0]}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: {_TOO_MUCH}") from error
    if found and written.strip() != hashlib.sha256(above).hexdigest().encode():
        raise SettingsError(
            f"{path}: its text has changed since it was written: restore the file, or start another run"
        )
    return tables


def write_toml(path: str | os.PathLike[str], mapping: Mapping[str, Any], *, new: bool = False) -> None:
    """Write a nested mapping as TOML with a sum over it, all at once; `new` and errors as in `write_text`."""
    text = tomli_w.dumps(mapping)
    write_text(path, f"{text}{_SUM}{hashlib.sha256(text.encode()).hexdigest()}\n", new=new)


def _convert(wanted: Any, value: Any, where: str) -> Any:
    """The value as the type that the field `where` wants, or a SettingsError."""
    if dataclasses.is_dataclass(wanted):
        return from_dict(typing.cast(type, wanted), value, where)
    if typing.get_origin(wanted) is tuple:
        return _convert_tuple(wanted, value, where)
    if wanted not in (int, float, bool, str):
        raise TypeError(f"setting '{where}' is declared as {wanted}; settings are plain values, tuples and settings")
    if wanted is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if type(value) is not wanted:  # not isinstance: True is an int to Python
        raise _wrong_type(where, value, _WORDS[wanted])
    return value


def _convert_tuple(wanted: Any, value: Any, where: str) -> tuple:
    """A list as the tuple type that the field `where` wants: tuple[int, ...] or tuple[float, float]."""
    if not isinstance(value, list | tuple):
        raise _wrong_type(where, value, "a list")
    items = typing.get_args(wanted)
    if items[-1] is Ellipsis:
        items = items[:1] * len(value)
    if len(items) != len(value):
        raise _wrong_type(where, value, f"a list of {len(items)}")
    return tuple(_convert(item, v, f"{where}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True)))


def _wrong_type(where: str, value: Any, wanted: str) -> SettingsError:
    name = f"setting '{where}'" if where else "the settings"
    return SettingsError(f"{name} must be {wanted}, not {value!r} ({type(value).__name__})")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _copy(value: Any) -> Any:
    """Nested tables and lists copied, plain values as they are."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _parse(text: str) -> Any:
    """A TOML value, or the text itself where it can not be read as one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    # A line break could bring in more keys, and no setting is a date: both are texts.
    return value if len(parsed) == 1 and isinstance(value, int | float | str | list | dict) else text


# Checks that settings make of themselves in `__post_init__`; NaN passes none of them.


def check_positive(settings: Any, *names: str) -> None:
    """Each of the named numbers is finite and greater than zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, not {getattr(settings, name)}")
        _check_finite(settings, name)


def check_at_least(settings: Any, least: float, *names: str) -> None:
    """Each of the named numbers is finite and `least` or more."""
    for name in names:
        if not getattr(settings, name) >= least:
            raise ValueError(f"{name} must be at least {least}, not {getattr(settings, name)}")
        _check_finite(settings, name)


def _check_finite(settings: Any, name: str) -> None:
    if getattr(settings, name) == math.inf:
        raise ValueError(f"{name} must be finite, not inf")


def check_one_of(settings: Any, name: str, known: Iterable[str]) -> None:
    """The named text is one of the known ones."""
    if getattr(settings, name) not in known:
        raise unknown(name, getattr(settings, name), known)
