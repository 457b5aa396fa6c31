"""Files that appear under their name whole, or not at all; no link is followed to read or to write one.

A folder may come from a stranger: what a link in it leads to is neither read nor changed, what is no plain file (a
pipe, a device) is not opened for long, and what is read is bounded in size.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gps.errors import UserError

PathLike = str | os.PathLike[str]

MOST = 2**30  # bytes of a file that is read at once
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_ROOM = "; make room for it: what was saved before is whole"
_REASONS = {
    errno.ELOOP: "it is a link, and none is followed here",
    errno.ENOSPC: f"the disk is full{_ROOM}",
    errno.EDQUOT: f"the disk quota is used up{_ROOM}",
    errno.EFBIG: f"it is larger than a file may be{_ROOM}",
}


class FileError(UserError, OSError):
    """A file that can not be read or written; the message names it, the reason and what to do."""


@contextmanager
def told(path: PathLike, what: str) -> Iterator[None]:
    """Make an OSError of the block a `FileError` that says that `path` can not be `what`: "read" or "written"."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise FileError(f"{path} can not be {what}: {reason}") from error


def open_plain(path: PathLike, flags: int) -> int:
    """The descriptor of a plain file, opened without following a link in its place; `flags` of `os.open`.

    Errors:
        FileError for a link and for what is no file; OSError as `os.open`.
    """
    try:
        descriptor = os.open(path, flags | _SAFELY, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # the second: a pipe that nobody reads
            raise FileError(f"{path} is no plain file, but a link or a pipe") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{path} is no plain file")
    return descriptor


def read_bytes(path: PathLike, most: int = MOST) -> bytes:
    """All of a file.

    Errors:
        As in `open_plain`; FileError for a file of more than `most` bytes.
    """
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FileError(f"{path} is larger than the {most} bytes that such a file may have")
    return data


def write_text(path: PathLike, text: str, *, new: bool = False) -> None:
    """Write a text file all at once: a kill or a power failure leaves the old file or the new one, whole.

    Args:
        new: only where nothing stands at `path`, also if another process writes there at the same time.

    Errors:
        FileError where it can not be written, and where `new` and something is there.
    """
    with written_whole(Path(path), new=new) as waiting, open(waiting, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextmanager
def written_whole(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Where to write a file that is to appear under `path` all at once, when the block ends without an error.

    It is an empty file beside it with a fresh name, so that two processes can write at the same time; the last one
    wins, or with `new` the first. A kill can leave it behind, see `sweep`.
    """
    waiting = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with told(path, "written"):
        os.close(open_plain(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            yield waiting
            synced(waiting)
            if new:
                _linked(waiting, path)
            else:
                os.replace(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)


def _linked(waiting: Path, path: Path) -> None:
    """Give a file its name where nothing has it."""
    try:
        os.link(waiting, path)
    except FileExistsError as error:
        raise FileError(f"{path} exists") from error
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileError(f"{path} exists") from None
        os.replace(waiting, path)


def synced(path: PathLike) -> None:
    """Wait until a file or a folder is on the disk."""
    with told(path, "written"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one of `written_whole`."""
    return bool(_TEMPORARY.fullmatch(name))


def sweep(folder: Path, age: float = 0.0) -> None:
    """Delete what writers that were killed have left in a folder: temporary files of at least `age` seconds."""
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with suppress(OSError):  # its writer has just finished it
            if is_temporary(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime >= age:
                os.unlink(entry.path)


def require_plain(folder: PathLike) -> None:
    """Raise FileError where something below a folder is neither file nor folder, naming the first: links, pipes."""
    for place, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            with suppress(FileNotFoundError):  # another process has just renamed it
                mode = os.lstat(path).st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a device or a socket"
                    raise FileError(f"{path} is {kind}, and a run holds none: remove it")


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
