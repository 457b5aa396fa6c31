"""What the policies of an unroll are paid in training, beside the task's own reward.

    r' = r + bonus novel - lambda KL(mu || proxy)

The bonus is for steps that come to something new (the task's metric "novel"), until half of the episodes succeed. The
KL is that of the state that an action was taken in, by the parameters that acted: what a guider pays, in units of
reward, for a step in which its learner would do something else. What a run reports as its return has neither.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gps.guiders.guider import Metrics
from gps.guiders.model_free.networks import Networks
from gps.guiders.model_free.state import ModelFreeState
from gps.guiders.model_free.unroll import TOLD, Unroll

_ENOUGH = 0.5  # share of episodes that succeed, at which the bonus ends
_RATE = 0.1  # at which the running share follows that of an update


def paid(networks: Networks, settings: Any, state: ModelFreeState, unroll: Unroll) -> tuple[Unroll, Metrics]:
    """The unroll with rewards r', and what is said of them in the log.

    Args:
        settings: of the method.
    """
    reward, metrics, bonus = unroll.reward, {}, settings.ppo.bonus
    if "success" in unroll.told:
        metrics["train_success"] = _share(unroll)
    metrics |= {f"train_{name}": jnp.nanmean(unroll.told[name]) for name in unroll.told if name not in TOLD}
    if bonus:
        reward = reward + bonus * jnp.where(state.success < _ENOUGH, unroll.told["novel"], 0.0)
    if networks.method.aligns:
        sitt, policy = settings.sitt, (state.params, state.normalizers)
        seen = networks.normalized(policy[1], unroll.obs)
        ran = networks.run(policy[0], ("guider", sitt.against), state.running.memories, seen, unroll.first)
        kl = networks.distribution.kl(ran["guider"][1], ran[sitt.against][1]).sum(-1)
        reward = reward - sitt.price * kl
        episodes = jnp.where(unroll.done.any(), unroll.done.sum(), jnp.nan)
        # of a step, and what it takes of the return of an episode
        metrics |= {"step_kl": kl.mean(), "price_of_kl": sitt.price * kl.sum() / episodes}
    return dataclasses.replace(unroll, reward=reward), metrics


def follow_success(success: Array, unroll: Unroll) -> Array:
    """The running share of episodes that succeed, after an unroll; beyond a half it stays, so that no bonus returns."""
    if "success" not in unroll.told:
        return success
    moved = success + _RATE * (_share(unroll) - success)
    return jnp.where((success < _ENOUGH) & unroll.done.any(), moved, success)


def _share(unroll: Unroll) -> Array:
    """Of the episodes that ended those that succeeded; NaN where none ended."""
    return jnp.where(unroll.done, unroll.told["success"], 0.0).sum() / unroll.done.sum()
