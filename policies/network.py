"""Networks over sequences of observations, with or without a memory, and the policy that acts by one.

    x --> [eyes] --> dense layers --> [GRU, whose memory h is zero where an episode begins] --> head --> z
            side --^  what only a guider sees, added to what the first layer makes of x

A network is applied to whole sequences, time leading; a step is a sequence of length one. The dense layers and the
head see all time steps at once, only the recurrence itself is a loop.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from policies.distributions import Continuous, Distribution
from policies.layers import GRU, Head, multiply
from policies.normalize import Normalizer
from policies.vision import Eyes

ACTIVATIONS = {"tanh": nn.tanh, "silu": nn.silu, "relu": nn.relu}
HEAD = ("head", "free")  # names of the head's parameters
_SPREAD = nn.initializers.orthogonal(2**0.5)  # initial weights of dense layers


class Network(nn.Module):
    """Dense layers, an optional GRU, and a linear head.

    The head (its parameters are `HEAD`) can be another network's: `decode` is the head, `run` may leave it out.
    """

    hidden: tuple[int, ...]  # widths of the dense layers, of which there is at least one
    outputs: int
    memory: int = 0  # width of the GRU; 0 for a network without memory
    activation: str = "tanh"
    free: int = 0  # the last of the outputs are parameters that no input changes
    head_scale: float = 0.01  # variance of the head's initial weights, relative to 1 / fan-in
    eyes: Eyes | None = None  # what makes features of the image at the end of x, if there is one

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "B H"],
        x: Float[Array, "L B n"],
        first: Bool[Array, "L B"],
        side: Float[Array, "L B s"] | None = None,
        decode: bool = True,
    ) -> tuple[Float[Array, "L B H"], Float[Array, "L B z"]]:
        """Memory after each step, and outputs; without `decode`, the features that the head would read."""
        act = ACTIVATIONS[self.activation]
        steps = x.shape[:2]
        x = x.reshape(-1, x.shape[-1])  # XLA multiplies plain matrices faster, above all in gradients
        x = self.eyes(x) if self.eyes else x
        for i, width in enumerate(self.hidden):
            name = f"dense_{i}" if i else "input"
            x = nn.Dense(width, kernel_init=_SPREAD, dot_general=multiply, name=name)(x)
            if not i and side is not None:
                added = side.reshape(-1, side.shape[-1])
                x = x + nn.Dense(width, False, kernel_init=_SPREAD, dot_general=multiply, name="side")(added)
            x = act(x)
        hs = jnp.zeros((*steps, 0))
        if self.memory:
            hs = GRU(self.memory)(h, x.reshape(*steps, -1), first)
            x = hs.reshape(-1, self.memory)
        if decode:
            head = Head(self.outputs, self.free, self.head_scale)
            nn.share_scope(self, head)  # its parameters stand beside those of the other layers
            x = head(x)
        return hs, x.reshape(*steps, -1)

    def run(
        self,
        params: Any,
        h: Float[Array, "B H"],
        x: Float[Array, "L B n"],
        first: Bool[Array, "L B"],
        side: Float[Array, "L B s"] | None = None,
        decode: bool = True,
    ) -> tuple[Float[Array, "L B H"], Float[Array, "L B z"]]:
        """As `__call__`, with these parameters; those of the head are needed to `decode` alone."""
        return cast(tuple[Array, Array], self.apply(params, h, x, first, side, decode))

    def decode(self, params: Any, features: Float[Array, "*b f"]) -> Float[Array, "*b outputs"]:
        """What the head makes of features."""
        head = Head(self.outputs, self.free, self.head_scale, parent=None)
        z = cast(Array, head.apply(params, features.reshape(-1, features.shape[-1])))
        return z.reshape(*features.shape[:-1], -1)

    def start(self, key: PRNGKeyArray, inputs: int, side: int = 0) -> Any:
        """Fresh parameters, in JAX's default precision; those of x are the same with and without side inputs."""
        one = [jnp.zeros((1, 1, size)) for size in (inputs, side)]
        params = self.init(key, jnp.zeros((1, self.memory)), one[0], jnp.zeros((1, 1), bool), one[1] if side else None)
        return jax.tree.map(lambda p: p.astype(float), params)

    def start_normalizer(self, inputs: int) -> Normalizer:
        """Before anything was seen, of inputs that end with an image where the network has eyes."""
        return Normalizer.start(inputs - (self.eyes.pixels if self.eyes else 0))

    @staticmethod
    def without_side(params: Any) -> Any:
        """The parameters that someone has who does not see the side inputs."""
        return {"params": {name: layer for name, layer in params["params"].items() if name != "side"}}

    @staticmethod
    def without_head(params: Any) -> Any:
        """The parameters of all but the head."""
        return {"params": {name: layer for name, layer in params["params"].items() if name not in HEAD}}

    @staticmethod
    def with_head(params: Any, other: Any) -> Any:
        """These parameters with the head of others."""
        head = {name: layer for name, layer in other["params"].items() if name in HEAD}
        return {"params": {**params["params"], **head}}

    @staticmethod
    def with_blind_side(params: Any, side: int) -> Any:
        """Parameters for `side` side inputs that are not looked at."""
        layers = params["params"]
        kernel = layers["input"]["kernel"]
        return {"params": {**layers, "side": {"kernel": jnp.zeros((side, kernel.shape[1]), kernel.dtype)}}}

    @staticmethod
    def rescaled(params: Any, old: Normalizer, new: Normalizer) -> Any:
        """Parameters with which inputs by the new normaliser give what the old one's gave.

        The first layer takes up the change: W' = W s'/s and b' = b + W (m' - m)/s.
        """
        layers = params["params"]
        first = layers["input"]
        own, features = jnp.split(first["kernel"], old.mean.shape)  # of inputs that are normalised, and of others
        kernel = jnp.concatenate([own * (new.scale / old.scale)[:, None], features])
        bias = first["bias"] + ((new.mean - old.mean) / old.scale) @ own
        return {"params": {**layers, "input": {"kernel": kernel, "bias": bias}}}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NetworkPolicy:
    """A policy pi(u | o_0 .. o_t): a network of normalised observations, whose outputs a distribution reads."""

    network: Network = field(metadata={"static": True})
    distribution: Distribution = field(metadata={"static": True})
    params: Any
    normalizer: Normalizer

    @classmethod
    def start(cls, key: PRNGKeyArray, network: Network, distribution: Distribution, no: int) -> NetworkPolicy:
        """A fresh policy for observations of size `no`."""
        return cls(network, distribution, network.start(key, no), network.start_normalizer(no))

    def start_memory(self) -> Float[Array, " H"]:
        """What it remembers before an episode."""
        return jnp.zeros(self.network.memory)

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, "*shape n"]:
        """The noise for actions; zero gives the mode."""
        return self.distribution.noise(key, shape)

    def act(
        self, memory: Float[Array, " H"], o: Float[Array, " no"], noise: Float[Array, " n"]
    ) -> tuple[Float[Array, " H"], Array]:
        """One step for one observation: what it remembers after it, and the environment's action."""
        memory, z = self._step(memory, o)
        return memory, self.distribution.environment(self.distribution.sample(z, noise))

    def moments(self, memory: Float[Array, " H"], o: Float[Array, " no"]) -> tuple[Array, Array, Array]:
        """One step likewise: what it remembers after it, and mean and standard deviation (nu) of its action."""
        memory, z = self._step(memory, o)
        return memory, *cast(Continuous, self.distribution).action_moments(z)

    def _step(self, memory: Float[Array, " H"], o: Float[Array, " no"]) -> tuple[Array, Array]:
        x = self.normalizer(o)[None, None]
        memories, z = self.network.run(self.params, memory[None], x, jnp.zeros((1, 1), bool))
        return memories[0, 0], z[0, 0]

    def along(self, o: Float[Array, "*b T no"]) -> Float[Array, "*b T z"]:
        """The network's outputs along whole episodes, memory and all."""
        batch, (T, no) = o.shape[:-2], o.shape[-2:]
        x = jnp.swapaxes(self.normalizer(o).reshape(-1, T, no), 0, 1)
        first = jnp.broadcast_to((jnp.arange(T) == 0)[:, None], x.shape[:2])
        _, z = self.network.run(self.params, jnp.zeros((x.shape[1], self.network.memory)), x, first)
        return jnp.swapaxes(z, 0, 1).reshape(*batch, T, -1)

    def mean(self, o: Float[Array, " no"]) -> Float[Array, " nu"]:
        """The mean action of a policy without memory, for one observation; see `Continuous.action_moments`."""
        return cast(Continuous, self.distribution).action_moments(self.along(o[None])[0])[0]

    def renormalized(self, normalizer: Normalizer) -> NetworkPolicy:
        """The same function of the observation with other input statistics.

        So a normaliser can follow the data without disturbing what was learned.
        """
        params = self.network.rescaled(self.params, self.normalizer, normalizer)
        return dataclasses.replace(self, params=params, normalizer=normalizer)

    def with_eyes_closed(self) -> NetworkPolicy:
        """The same policy, to whom every image is black: what it then does it has learned without seeing.

        Errors:
            ValueError where it has no eyes.
        """
        if self.network.eyes is None:
            raise ValueError("it sees no images")
        return dataclasses.replace(self, network=self.network.clone(eyes=self.network.eyes.clone(closed=True)))

    def with_std(self, std: Float[Array, " nu"]) -> NetworkPolicy:
        """The same mean actions with this standard deviation, where it is a parameter of its own (`free` outputs)."""
        layers = {**self.params["params"], "free": jnp.log(std)}
        return dataclasses.replace(self, params={"params": layers})
