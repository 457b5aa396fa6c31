"""Points of a cube, of which tasks make the contexts to train and to test on; the same in every process."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

TRIES = 200  # hypercubes that `spread` looks at


def spread(count: int, size: int) -> Float[np.ndarray, "count size"]:
    """Points in [-1, 1]^size, each coordinate evenly spaced over them (a Latin hypercube), the first one in order.

    Of many such the one is taken in which no two coordinates go together, as correlations say.
    """
    generator = np.random.default_rng(20150501)
    first = np.arange(count)

    def cube():
        return np.stack([first, *(generator.permutation(count) for _ in range(1, size))], axis=1)

    def correlation(orders):
        centred = orders - orders.mean(0)
        products = np.abs(centred.T @ centred)
        return np.triu(products, 1).max()

    best = min((cube() for _ in range(TRIES)), key=correlation)
    return (2.0 * best + 1.0) / count - 1.0


def drawn(count: int, size: int) -> Float[np.ndarray, "count size"]:
    """Points drawn uniformly from [-1, 1]^size; a smaller count gives the first of them."""
    return np.random.default_rng(20150501).uniform(-1.0, 1.0, (count, size))
