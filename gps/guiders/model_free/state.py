"""What a model-free guider keeps between updates, and what one run hands to another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from gps.guiders.learner import NetworkSettings
from gps.guiders.model_free.networks import Parameters
from gps.guiders.model_free.unroll import Running
from policies.normalize import Normalizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelFreeState:
    """What one update hands to the next."""

    params: Parameters  # of policies and critics
    optimizer_state: dict[str, Any]  # by loss: what is not trained for a while keeps its moments
    normalizers: dict[str, Normalizer]  # of what guider and learner see
    running: Running  # with bare random keys
    alpha: Float[Array, ""]  # weight of the pull back of GPO-penalty
    success: Float[Array, ""]  # running share of episodes that succeed, where the task tells; beyond a half it stays
    updates: Array  # done so far


SIZES = "size of observations"


@dataclass(frozen=True)
class Teacher:
    """A trained privileged policy, and the form that a guider must have to take it."""

    params: Any
    normalizer: Normalizer  # of what the teacher sees
    task: str
    network: NetworkSettings
    sizes: tuple[int, int]  # of what only a guider sees, and of what it sees of the learner's

    def form(self) -> dict[str, Any]:
        """What two guiders must have in common, in words."""
        network = {f"network.{name}": value for name, value in asdict(self.network).items()}
        return {"task": self.task, **network, SIZES: self.sizes}
