"""The columns of the progress display: a guider names its own, and the training loop adds those that all runs have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One quantity of a row of metrics; of a list, such as a number per condition, the mean is shown."""

    key: str  # in the row
    title: str
    format: str | Callable[[Any], str] = ".3g"  # a format specification for a number, or a function to text
    unit: str = ""
    whole: bool = False  # `format` takes the whole list instead of its mean

    def text(self, row: Mapping[str, Any]) -> str:
        """The value in the row as text, "-" where the row has none."""
        value = row.get(self.key)
        if value is None:
            return "-"
        try:
            numbers = _numbers(value)
            shown = numbers if self.whole else mean(numbers)
            return self.format(shown) if callable(self.format) else format(shown, self.format)
        except (TypeError, ValueError):
            return str(value)  # an unforeseen value must not end a run that took hours


def _numbers(value: Any) -> list[float]:
    """The numbers of a scalar, a list or an array of any size."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [float(value)]


def mean(numbers: Iterable[float]) -> float:
    """The mean of the numbers that there are: a condition without one has NaN."""
    finite = [number for number in numbers if math.isfinite(number)]
    return sum(finite) / len(finite) if finite else math.nan


def short(number: float) -> str:
    """A number with three or four digits that count: 1234, 12.3, 0.0123, 1.2e-05."""
    number = float(number)
    size = abs(number)
    if not math.isfinite(number) or size == 0:
        return f"{number:.0f}"
    if not 1e-3 <= size < 99999.5:
        return f"{number:.1e}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def known(number: float) -> str:
    """As `short`, for a quantity that has no number while a teacher trains."""
    return "-" if math.isnan(number) else short(number)


def span(values: Sequence[float]) -> str:
    """The smallest and the largest of a list: "8.10..20.4"."""
    return f"{short(min(values))}..{short(max(values))}" if len(values) else "-"


def count(number: float) -> str:
    """A large number in four or five characters: 850, 12.8k, 3.4M."""
    number = float(number)
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.1f}{letter}" if abs(number) < 99.95 * size else f"{number / size:.0f}{letter}"
    return f"{number:.0f}"
