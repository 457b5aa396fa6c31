"""The supervised step: regression of a policy's mean on target actions, weighted by their precision.

    minimise  mean over points of 1/2 w (mu(o) - u)' P (mu(o) - u)

with observations o (P no), target actions u (P nu), precisions P (P nu nu) and weights w (P).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from policies.mlp import GaussianPolicy


@dataclass(frozen=True)
class Settings:
    """How a policy is trained in one supervised step."""

    learning_rate: float = 3e-3  # of Adam, at the start of each step; falls to a tenth by its end
    updates: int = 160  # gradient updates in one supervised step
    batch_size: int = 256  # points in a minibatch
    gradient_norm: float = 10.0  # largest global norm of a gradient

    def __post_init__(self):
        for name in ("learning_rate", "updates", "batch_size", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """What a policy is to imitate. Points with weight 0 do not count (their values must be finite)."""

    observations: Float[Array, "P no"]
    actions: Float[Array, "P nu"]
    precisions: Float[Array, "P nu nu"]
    weights: Float[Array, " P"]


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Adam with clipped gradients; its learning rate is set by `fit` at each update."""
    return optax.chain(optax.clip_by_global_norm(settings.gradient_norm), optax.scale_by_adam())


def fit(
    policy: GaussianPolicy, memory: Any, targets: Targets, key: PRNGKeyArray, settings: Settings
) -> tuple[GaussianPolicy, Any, Float[Array, ""]]:
    """Train the policy's mean for `settings.updates` minibatches inside one scan.

    Precisions are scaled to a mean weight of one first, so that the loss and its gradients keep their size
    while controllers grow certain. Its standard deviation and normaliser are left alone.

    Args:
        policy: what to train.
        memory: state of `optimizer(settings)`, kept from step to step.
        targets: what to imitate.
        key: for the minibatches.

    Returns:
        The trained policy, the optimiser's state, and the mean loss over the last tenth of the updates.
    """
    count = len(targets.weights)
    size = min(settings.batch_size, count)
    strength = targets.weights * jnp.trace(targets.precisions, axis1=-2, axis2=-1)
    metric = targets.precisions * (targets.weights / jnp.maximum(strength.mean(), 1e-20))[:, None, None]
    metric = metric * targets.actions.shape[-1]
    inputs = policy.normalizer(targets.observations)
    per_pass = count // size
    passes = -(-settings.updates // per_pass)
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(key, passes))
    batches = orders[:, : per_pass * size].reshape(-1, size)[: settings.updates]
    progress = jnp.arange(settings.updates) / settings.updates
    rates = settings.learning_rate * (0.1 + 0.9 * 0.5 * (1 + jnp.cos(jnp.pi * progress)))
    adam = optimizer(settings)

    def loss(params, batch):
        error = jnp.asarray(policy.network.apply(params, inputs[batch])) - targets.actions[batch]
        return 0.5 * jnp.einsum("pi,pij,pj->p", error, metric[batch], error).mean()

    def update(carry, step):
        params, memory = carry
        batch, rate = step
        value, gradient = jax.value_and_grad(loss)(params, batch)
        change, memory = adam.update(gradient, memory, params)
        params = jax.tree.map(lambda p, d: p - rate * d, params, change)
        return (params, memory), value

    (params, memory), losses = jax.lax.scan(update, (policy.params, memory), (batches, rates))
    return dataclasses.replace(policy, params=params), memory, losses[-max(1, settings.updates // 10) :].mean()
