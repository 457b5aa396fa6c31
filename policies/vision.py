"""Encoders: what a network makes of images before its dense layers.

An observation that ends with an image is [other inputs, image], the image flattened (row by row, colours last) and
from 0 to 1. The image goes through an encoder and the features take its place: [other inputs, features].

    points   convolutions, of which the first two halve the image, then a spatial softmax: of each map the expected
             place (x, y), from -1 to 1. Places say where something is, and a linear layer can take differences of
             them (Levine, Finn, Darrell and Abbeel, "End-to-end training of deep visuomotor policies", JMLR 2016)
    strided  convolutions, each of which halves the image, then a dense layer
    frozen   a function of one's own, which is not trained
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Images = Float[Array, "B H W C"]
Shape = tuple[int, int, int]  # height, width, colours


class Convolution(nn.Module):
    """A convolution with zeros around the image, as far as `SAME` padding has it, and a relu.

    It is a product of patches and weights. On CPUs XLA runs that six times faster inside of loops than what it makes
    of `lax.conv`, and learners are trained in loops.
    """

    channels: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Images of ceil(size / stride)."""
        size, stride = self.size, self.stride
        shape = [-(-length // stride) for length in x.shape[1:3]]
        ends = [(count - 1) * stride + 1 for count in shape]  # of the places of one weight, the last one included
        missing = [max(end + size - 1 - length, 0) for end, length in zip(ends, x.shape[1:3], strict=True)]
        x = jnp.pad(x, ((0, 0), *((count // 2, count - count // 2) for count in missing), (0, 0)))
        shifts = [(i, j) for i in range(size) for j in range(size)]
        patches = [x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i, j in shifts]
        return nn.relu(nn.Dense(self.channels)(jnp.concatenate(patches, axis=-1)))


class Points(nn.Module):
    """Where the features of images are: 2 numbers for each channel of the last convolution."""

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "B n"]:
        """The expected places."""
        x = images
        for i, channels in enumerate(self.channels):
            x = Convolution(channels, 3 if i else 5, 2 if i < 2 else 1, name=f"convolution_{i}")(x)
        temperature = self.param("temperature", nn.initializers.ones, (x.shape[-1],))
        share = jax.nn.softmax((x * temperature).reshape(len(x), -1, x.shape[-1]), axis=1).reshape(x.shape)
        places = [jnp.linspace(-1.0, 1.0, size, dtype=x.dtype) for size in x.shape[1:3]]
        down = jnp.einsum("bhwc,h->bc", share, places[0])
        across = jnp.einsum("bhwc,w->bc", share, places[1])
        return jnp.concatenate([across, down], axis=-1)


class Strided(nn.Module):
    """As many numbers as `features`."""

    channels: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "B n"]:
        """A relu of the dense layer."""
        x = images
        for i, channels in enumerate(self.channels):
            x = Convolution(channels, 3, 2, name=f"convolution_{i}")(x)
        return nn.relu(nn.Dense(self.features, name="dense")(x.reshape(len(x), -1)))


class Frozen(nn.Module):
    """A function (B H W C) -> (B n) that nothing trains."""

    function: Callable[[Images], Float[Array, "B n"]]

    def __call__(self, images: Images) -> Float[Array, "B n"]:
        """What the function gives."""
        return jax.lax.stop_gradient(self.function(images))


class Eyes(nn.Module):
    """Replaces the image at the end of an observation by its features."""

    shape: Shape
    encoder: nn.Module
    closed: bool = False  # images are black, whatever they show

    @property
    def pixels(self) -> int:
        """How many numbers of an observation are the image."""
        return math.prod(self.shape)

    def __call__(self, x: Float[Array, "B n"]) -> Float[Array, "B m"]:
        """[other inputs, features]."""
        rest = x.shape[-1] - self.pixels
        images = x[:, rest:].reshape(-1, *self.shape)
        images = jnp.zeros_like(images) if self.closed else images
        return jnp.concatenate([x[:, :rest], self.encoder(images)], axis=-1)
