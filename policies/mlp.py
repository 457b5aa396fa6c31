"""A Gaussian policy whose mean is a multi-layer perceptron of the normalised observation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from policies.normalize import Normalizer


class MLP(nn.Module):
    """Dense layers with tanh between them; the last layer starts small, so that first actions are near zero."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b n"]) -> Float[Array, "*b outputs"]:
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.variance_scaling(0.01, "fan_in", "normal"))(x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianPolicy:
    """pi(u | o) = N(network(normalised o), diag(std)^2)."""

    network: MLP = field(metadata={"static": True})
    params: Any  # of the network
    normalizer: Normalizer
    std: Float[Array, " nu"]  # the same for every observation

    @classmethod
    def start(cls, key: PRNGKeyArray, no: int, nu: int, hidden: tuple[int, ...], std: float) -> GaussianPolicy:
        """A fresh policy for observations of size `no` and actions of size `nu`."""
        network = MLP(tuple(hidden), nu)
        return cls(network, network.init(key, jnp.zeros(no)), Normalizer.start(no), jnp.full(nu, std, float))

    def mean(self, o: Float[Array, "*b no"]) -> Float[Array, "*b nu"]:
        """Mean action for an observation."""
        return jnp.asarray(self.network.apply(self.params, self.normalizer(o)))

    def start_memory(self) -> Float[Array, "0"]:
        """What it remembers before an episode: nothing."""
        return jnp.zeros(0)

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, "*shape nu"]:
        """The noise for actions; zero gives the mean."""
        return jax.random.normal(key, (*shape, *self.std.shape))

    def act(
        self, memory: Float[Array, "0"], o: Float[Array, " no"], noise: Float[Array, " nu"]
    ) -> tuple[Float[Array, "0"], Float[Array, " nu"]]:
        """One step for one observation: its memory, which stays empty, and an action."""
        return memory, self.sample(o, noise)

    def sample(self, o: Float[Array, "*b no"], noise: Float[Array, "*b nu"]) -> Float[Array, "*b nu"]:
        """Action for an observation and standard normal noise."""
        return self.mean(o) + self.std * noise

    def renormalized(self, normalizer: Normalizer) -> GaussianPolicy:
        """The same function of the observation with other input statistics.

        The first layer takes up the change, so that a normaliser that follows the data does not disturb
        what was learned: W' = W s'/s and b' = b + W (m' - m)/s.
        """
        layers = self.params["params"]
        first = layers["Dense_0"]
        old, new = self.normalizer, normalizer
        kernel = first["kernel"] * (new.scale / old.scale)[:, None]
        bias = first["bias"] + ((new.mean - old.mean) / old.scale) @ first["kernel"]
        params = {"params": {**layers, "Dense_0": {"kernel": kernel, "bias": bias}}}
        return dataclasses.replace(self, params=params, normalizer=normalizer)
