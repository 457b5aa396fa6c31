"""The record in a checkpoint: what the checkpoint holds, and sums by which changed bytes are seen."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import jax
import numpy as np

from gps.files import open_plain, read_bytes

NAME = "record.json"
_MOST = 2**26  # bytes of a record
_KIND = re.compile(r"[a-z0-9_]+\[([0-9]+(,[0-9]+)*)?\]")  # see `kind_of`


class Damage(NamedTuple):
    """A checkpoint that was passed over: the file or folder that is damaged, and in what way."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def write(place: Path, content: dict[str, Any]) -> None:
    """Write the record of a checkpoint whose files are all there.

    Args:
        content: see `content_of`.
    """
    written = sorted(path for path in place.rglob("*") if path.is_file())
    files = {str(path.relative_to(place)): _sum_of_file(path) for path in written}
    text = json.dumps({"sha256": _sum_of_json([content, files]), "content": content, "files": files}, indent=1)
    (place / NAME).write_text(text)


def verify(place: Path) -> dict[str, Any] | Damage:
    """The content that the record of a checkpoint lists, or the first file that is not as it was saved.

    Files are summed before orbax sees them: from damaged ones it prints traces of its own threads, and some damage
    it does not notice. The record itself may be forged: only what `write` can have written is believed.
    """
    file = place / NAME
    try:
        record = json.loads(read_bytes(file, _MOST))
        content, files = record["content"], record["files"]
        if record["sha256"] != _sum_of_json([content, files]) or content["step"] != int(place.name):
            raise ValueError
        _require_form(content, files)
        for name, expected in files.items():
            file = place / name
            if _sum_of_file(file) != expected:
                raise ValueError
    except FileNotFoundError:
        return Damage(file, "is missing")
    except OSError as error:
        return Damage(file, f"cannot be read: {error.strerror or error}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Damage(file, "its bytes have changed since it was saved")
    return content


def _require_form(content: dict[str, Any], files: dict[str, Any]) -> None:
    """Raise an error of any kind unless these are a step, kinds of leaves, a meta, and files inside the checkpoint."""
    if set(content) != {"step", "leaves", "arrays", "meta"} or not isinstance(content["meta"], dict):
        raise ValueError
    for kind in content["leaves"].values():
        if not _KIND.fullmatch(kind):
            raise ValueError
    for name in files:
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError


def content_of(step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds, in words that JSON gives back unchanged."""
    leaves = {name: kind_of(array) for name, array in arrays.items()}
    content = {"step": step, "leaves": leaves, "arrays": sum_of_arrays(arrays), "meta": meta}
    return json.loads(json.dumps(content))  # tuples become lists and keys become texts, here as on the disk


def kind_of(leaf: Any) -> str:
    """Dtype and shape, such as "float32[3,4]"."""
    known = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{known.dtype}[{','.join(map(str, known.shape))}]"


def empty(kind: str) -> np.ndarray:
    """An uninitialised array of such a kind."""
    dtype, _, shape = kind.rstrip("]").partition("[")
    return np.empty([int(n) for n in shape.split(",") if n], jax.numpy.dtype(dtype))


def sum_of_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Of names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _sum_of_file(path: Path) -> str:
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
