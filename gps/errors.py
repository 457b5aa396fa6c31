"""What is shown to a user, line by line."""

from __future__ import annotations

_LONGEST = 2000  # characters of a line


class UserError(Exception):
    """An error whose message says all that there is to say: commands print it without a trace.

    Each argument is a line, of which there is one where not several things are to be said.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def not_installed(who: str, package: str, extra: str, more: str = "") -> str:
    """The message where something needs a package of one of our extras."""
    return f"{who} needs {package}, which is not installed: pip install 'guided-policy-search[{extra}]'{more}"


def printable(line: str) -> str:
    """A line as it may be printed, where a file may have had a say in it: no terminal takes a part for a command.

    What is no printable character, a line break among them, is written as its escape, and of a line too long to be read
    the middle is left out.
    """
    line, half = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


def described(error: Exception) -> str:
    """An error in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
