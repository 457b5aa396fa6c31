"""What tests look at in folders."""

from __future__ import annotations

from pathlib import Path


def contents(path: Path) -> dict[Path, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    return {entry: entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}


def files_of(path: Path) -> list[Path]:
    """All files below a folder, in the order of their names."""
    return sorted(entry for entry in path.rglob("*") if entry.is_file())


def flip(file: Path, position: int = -1) -> None:
    """Damage one bit of a file."""
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)
