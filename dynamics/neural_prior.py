"""A small network of the change of state, trained on past samples, whose linearisation is a prior of the dynamics.

(x' - x) / scale = W z + MLP(z), with z = ((x, u) - mean) / std. Mean, std and scale are those of the data.

Source: Fu, Levine, Abbeel, "One-Shot Learning of Manipulation Skills with Online Dynamics Adaptation and Neural Network
Priors", 2016. There the network is trained before, on other tasks; here on this one, as its samples come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dynamics.prior import moments

HIDDEN = (64, 64)
UPDATES, BATCH, RATE = 1000, 256, 3e-3
RIDGE = 1e-4  # of the output layer, relative to features of variance one


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Network:
    """A model of the change of state."""

    weights: list[Float[Array, "inputs outputs"]]  # of the layers; the last one goes from z to the change directly
    biases: list[Float[Array, " outputs"]]
    mean: Float[Array, " nz"]  # of (x, u)
    std: Float[Array, " nz"]
    scale: Float[Array, " nx"]  # standard deviation of the change

    def change(self, z: Float[Array, " nz"]) -> Float[Array, " nx"]:
        """x' - x after (x, u)."""
        return self.scale * _evaluate(self.weights, self.biases, (z - self.mean) / self.std)

    def slope(self, z: Float[Array, " nz"]) -> Float[Array, "nx nz"]:
        """d(x' - x) / d(x, u)."""
        return jax.jacfwd(self.change)(z)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trained:
    """A network and its optimiser."""

    network: Network
    optimizer_state: Any
    updates: Int[Array, ""]  # so far


def start(key: PRNGKeyArray, nx: int, nu: int) -> Trained:
    """An untrained network: it says that the state does not change."""
    nz = nx + nu
    sizes = (nz, *HIDDEN, nx)
    keys = jax.random.split(key, len(sizes) - 1)
    weights = [
        jax.random.normal(key, (rows, columns)) / jnp.sqrt(rows)
        for key, rows, columns in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    weights[-1] = jnp.zeros_like(weights[-1])
    weights.append(jnp.zeros((nz, nx)))
    biases = [jnp.zeros(size) for size in sizes[1:]]
    network = Network(weights, biases, jnp.zeros(nz), jnp.ones(nz), jnp.ones(nx))
    return Trained(network, _optimizer().init((weights, biases)), updates=jnp.zeros((), jnp.int32))


def train(
    trained: Trained, w: Float[Array, "P nw"], weights: Float[Array, " P"], key: PRNGKeyArray, updates: int = UPDATES
) -> Trained:
    """Supervised updates on transitions w = (x, u, x' - x); a weight of 0 is a transition that does not count.

    A network whose training fails (it is not finite, or nothing counts) stays what it was.
    """
    network = _renormalized(trained.network, w, weights, trained.updates == 0)
    nz = network.mean.size
    inputs, targets = (w[:, :nz] - network.mean) / network.std, w[:, nz:] / network.scale
    # draws are with replacement, from those that count
    cumulative = jnp.cumsum(weights)
    optimizer = _optimizer()

    def loss(parameters, z, target):
        layers, biases = parameters
        predicted = jax.vmap(lambda z: _evaluate(layers, biases, z))(z)
        return ((predicted - target) ** 2).mean()

    def update(carry, turn):
        parameters, optimizer_state = carry
        key, rate = turn
        draw = jax.random.uniform(key, (BATCH,)) * cumulative[-1]
        rows = jnp.clip(jnp.searchsorted(cumulative, draw, side="right"), 0, len(w) - 1)
        gradient = jax.grad(loss)(parameters, inputs[rows], targets[rows])
        change, optimizer_state = optimizer.update(gradient, optimizer_state, parameters)
        parameters = jax.tree.map(lambda old, step: old - rate * step, parameters, change)
        return (parameters, optimizer_state), None

    # each training ends at rest, and the next one starts from there
    rates = RATE * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.arange(updates) / updates))
    settle = partial(_settled, z=inputs, target=targets, share=weights / jnp.maximum(cumulative[-1], 1.0))
    carry: Any = (settle(network.weights, network.biases), trained.optimizer_state)
    carry, _ = jax.lax.scan(update, carry, (jax.random.split(key, updates), rates))
    parameters, optimizer_state = carry
    layers, biases = settle(*parameters)
    network = Network(layers, biases, network.mean, network.std, network.scale)
    result = Trained(network, optimizer_state, trained.updates + updates)
    sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(result)]).all() & (cumulative[-1] > 0)
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), result, trained)


def _optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())


def _evaluate(weights, biases, z):
    return _features(weights, biases, z) @ jnp.concatenate([weights[-2], weights[-1], biases[-1][None]])


def _features(weights, biases, z):
    """What the output is linear in: the last hidden layer, the input, and one."""
    hidden = z
    for layer, bias in zip(weights[:-2], biases[:-1], strict=True):
        hidden = jnp.tanh(hidden @ layer + bias)
    return jnp.concatenate([hidden, z, jnp.ones(1, z.dtype)])


def _settled(weights, biases, z: Float[Array, "P nz"], target: Float[Array, "P nx"], share: Float[Array, " P"]):
    """The network with its output layer by least squares, given its features; RIDGE holds it to what it was."""
    features = jax.vmap(lambda z: _features(weights, biases, z))(z)
    output = jnp.concatenate([weights[-2], weights[-1], biases[-1][None]])
    weighted = features.T * share
    gram = weighted @ features + RIDGE * jnp.eye(features.shape[1], dtype=z.dtype)
    output = output + jax.scipy.linalg.solve(gram, weighted @ (target - features @ output), assume_a="pos")
    hidden = len(weights[-2])
    return [*weights[:-2], output[:hidden], output[hidden:-1]], [*biases[:-1], output[-1]]


def _renormalized(
    network: Network, w: Float[Array, "P nw"], weights: Float[Array, " P"], fresh: Bool[Array, ""]
) -> Network:
    """With mean, std and scale of these data, and, unless fresh, layers such that it still says the same."""
    nz = network.mean.size
    mean, cov = moments(w, weights)
    std = jnp.sqrt(jnp.diagonal(cov))
    rounding = 1e3 * jnp.finfo(w.dtype).eps * jnp.abs(mean)
    std = jnp.where(std > rounding, std, 1.0)
    mean, std, scale = mean[:nz], std[:nz], std[nz:]
    stretch = jnp.where(fresh, 1.0, std / network.std)
    shift = jnp.where(fresh, 0.0, (mean - network.mean) / network.std)
    shrink = jnp.where(fresh, 1.0, network.scale / scale)
    layers, biases = list(network.weights), list(network.biases)
    biases[0] = biases[0] + shift @ layers[0]
    biases[-1] = (biases[-1] + shift @ layers[-1]) * shrink
    layers[0] = stretch[:, None] * layers[0]
    layers[-2] = layers[-2] * shrink
    layers[-1] = stretch[:, None] * layers[-1] * shrink
    return Network(layers, biases, mean, std, scale)
