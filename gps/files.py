"""Files that appear under their name whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file all at once: a kill or a power failure leaves the old file or the new one, whole.

    The text passes through `temporary(path)` beside it, which a kill can leave behind and the next write replaces.
    """
    waiting = temporary(path)
    with open(waiting, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(waiting, path)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file that is to appear under `path` all at once, when the block ends without an error."""
    waiting = temporary(path)
    try:
        yield waiting
        os.replace(waiting, path)
    finally:
        waiting.unlink(missing_ok=True)


def temporary(path: str | os.PathLike[str]) -> Path:
    """The file beside `path` that a text is written to before it takes its place."""
    return Path(path).with_name(f".{Path(path).name}.tmp")
