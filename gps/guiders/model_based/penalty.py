"""Settings of what ties a controller to the learner, and how penalty weights adapt."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from gps.settings import check_at_least, check_one_of, check_positive

RULES = ("ratio", "spread", "fixed")


@dataclass(frozen=True)
class PenaltySettings:
    """The weight rho of KL(controller || learner), one for each condition and time step; task units per nat."""

    start: float = 0.3  # of the first iteration
    least: float = 1e-4  # it never falls below
    largest: float = 10.0  # it never rises above
    rule: str = "ratio"  # how it moves; see `adapt_penalty`
    target: float = 0.1  # nats, the KL to the learner that the "ratio" rule holds

    def __post_init__(self):
        check_one_of(self, "rule", RULES)
        check_positive(self, "least", "target")
        if not self.least <= self.start <= self.largest:
            raise ValueError(
                f"start must be between least = {self.least} and largest = {self.largest}, not {self.start}"
            )


@dataclass(frozen=True)
class MultiplierSettings:
    """The multipliers on the difference of controller and learner."""

    rate: float = 0.2  # of the step of those on the mean action
    gain_rate: float = 0.0  # of the step of those on the gain matrix; 0 leaves them out
    bound: float = 2.0  # largest multiplier, in standard deviations that it moves the learner's target

    def __post_init__(self):
        check_at_least(self, 0, "rate", "gain_rate")
        check_positive(self, "bound")


def adapt_penalty(rho: Float[Array, " T"], kl: Float[Array, " T"], settings: PenaltySettings) -> Float[Array, " T"]:
    """Move the penalty weights of one condition by their rule, inside their bounds.

    "ratio": by the square root of KL to the learner over `target`, at most by 2 either way.
    "spread": doubled where the KL is at least mean + deviation / 2 over time, halved where it is at most mean -
    deviation, as in the public reference code. "fixed": not at all.
    """
    if settings.rule == "fixed":
        return rho
    if settings.rule == "ratio":
        factor = jnp.clip(jnp.sqrt(kl / settings.target), 0.5, 2.0)
    else:
        mean, deviation = kl.mean(), kl.std()
        factor = jnp.where(kl >= mean + 0.5 * deviation, 2.0, jnp.where(kl <= mean - deviation, 0.5, 1.0))
    factor = jnp.where(jnp.isfinite(factor), factor, 1.0)
    return jnp.clip(rho * factor, settings.least, settings.largest)
