"""How far controllers may move next: a step size that follows how well the promises of the last steps were kept."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gps.guiders.model_based.settings import TrustRegionSettings

SMALLEST_FACTOR = 0.1  # by which one broken promise shrinks a step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Promise:
    """What the last improvement promised in its local models, and what it has brought in the new ones; task units."""

    before: Float[Array, " M"]  # E[cost] before the improvement
    predicted: Float[Array, " M"]  # E[cost] after it, in the same models
    now: Float[Array, " M"]  # E[cost] in the models of the new samples
    judged: Bool[Array, " M"]  # whether the samples and a faithful model can tell

    @property
    def promised(self) -> Float[Array, " M"]:
        """How much lower the cost was to be."""
        return self.before - self.predicted

    @property
    def gained(self) -> Float[Array, " M"]:
        """How much lower it is."""
        return self.before - self.now


def next_steps(
    step: Float[Array, " M"],
    promise: Promise,
    faithful: Bool[Array, " M"],
    strayed: Float[Array, " M"],
    region: TrustRegionSettings,
    one_step: bool,
    learner_leads: bool,
) -> Float[Array, " M"]:
    """The step size of each condition, or by sums over those that can be judged the one of all.

    A model that is not faithful halves it. Where steps are measured from the learner, it is at most the last one times
    limit / KL of what the learner was left behind: what is not learnt is not to outgrow what is improved.

    Args:
        strayed: KL of the last controllers to the learner that was taught them, over their limit.
        one_step: one step size for all.
        learner_leads: steps are measured from the learner.
    """
    gained, promised = (jnp.where(promise.judged, x, 0.0) for x in (promise.gained, promise.promised))
    lost = (~faithful).astype(step.dtype)
    if one_step:
        totals = telling(gained, promised).sum(), promised.sum()
        gained, promised = (jnp.broadcast_to(x, step.shape) for x in totals)
        lost, strayed = (jnp.broadcast_to(x.mean(), step.shape) for x in (lost, strayed))
    largest: float | Array = region.step_max
    if learner_leads:
        largest = jnp.clip(step / jnp.maximum(strayed, 1e-3), region.step_min, region.step_max)
    return adapt_step(step * 0.5**lost, gained, promised, (region.step_min, largest))


def adapt_step(step: Array, gained: Array, promised: Array, bounds: tuple[float, float | Array]) -> Float[Array, " *M"]:
    """step *= |promised| / (2 (promised - gained)): the minimiser of a quadratic model of the error.

    A promise that things get worse, as augmented costs make them, never enlarges the step, not even where it is kept.

    Args:
        step: multiplies the KL limit.
        gained: improvement of the cost that was measured.
        promised: the one that the local model had predicted; negative where what is minimised is not the cost alone,
            and 0 where there was none, which leaves the step as it is.
        bounds: of the step.
    """
    shortfall = jnp.maximum(promised - gained, 1e-4 * jnp.abs(promised))
    factor = jnp.clip(jnp.abs(promised) / (2.0 * shortfall), SMALLEST_FACTOR, jnp.where(promised > 0.0, 5.0, 1.0))
    step = jnp.where(promised != 0.0, step * factor, step)
    return jnp.clip(step, *bounds)


def telling(gained: Array, promised: Array) -> Array:
    """`gained` as far as `adapt_step` can tell it: less asks for its smallest factor too, and would drown a sum.

    Args:
        gained, promised: as those of `adapt_step`.
    """
    return jnp.maximum(gained, promised - jnp.abs(promised) / (2.0 * SMALLEST_FACTOR))
