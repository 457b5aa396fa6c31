"""Messages to and from a plant: a JSON object, and the numbers of its arrays, one part each. Nothing is executed.

    {"kind": "action", "episode": 7, "t": 0, "arrays": {"u": [2]}}  |  16 bytes: two little-endian doubles

"arrays" names the parts that follow in their order, with the shape of each; numbers are doubles, rows first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

VERSION = 1
_DOUBLE = np.dtype("<f8")


class MessageError(ValueError):
    """What is wrong with a message that was received, or was to be sent."""


@dataclass(frozen=True)
class Message:
    """One message, decoded; `fields` are the header without its arrays."""

    fields: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array that must be there; MessageError where it is missing, of another shape, or not finite."""
        if name not in self.arrays:
            raise MessageError(f"{name} is missing")
        values = self.arrays[name]
        if values.shape != shape:
            raise MessageError(f"{name} has shape {values.shape}, and must have {shape}")
        _require_finite(name, values)
        return values


def encode(fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> list[bytes]:
    """The parts of a message; MessageError where a number is not finite."""
    doubles = {name: np.asarray(values, _DOUBLE) for name, values in (arrays or {}).items()}
    for name, values in doubles.items():
        _require_finite(name, values)
    header = {**fields, "arrays": {name: values.shape for name, values in doubles.items()}}
    return [json.dumps(header).encode(), *(values.tobytes() for values in doubles.values())]


def decode(parts: Sequence[bytes]) -> Message:
    """The message of these parts; MessageError where they are none."""
    try:
        header = json.loads(parts[0])
    except (ValueError, RecursionError, IndexError) as error:
        raise MessageError("its first part is not JSON") from error
    shapes = header.pop("arrays", {}) if isinstance(header, dict) else None
    if not isinstance(shapes, dict) or not all(map(_is_shape, shapes.values())):
        raise MessageError('its first part is not a JSON object with "arrays", an object of shapes')
    if len(parts) != 1 + len(shapes):
        raise MessageError(f"it names {len(shapes)} arrays and has {len(parts) - 1}")
    arrays = {}
    for (name, shape), data in zip(shapes.items(), parts[1:], strict=True):
        if len(data) != prod(shape) * _DOUBLE.itemsize:
            raise MessageError(
                f"{name} has {len(data)} bytes, and {shape} doubles take {prod(shape) * _DOUBLE.itemsize}"
            )
        try:
            arrays[name] = np.frombuffer(data, _DOUBLE).reshape(shape)
        except ValueError as error:  # none at all of a number that no index reaches
            raise MessageError(f"{name} has the shape {shape}: {error}") from error
    return Message(header, arrays)


def _require_finite(name: str, values: np.ndarray) -> None:
    wrong = np.argwhere(~np.isfinite(values)).tolist()
    if wrong:
        raise MessageError(f"{name}{wrong[0]} is {values[tuple(wrong[0])]}, and must be finite")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(type(n) is int and 0 <= n < 2**31 for n in value)
