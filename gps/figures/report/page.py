"""One HTML file: page.html with its style, its script, plotly and the report in it.

The report is JSON, packed like plotly by gzip and base 85: no byte of a run is markup, and page.js puts names and texts
into the page as text. The page's own security policy lets it load nothing from anywhere.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from importlib import resources
from typing import Any

from gps.errors import UserError, not_installed


def page(title: str, report: dict[str, Any]) -> str:
    """The text of the file.

    Args:
        title: of the page.
        report: what page.js draws: `facts`, `notes`, `axes` and `sections`.

    Errors:
        UserError where plotly is not installed; ValueError for numbers that JSON can not hold.
    """
    own = resources.files("gps.figures.report")
    parts = {
        "title": html.escape(title),
        "style": own.joinpath("page.css").read_text("utf-8"),
        "script": own.joinpath("page.js").read_text("utf-8"),
        "plotly": packed(_plotly()),
        "report": packed(json.dumps(report, allow_nan=False, separators=(",", ":"))),
    }
    template = own.joinpath("page.html").read_text("utf-8")
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], template)


def packed(text: str) -> str:
    """A text by gzip and base 85, the same each time, in the letters of Python's `base64` but for "<", which is ","."""
    return base64.b85encode(gzip.compress(text.encode(), mtime=0)).decode().replace("<", ",")


def unpacked(letters: str) -> str:
    """The inverse of `packed`."""
    return gzip.decompress(base64.b85decode(letters.replace(",", "<"))).decode()


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs  # 0.1 s
    except ImportError as error:
        raise UserError(not_installed("a report", "plotly", "report")) from error
    return get_plotlyjs()
