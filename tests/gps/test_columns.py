"""The columns of the progress display, and how numbers are written."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from gps.columns import Column, count, known, short, span


def test_a_column_shows_the_mean_of_a_list_or_the_list():
    row = {"cost": jnp.array([[1.0, jnp.nan], [2.0, 6.0]]), "few": [np.float32(2.0), 4], "none": np.full(2, np.nan)}
    assert Column("cost", "cost", short).text(row) == "3.00"  # a condition without a number does not count
    assert Column("few", "few", ".1f").text(row) == "3.0"
    assert Column("few", "few", span, whole=True).text(row) == "2.00..4.00"
    assert Column("none", "none", short).text(row) == "nan"
    assert Column("none", "none", known).text(row) == "-"


def test_what_has_no_number_is_shown_as_it_is():
    row = {"nothing": None, "text": "kept", "number": jnp.float32(0.25)}
    columns = [Column(name, name, ".2f").text(row) for name in ("nothing", "missing", "text", "number")]
    assert columns == ["-", "-", "kept", "0.25"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (1234.5, "1234"),
        (99999.4, "99999"),
        (99999.5, "1.0e+05"),
        (12.345, "12.3"),
        (-1.5, "-1.50"),
        (0.001, "0.00100"),
        (0.000999, "1.0e-03"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (np.float32(0.25), "0.250"),
    ],
)
def test_short(number, text):
    assert short(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (850, "850"), (12800, "12.8k"), (99_960, "100k"), (1e6, "1.0M"), (3.45e9, "3.5G"), (-2000, "-2.0k")],
)
def test_count(number, text):
    assert count(number) == text


def test_span():
    assert span([3.0, -1.0, 2.0]) == "-1.00..3.00"
    assert span(jnp.array([5.0])) == "5.00..5.00"
    assert span([]) == "-"
