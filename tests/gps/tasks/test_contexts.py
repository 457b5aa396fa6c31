"""The points that contexts are made of."""

import numpy as np
import pytest

from gps.tasks import contexts


@pytest.mark.parametrize("size", [1, 4])
def test_spread_points_have_evenly_spaced_coordinates_in_different_orders(size):
    points = contexts.spread(8, size)
    np.testing.assert_allclose(np.sort(points, axis=0), np.tile(np.linspace(-0.875, 0.875, 8)[:, None], size))
    assert np.abs(np.corrcoef(points.T) - np.eye(size)).max() < 0.35
    np.testing.assert_array_equal(contexts.spread(8, size), points)


def test_fewer_drawn_points_are_the_first_ones():
    many = contexts.drawn(200, 3)
    np.testing.assert_array_equal(contexts.drawn(5, 3), many[:5])
    assert np.abs(many.mean(0)).max() < 0.15
    assert 0.98 < np.abs(many).max() <= 1.0
