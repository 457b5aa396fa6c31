"""What an update learns from: an unroll cut into sequences, with advantages and with targets for the critics."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gps.guiders.model_free.networks import Networks, Parameters
from gps.guiders.model_free.plan import Plan
from gps.guiders.model_free.unroll import Unroll, advantages, values_after


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """S sequences of W steps; W is 1 without memory."""

    seen: dict[str, Float[Array, "W S n"]]  # see `Networks.normalized`; "image" of the first environments' alone
    first: Bool[Array, "W S"]
    memories: dict[str, Float[Array, "S H"]]  # of policies and critics before the sequence
    action: Array  # raw, W S (nu)
    log_prob: Float[Array, "W S"]  # of the policy that acted
    weights: dict[str, Float[Array, "W S"]]  # by policy or critic: 1 where a step counts for its policy gradient
    advantage: Float[Array, "W S"]  # normalised
    targets: dict[str, Float[Array, "W S"]]  # by critic: what it is to predict


def make_batch(
    networks: Networks,
    settings: Any,
    plan: Plan,
    policy: tuple[Parameters, dict[str, Any]],
    before: dict[str, Float[Array, "N H"]],
    unroll: Unroll,
    window: int,
) -> tuple[Batch, dict[str, Float[Array, "N H"]]]:
    """Sequences to learn from, and the memories at the end of the unroll.

    Args:
        settings: of the method.
        policy: parameters and normalisers.
        before: memories at the start of the unroll.
        window: length of a sequence.
    """
    ppo, (params, normalizers) = settings.ppo, policy
    critics = tuple(c for c in networks.method.critics if any(c in terms for terms in plan.losses))
    remember = settings.learner.network.memory > 0
    seen, after = (networks.normalized(normalizers, obs) for obs in (unroll.obs, unroll.final))
    ran = networks.run(params, networks.names if remember else critics, before, seen, unroll.first)

    def values_of_next(critic: str, needed: Array) -> Array:
        return values_after(networks, params, critic, ran[critic][0], after, needed)

    weights = _weights(networks, plan, unroll)
    rewards = ppo.reward_scale * unroll.reward
    targets, advantage = {}, jnp.zeros_like(rewards)
    for critic in critics:
        values, paid = ran[critic][1], rewards
        if critic == "critic" and networks.method.shaped:
            potential = values_of_next("imitator_critic", jnp.ones_like(unroll.done))
            potential = jnp.where(unroll.done & ~unroll.truncated, 0.0, potential)
            paid = rewards + ppo.discount * potential - ran["imitator_critic"][1]
        last = values_of_next(critic, unroll.truncated)
        gained = advantages(paid, values, last, unroll.done, unroll.truncated, ppo.discount, ppo.trace)
        targets[critic] = gained + values
        if critic == plan.critic:
            advantage = _standardized(gained, weights["learner"])
    sequences = rewards.size // window
    # a sequence starts with the memory that the last step of the sequence before it left
    starts = {name: jnp.zeros((sequences, memory.shape[-1])) for name, memory in before.items()}
    if remember:
        held = {
            name: jnp.concatenate([before[name][None], hs[window - 1 : -1 : window]]) for name, (hs, _) in ran.items()
        }
        starts |= {name: memory.reshape(sequences, -1) for name, memory in held.items()}
        before = {name: hs[-1] for name, (hs, _) in ran.items()}
    per_step = (seen, unroll.first, unroll.action, unroll.log_prob, weights, advantage, targets)
    seen, first, action, log_prob, weights, advantage, targets = jax.tree.map(lambda x: _windows(x, window), per_step)
    return Batch(seen, first, starts, action, log_prob, weights, advantage, targets), before


def sequences_of(batch: Batch, chosen: Array, environments: int) -> Batch:
    """Some of a batch's sequences, of so many environments side by side.

    What is of the first environments alone must not be read where sequences of others are chosen.
    """
    part, number = chosen // environments, chosen % environments  # of the unroll, and of the environment

    def take(x: Array) -> Array:
        own = x.shape[1] * environments // batch.first.shape[1]
        return x.at[:, part * own + number].get(mode="promise_in_bounds")

    some = jax.tree.map(take, dataclasses.replace(batch, memories={}))
    return dataclasses.replace(some, memories={name: memory[chosen] for name, memory in batch.memories.items()})


def _weights(networks: Networks, plan: Plan, unroll: Unroll) -> dict[str, Array]:
    """Which steps count for the learner's policy gradient and for each critic: those of its own policy."""
    ones = jnp.ones_like(unroll.reward)
    weights = dict.fromkeys(("learner", *networks.method.critics), ones)
    if plan.collects == "halves":
        imitator = (jnp.arange(ones.shape[1]) * 2 // ones.shape[1]) * ones
        weights |= {"learner": 1.0 - imitator, "critic": 1.0 - imitator, "imitator_critic": imitator}
    return weights


def _windows(x: Array, W: int) -> Array:
    """(L N ...) in sequences of W steps: (W L/W*N ...)."""
    L, N = x.shape[:2]
    return jnp.swapaxes(x.reshape(L // W, W, N, *x.shape[2:]), 0, 1).reshape(W, L // W * N, *x.shape[2:])


def _standardized(values: Array, weights: Array) -> Array:
    """With mean zero and deviation one over the steps that count."""
    total = weights.sum()
    mean = (weights * values).sum() / total
    deviation = jnp.sqrt((weights * (values - mean) ** 2).sum() / total)
    return (values - mean) / (deviation + 1e-8)
