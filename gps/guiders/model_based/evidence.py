"""What a batch of samples is good for, condition by condition."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evidence:
    """Who was sampled, whether the local model is faithful, and whether the samples count.

    | samples of     | model     | samples | controller                              | learner is taught on |
    |----------------|-----------|---------|-----------------------------------------|----------------------|
    | the controller | faithful  | count   | improves                                | them                 |
    | the controller | not       | count   | stays                                   | them                 |
    | the learner    | faithful  | count, if they cost less than the last ones: it starts anew as the learner |||
    | the learner    | not       | do not  | stays                                   | the last that did    |

    Where the model is not faithful the controller collects the next samples, whoever's turn it is.
    """

    learner_collected: Bool[Array, " M"]
    faithful: Bool[Array, " M"]  # the local dynamics reproduce the samples
    counts: Bool[Array, " M"]  # the samples replace the last ones that counted

    @property
    def trusted(self) -> Bool[Array, " M"]:
        """The local model may change the controller."""
        return self.counts & self.faithful

    @property
    def took_over(self) -> Bool[Array, " M"]:
        """The learner did better than the controller, which starts anew as the linearised learner."""
        return self.counts & self.learner_collected


def reproduces(
    modelled: Float[Array, " M"], cost: Float[Array, " M"], scale: Float[Array, " M"], tolerance: float
) -> Bool[Array, " M"]:
    """Whether the cost in a local model is about that of the samples.

    Few samples can fit dynamics that are unstable under the very controller that they came from. The cost in the
    model then is far from that of the samples.

    Args:
        modelled: the model's quadratic cost, expected under its dynamics.
        cost: the same quadratic of the samples. The task's cost would be no measure of dynamics: near a goal the
            quadratic can say of the same spread four times what it does.
        scale: of differences in cost; see `Samples.cost_scale`.
        tolerance: largest difference, in units of the scale.
    """
    return jnp.abs(modelled - cost) <= tolerance * scale


def weigh(
    learner_collected: Bool[Array, " M"],
    faithful: Bool[Array, " M"],
    cost: Float[Array, " M"],
    last_cost: Float[Array, " M"],
    always: bool,
) -> Evidence:
    """Weigh what was sampled.

    Args:
        faithful: as in `Evidence`.
        cost: of the samples.
        last_cost: of the last samples that counted.
        always: the learner's samples count wherever the model is faithful, whatever they cost.
    """
    better = (cost < last_cost) | always
    return Evidence(learner_collected, faithful, ~learner_collected | (faithful & better))
