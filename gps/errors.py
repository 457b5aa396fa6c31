"""What is shown to a user as one line."""

from __future__ import annotations

_LONGEST = 2000  # characters of a line


class UserError(Exception):
    """An error whose message says all that there is to say: commands print it in one line, without a trace."""


def printable(text: str) -> str:
    """A text as it may be printed, where a file may have had a say in it: no terminal takes a part for a command.

    What is no printable character is written as its escape, and of a line too long to be read the middle is left out.
    """
    lines = ("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in text.split("\n"))
    half = _LONGEST // 2
    return "\n".join(line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}" for line in lines)


def described(error: Exception) -> str:
    """An error in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
