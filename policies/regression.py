"""Supervised training: a policy's actions are regressed on target actions, weighted by their precision.

    minimise  mean over steps of 1/2 w (mu(o) - u)' P (mu(o) - u)

with the policy's mean action mu, observations o, target actions u, their precisions P and weights w. A policy without
memory is trained on single steps, one with memory on whole episodes. The policy's standard deviation s minimises the
rest of the weighted KL(pi || N(u, P^-1)), 1/2 s' diag(P) s - sum log s: in closed form where it is the same for every
observation, else as another term of the loss.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.minimisers import LBFGS
from policies.distributions import Continuous
from policies.network import NetworkPolicy

OPTIMIZERS = ("adam", "lbfgs")
_LARGEST_STD = 5.0


@dataclass(frozen=True)
class Settings:
    """How a policy is trained in one supervised step."""

    # "adam", on minibatches; or "lbfgs", on everything at once, for small networks and few samples, as early guided
    # policy search had it: `updates` are then its iterations at most, and the next three numbers do not count
    optimizer: str = "adam"
    updates: int = 160  # gradient updates in one supervised step
    learning_rate: float = 3e-3  # of Adam, at the start of each step; falls to a tenth by its end
    batch_size: int = 256  # steps in a minibatch; with memory, as many whole episodes as they make
    gradient_norm: float = 10.0  # largest global norm of a gradient
    std_floor: float = 0.02  # smallest standard deviation of an action

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        for name in ("learning_rate", "updates", "batch_size", "gradient_norm", "std_floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """What a policy is to imitate in E episodes. Steps with weight 0 do not count (their values must be finite)."""

    observations: Float[Array, "E T no"]
    actions: Float[Array, "E T nu"]  # behind a tanh in [-1, 1]
    precisions: Float[Array, "E T nu nu"]
    weights: Float[Array, "E T"]


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Adam with clipped gradients; its learning rate is set by `fit` at each update."""
    return optax.chain(optax.clip_by_global_norm(settings.gradient_norm), optax.scale_by_adam())


def fit(
    policy: NetworkPolicy, optimizer_state: Any, targets: Targets, key: PRNGKeyArray, settings: Settings
) -> tuple[NetworkPolicy, Any, Float[Array, ""]]:
    """Train a policy on minibatches inside one scan, or by L-BFGS, in the precision of its parameters.

    Precisions are scaled to a mean weight of one first, so that the loss and its gradients keep their size
    while controllers grow certain. The policy's normaliser is left alone.

    Args:
        policy: what to train; its distribution is `Continuous`.
        optimizer_state: of `optimizer(settings)`, kept from step to step; L-BFGS starts anew each time.
        targets: what to imitate.
        key: for the minibatches.

    Returns:
        The trained policy, the optimiser's state, and the mean loss over the last tenth of the updates, or the last.
    """
    distribution = cast(Continuous, policy.distribution)
    dtype = jax.tree.leaves(policy.params)[0].dtype
    targets = jax.tree.map(lambda x: x.astype(dtype), targets)
    data, length = _sequences(policy, targets, settings.std_floor)
    first = (jnp.arange(length) == 0)[:, None]

    def loss(params, batch):
        batch = {name: jnp.swapaxes(values, 0, 1) for name, values in batch.items()}  # time leads
        count = batch["weights"].shape[1]
        start = jnp.zeros((count, policy.network.memory), dtype)
        _, z = policy.network.run(params, start, batch["inputs"], jnp.broadcast_to(first, (length, count)))
        mean, std = distribution.action_moments(z)
        error = mean - batch["actions"]
        value = 0.5 * jnp.einsum("tpi,tpij,tpj->tp", error, batch["metric"], error).mean()
        if not distribution.free:
            raw = distribution.moments(z)[1]
            std = raw * jax.lax.stop_gradient(std / raw)  # so that no mean moves to where the tanh is flat
            spread = 0.5 * std**2 * batch["certainty"] - jnp.log(std)
            value = value + (batch["weights"][..., None] * spread).sum(-1).mean()
        return value

    if settings.optimizer == "lbfgs":
        params, value = _lbfgs(loss, policy.params, data, settings)
    else:
        params, optimizer_state, value = _adam(loss, policy.params, optimizer_state, data, key, settings)
    policy = dataclasses.replace(policy, params=params)
    if distribution.free:
        counted = targets.weights.sum() > 0
        fitted = policy.with_std(_constant_std(targets, settings.std_floor))
        policy = jax.tree.map(lambda new, old: jnp.where(counted, new, old), fitted, policy)
    return policy, optimizer_state, value


