"""Input normalisation from the statistics of everything seen so far."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST = 1e6  # of an input: what is beyond is a mistake, or a simulation that has diverged


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Normalizer:
    """Running mean and variance of the first n inputs; one that never changed is centred but not scaled.

    Inputs beyond them, such as the pixels of an image, are left as they are.
    """

    count: Float[Array, ""]
    mean: Float[Array, " n"]
    squares: Float[Array, " n"]  # sum of squared deviations from the mean

    @classmethod
    def start(cls, n: int) -> Normalizer:
        """Before anything was seen: the identity."""
        return cls(jnp.zeros(()), jnp.zeros(n), jnp.zeros(n))

    @property
    def scale(self) -> Float[Array, " n"]:
        """Standard deviation of each input, and 1 for one that is constant to rounding."""
        deviation = jnp.sqrt(self.squares / jnp.maximum(self.count, 1e-12))
        constant = deviation <= 1e-5 * (jnp.abs(self.mean) + 1e-3)
        return jnp.where(constant, 1.0, deviation)

    def __call__(self, o: Float[Array, "*b no"]) -> Float[Array, "*b no"]:
        """(o - mean) / scale."""
        n = self.mean.shape[-1]
        if n == o.shape[-1]:
            return (o - self.mean) / self.scale
        return jnp.concatenate([(o[..., :n] - self.mean) / self.scale, o[..., n:]], axis=-1)

    def update(self, o: Float[Array, "P no"], weights: Float[Array, " P"]) -> Normalizer:
        """Take P more observations into account, each as often as its weight says (Chan et al., 1979).

        One that is not `plausible` is left out: it would stay in the statistics for ever.
        """
        counts = plausible(o)
        o, weights = jnp.where(counts[:, None], o[:, : self.mean.shape[-1]], 0.0), jnp.where(counts, weights, 0.0)
        added = weights.sum()
        total = jnp.maximum(self.count + added, 1e-12)
        mean = weights @ o / jnp.maximum(added, 1e-12)
        squares = weights @ (o - mean) ** 2
        shift = mean - self.mean
        return Normalizer(
            self.count + added,
            self.mean + shift * added / total,
            self.squares + squares + shift**2 * self.count * added / total,
        )


def plausible(o: Float[Array, "*b no"]) -> Bool[Array, "*b"]:
    """Whether all numbers of an observation are finite and at most `LARGEST` in size."""
    return (jnp.abs(o) <= LARGEST).all(-1)
