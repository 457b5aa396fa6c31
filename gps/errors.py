"""What is shown to a user as one line."""

from __future__ import annotations


class UserError(Exception):
    """An error whose message says all that there is to say: commands print it in one line, without a trace."""