def _adam(loss, params, optimizer_state, data, key, settings: Settings) -> tuple[Any, Any, Array]:
    """Minimise the loss on minibatches."""
    count, length = data["weights"].shape
    orders = _minibatches(count, max(1, settings.batch_size // length), settings.updates, key)
    progress = jnp.arange(settings.updates) / settings.updates
    rates = settings.learning_rate * (0.1 + 0.9 * 0.5 * (1 + jnp.cos(jnp.pi * progress)))
    adam = optimizer(settings)

    def update(carry, step):
        params, state = carry
        chosen, rate = step
        batch = {name: values[chosen] for name, values in data.items()}
        value, gradient = jax.value_and_grad(loss)(params, batch)
        change, state = adam.update(gradient, state, params)
        params = jax.tree.map(lambda p, d: p - rate * d, params, change)
        return (params, state), value

    steps = (orders, rates.astype(data["weights"].dtype))
    (params, optimizer_state), losses = jax.lax.scan(update, (params, optimizer_state), steps)
    return params, optimizer_state, losses[-max(1, settings.updates // 10) :].mean()


def _lbfgs(loss, params, data, settings: Settings) -> tuple[Any, Array]:
    """Minimise the loss on all data, until its gradient is small or no step lowers it."""
    solver = LBFGS(loss, maxiter=settings.updates, tol=1e-6, stop_if_linesearch_fails=True, implicit_diff=False)
    params, _ = solver.run(params, data)
    return params, loss(params, data)


def _sequences(policy: NetworkPolicy, targets: Targets, floor: float) -> tuple[dict[str, Array], int]:
    """What a minibatch takes of (P L ...): single steps, or whole episodes where the policy remembers; and L."""
    strength = targets.weights * jnp.trace(targets.precisions, axis1=-2, axis2=-1)
    scale = targets.actions.shape[-1] * targets.weights / jnp.maximum(strength.mean(), 1e-20)
    data = {
        "inputs": policy.normalizer(targets.observations),
        "actions": targets.actions,
        "metric": targets.precisions * scale[..., None, None],
        "certainty": jnp.minimum(jnp.diagonal(targets.precisions, axis1=-2, axis2=-1), floor**-2),
        "weights": targets.weights / jnp.maximum(targets.weights.mean(), 1e-20),
    }
    length = targets.weights.shape[1] if policy.network.memory else 1
    return {name: values.reshape(-1, length, *values.shape[2:]) for name, values in data.items()}, length


def _minibatches(count: int, size: int, updates: int, key: PRNGKeyArray) -> Array:
    """Indices (updates, size) of minibatches that take each of `count` once in a pass, in an order of its own."""
    size = min(size, count)
    per_pass = count // size
    passes = -(-updates // per_pass)
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(key, passes))
    return orders[:, : per_pass * size].reshape(-1, size)[:updates]


def _constant_std(targets: Targets, floor: float) -> Float[Array, " nu"]:
    """The inverse of the mean precision: it minimises the weighted KL(pi || p) over a constant covariance."""
    precision = jnp.einsum("et,etij->ij", targets.weights, targets.precisions)
    precision = precision / jnp.maximum(targets.weights.sum(), 1e-20)
    return jnp.clip(jnp.diagonal(precision) ** -0.5, floor, _LARGEST_STD)
