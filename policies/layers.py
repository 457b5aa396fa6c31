"""The layers that networks are made of: dense ones by a product that CPUs are fast at, a GRU, and a linear head."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@jax.custom_vjp
def product(x: Float[Array, "B n"], w: Float[Array, "n m"]) -> Float[Array, "B m"]:
    """x w, whose gradient in w is computed from a transposed copy of x: CPUs are faster so, by more than the copy."""
    return x @ w


def _product_back(inputs, change):
    x, w = inputs
    return change @ w.T, jax.lax.optimization_barrier(x.T) @ change


product.defvjp(lambda x, w: (x @ w, (x, w)), _product_back)


def multiply(x, w, *_, **__):
    """`product` as flax's dense layers call it, with dimensions that are always those of two matrices."""
    return product(x, w)


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al., 2014; reset gate after the product, as in cuDNN)."""

    width: int

    @nn.compact
    def __call__(
        self, h: Float[Array, "B H"], x: Float[Array, "L B n"], first: Bool[Array, "L B"]
    ) -> Float[Array, "L B H"]:
        """The memory after each step; it is zero before a step that is the first of an episode."""
        # the input's share of all gates in one product outside the loop
        gates = nn.Dense(3 * self.width, name="input", dot_general=multiply)(x.reshape(-1, x.shape[-1]))
        gates = jnp.split(gates.reshape(*x.shape[:2], -1), 3, axis=-1)
        recurrent = self.param("recurrent", nn.initializers.orthogonal(), (self.width, 3 * self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        keep = jnp.where(first, 0.0, 1.0)[..., None]
        return _recur(h, gates, keep, jnp.split(recurrent, 3, axis=-1), bias)


# The recurrence keeps its three gates in arrays of their own: on CPUs XLA vectorises a loop's body only where it does
# not cut arrays along their last axis. Three small products instead of one cost less than that.


@jax.custom_vjp
def _recur(h, gates, keep, recurrent, bias) -> Float[Array, "L B H"]:
    """The memories of a GRU, from the input's shares of the gates r, z, n and the weights of the memory in each."""
    return _recur_forward(h, gates, keep, recurrent, bias)[0]


def _recur_forward(h, gates, keep, recurrent, bias):
    def step(h, inputs):
        (gate_r, gate_z, gate_n), keep = inputs
        h = keep * h
        r = nn.sigmoid(gate_r + h @ recurrent[0])
        z = nn.sigmoid(gate_z + h @ recurrent[1])
        share = h @ recurrent[2] + bias
        n = nn.tanh(gate_n + r * share)
        h = z * h + (1.0 - z) * n
        return h, (h, r, z, n, share)

    hs, *opened = jax.lax.scan(step, h, (gates, keep))[1]
    return hs, (h, keep, recurrent, hs, opened)


def _recur_back(saved, changes):
    """The loop backwards carries the gradient in h and no more; all else is computed for all steps at once."""
    h, keep, recurrent, hs, (r, z, n, share) = saved
    before = keep * jnp.concatenate([h[None], hs[:-1]])
    slope = (1.0 - z) * (1.0 - n**2)
    # how the three shares of the memory in the gates change the next memory
    slopes = [slope * share * r * (1.0 - r), (before - n) * z * (1.0 - z), slope * r]
    slopes, transposed = jax.lax.optimization_barrier((slopes, [w.T for w in recurrent]))

    def step(change, inputs):
        own, slopes, z, keep = inputs
        change = change + own
        through = sum((change * slope) @ w for slope, w in zip(slopes, transposed, strict=True))
        return keep * (change * z + through), change

    start, changes = jax.lax.scan(step, jnp.zeros_like(h), (changes, slopes, z, keep), reverse=True)
    shares = [changes * slope for slope in slopes]
    inputs = jax.lax.optimization_barrier(before.reshape(-1, h.shape[-1]).T)
    weights = [inputs @ share.reshape(-1, h.shape[-1]) for share in shares]
    return start, [*shares[:2], changes * slope], jnp.zeros_like(keep), weights, shares[2].sum((0, 1))


_recur.defvjp(_recur_forward, _recur_back)


class Head(nn.Module):
    """Outputs that are linear in what the layers before make of an input; the last `free` are the same for all."""

    outputs: int
    free: int
    scale: float  # variance of the initial weights, relative to 1 / fan-in

    @nn.compact
    def __call__(self, x: Float[Array, "B n"]) -> Float[Array, "B outputs"]:
        weights = nn.initializers.variance_scaling(self.scale, "fan_in", "truncated_normal")
        z = nn.Dense(self.outputs - self.free, kernel_init=weights, name="head", dot_general=multiply)(x)
        if self.free:
            constant = self.param("free", nn.initializers.zeros, (self.free,))
            z = jnp.concatenate([z, jnp.broadcast_to(constant, (*z.shape[:-1], self.free))], axis=-1)
        return z
