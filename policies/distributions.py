"""Distributions over actions, each a small hashable object that reads its numbers from a network's outputs.

What is drawn is a *raw* action u, which `environment` turns into what an environment takes. Densities, ratios and
divergences are those of the raw action: turning it (a tanh, a clip) changes no ratio and no divergence between two
policies. Randomness comes in as `noise` drawn beforehand, and noise times zero gives the mode, so that one function
acts and evaluates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

_LOG_STD = (-5.0, 2.0)  # bounds of a Gaussian's log standard deviation
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_QUADRATURE = tuple(zip(_NODES.tolist(), (_WEIGHTS / _WEIGHTS.sum()).tolist(), strict=True))


class Distribution(Protocol):
    """What policies and losses need; `z` are a network's outputs, whose last axis has `outputs` numbers."""

    @property
    def size(self) -> int:
        """Of the action: numbers, or choices."""
        ...

    @property
    def outputs(self) -> int:
        """Of the network."""
        ...

    @property
    def free(self) -> int:
        """The last of the outputs that do not depend on the observation."""
        ...

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape n"]:
        """The noise that `sample` takes for one draw each."""
        ...

    def sample(self, z: Float[Array, "*b z"], noise: Float[Array, "*b n"]) -> Array:
        """The raw action: a draw, or the mode where the noise is zero."""
        ...

    def environment(self, u: Array) -> Array:
        """What an environment is given for a raw action."""
        ...

    def log_prob(self, z: Float[Array, "*b z"], u: Array) -> Float[Array, "*b"]:
        """Log density (or probability) of raw actions, in nats."""
        ...

    def entropy(self, z: Float[Array, "*b z"]) -> Float[Array, "*b"]:
        """Entropy in nats: of the action after tanh, else of the raw one."""
        ...

    def kl(self, p: Float[Array, "*b z"], q: Float[Array, "*b z"]) -> Float[Array, "*b d"]:
        """KL(p || q) of each independent dimension of the action, in nats; one for a choice."""
        ...


class Continuous(Distribution, Protocol):
    """One over numbers, which trajectory optimisation can be imitated with."""

    def moments(self, z: Float[Array, "*b z"]) -> tuple[Float[Array, "*b nu"], Float[Array, "*b nu"]]:
        """Mean and standard deviation of the raw action."""
        ...

    def action_moments(self, z: Float[Array, "*b z"]) -> tuple[Float[Array, "*b nu"], Float[Array, "*b nu"]]:
        """Mean and standard deviation of the environment's action, to first order in the noise."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """u ~ N(mean(o), diag(std)^2) with the same std for every observation; environments get it clipped to [-1, 1]."""

    size: int

    @property
    def outputs(self) -> int:
        return 2 * self.size

    @property
    def free(self) -> int:
        return self.size

    def noise(self, key, shape):
        return jax.random.normal(key, (*shape, self.size))

    def sample(self, z, noise):
        mean, std = self.moments(z)
        return mean + std * noise

    def environment(self, u):
        return jnp.clip(u, -1.0, 1.0)

    def log_prob(self, z, u):
        return _normal_log_prob(*self.moments(z), u)

    def entropy(self, z):
        return _normal_entropy(self.moments(z)[1])

    def kl(self, p, q):
        return _normal_kl(self.moments(p), self.moments(q))

    def moments(self, z):
        mean, log_std = jnp.split(z, 2, axis=-1)
        return mean, jnp.exp(jnp.clip(log_std, *_LOG_STD))

    def action_moments(self, z):
        """As if there were no limits: a controller's actions are clipped by the simulator likewise."""
        return self.moments(z)


@dataclass(frozen=True)
class TanhGaussian:
    """tanh(u) with u ~ N(mean(o), diag(softplus(scale(o)) + 1e-3)^2): always inside (-1, 1)."""

    size: int
    free = 0

    @property
    def outputs(self) -> int:
        return 2 * self.size

    def noise(self, key, shape):
        return jax.random.normal(key, (*shape, self.size))

    def sample(self, z, noise):
        mean, std = self.moments(z)
        return mean + std * noise

    def environment(self, u):
        return jnp.tanh(u)

    def log_prob(self, z, u):
        return _normal_log_prob(*self.moments(z), u)

    def entropy(self, z):
        """That of the Gaussian plus E log |d tanh / du|, the latter by Gauss-Hermite quadrature of five nodes."""
        mean, std = self.moments(z)
        slope = sum(weight * _log_tanh_slope(mean + node * std) for node, weight in _QUADRATURE)
        return _normal_entropy(std) + jnp.asarray(slope).sum(-1)

    def kl(self, p, q):
        return _normal_kl(self.moments(p), self.moments(q))

    def moments(self, z):
        mean, scale = jnp.split(z, 2, axis=-1)
        return mean, jax.nn.softplus(scale) + 1e-3

    def action_moments(self, z):
        mean, std = self.moments(z)
        return jnp.tanh(mean), jnp.exp(_log_tanh_slope(mean)) * std


@dataclass(frozen=True)
class Categorical:
    """One of `size` choices by the logits z; the noise is Gumbel's, so that a draw is an argmax."""

    size: int
    free = 0

    @property
    def outputs(self) -> int:
        return self.size

    def noise(self, key, shape):
        return jax.random.gumbel(key, (*shape, self.size))

    def sample(self, z, noise):
        return jnp.argmax(z + noise, axis=-1).astype(jnp.int32)

    def environment(self, u):
        return u

    def log_prob(self, z, u):
        chosen = jnp.arange(self.size) == u[..., None]  # a mask, not a gather: CPUs scatter its gradient slowly
        return jnp.where(chosen, jax.nn.log_softmax(z), 0.0).sum(-1)

    def entropy(self, z):
        log_p = jax.nn.log_softmax(z)
        return -(jnp.exp(log_p) * log_p).sum(-1)

    def kl(self, p, q):
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        return (jnp.exp(log_p) * (log_p - log_q)).sum(-1, keepdims=True)


def _normal_log_prob(mean: Array, std: Array, u: Array) -> Array:
    return (-0.5 * ((u - mean) / std) ** 2 - jnp.log(std)).sum(-1) - 0.5 * u.shape[-1] * np.log(2 * np.pi)


def _normal_entropy(std: Array) -> Array:
    return jnp.log(std).sum(-1) + 0.5 * std.shape[-1] * np.log(2 * np.pi * np.e)


def _normal_kl(p: tuple[Array, Array], q: tuple[Array, Array]) -> Array:
    ratio = p[1] / q[1]
    return 0.5 * (ratio**2 + ((p[0] - q[0]) / q[1]) ** 2 - 1.0) - jnp.log(ratio)


def _log_tanh_slope(u: Array) -> Array:
    """log (1 - tanh(u)^2), which does not overflow for large u."""
    return 2.0 * (np.log(2.0) - u - jax.nn.softplus(-2.0 * u))
