"""The metrics of a run: one JSON object per iteration, each in a line of its own that is whole or torn by a kill."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gps.errors import UserError
from gps.files import FileError, open_plain, read_bytes, synced, told, write_text

_CHUNK = 2**20  # bytes that are looked at together
_MOST_LISTED, _LONGEST = 2**30, 2**25  # bytes of a file whose rows are counted, and of one of its lines
REMEDY = "restore the file, or start anew with another --out"


class RunError(UserError):
    """A folder that is no run, or a file in it that cannot be read; the message says what is missing."""


class Metrics:
    """metrics.jsonl of a run, which one process at a time may write."""

    def __init__(self, path: Path):
        self.path = path
        self._sums: tuple[Any, list[str]] | None = None  # of all rows: their sha256 so far, and the crc32 of each

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line; when this returns, it is on the disk. `row` as in `plain`.

        Errors:
            TypeError for a value that JSON can not hold; FileError where the file can not be written.
        """
        line = (json.dumps(plain(row, "metrics"), allow_nan=False) + "\n").encode()
        with told(self.path, "written"), os.fdopen(open_plain(self.path, os.O_RDWR | os.O_CREAT), "r+b") as stream:
            if stream.seek(0, os.SEEK_END) > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    # A kill tore the last line; the new one must not be glued to what is left of it.
                    stream.truncate(sum(map(len, self.lines())))
                    stream.seek(0, os.SEEK_END)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        if self._sums:
            _add(self._sums, line)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, without a last line that a kill has torn.

        Errors:
            RunError naming the line, for any other line that is not JSON.
        """
        return [self._row(number, line) for number, line in enumerate(self.lines(), start=1)]

    def size(self) -> int:
        """Bytes of the file: while they are the same, so are its rows, but for a run that goes back and on at once."""
        return self.path.lstat().st_size if os.path.lexists(self.path) else 0

    def count(self) -> int:
        """How many rows there are; of them only the last one is read.

        Errors:
            As in `rows` for that one, and FileError for a file of more than a gigabyte, or lines of 32 megabytes.
        """
        if not self.path.exists():
            return 0
        count, size, end = 0, 0, b""  # of the file so far: its last whole line, and what follows
        with os.fdopen(open_plain(self.path, os.O_RDONLY), "rb") as stream:
            while chunk := stream.read(_CHUNK):
                count, size = count + chunk.count(b"\n"), size + len(chunk)
                end = b"\n".join((end + chunk).rsplit(b"\n", 2)[-2:])
                if size > _MOST_LISTED or len(end) > _LONGEST:
                    raise FileError(f"{self.path} is larger than what is looked at, or a line of it is")
        if count:
            self._row(count, end.split(b"\n")[0])
        return count

    def rewind(self, iteration: int) -> None:
        """Drop the rows of this iteration and of later ones, all at once: a resumed run computes them again."""
        if self.path.exists():
            lines = self.lines()
            kept = [line for line, row in zip(lines, self.rows(), strict=True) if row.get("iteration", -1) < iteration]
            write_text(self.path, b"".join(kept).decode())
            synced(self.path.parent)
        self._sums = None

    def sums(self) -> dict[str, str]:
        """Sums over all rows as they were written, in plain values: of all together, and a short one of each."""
        if self._sums is None:
            self._sums = _sums(self.lines())
        return {"sha256": self._sums[0].hexdigest(), "crc32": " ".join(self._sums[1])}

    def check(self, sums: Mapping[str, str]) -> None:
        """Raise RunError naming the first of the rows that are not those of the sums; later rows do not matter."""
        expected = sums["crc32"].split()
        total, each = _sums(self.lines()[: len(expected)])
        if total.hexdigest() == sums["sha256"]:
            return
        pairs = enumerate(zip(each, expected, strict=False), start=1)
        line = next((number for number, (has, wanted) in pairs if has != wanted), len(each) + 1)
        raise RunError(f"{self.path}, line {line}: it has changed since it was written: {REMEDY}")

    def lines(self) -> list[bytes]:
        """The lines that end: each is written at once with its end, so one without was torn by a kill."""
        data = read_bytes(self.path) if os.path.lexists(self.path) else b""
        return [line + b"\n" for line in data.split(b"\n")[:-1]]

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(f"{self.path}, line {number}: not a JSON object ({error})") from error


def _sums(lines: Iterable[bytes]) -> tuple[Any, list[str]]:
    sums: tuple[Any, list[str]] = hashlib.sha256(), []
    for line in lines:
        _add(sums, line)
    return sums


def _add(sums: tuple[Any, list[str]], line: bytes) -> None:
    sums[0].update(line)
    sums[1].append(f"{zlib.crc32(line):08x}")


def plain(value: Any, where: str) -> Any:
    """Numbers, texts, lists, mappings and arrays of numpy or jax in the types of JSON.

    NaN and infinities become None, because JSON has no word for them.

    Errors:
        TypeError for any other value, naming it.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if hasattr(value, "tolist"):  # arrays and scalars of numpy and jax
        return plain(value.tolist(), where)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"'{where}' is a {type(value).__name__}: only numbers, texts, lists and arrays can be written")
