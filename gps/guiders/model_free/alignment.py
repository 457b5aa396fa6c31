"""The losses of student-informed teacher training: on features F and outputs H(F), with one head H for all policies.

    informed   c KL(H(F_mu(s)) || stop H(F_proxy(s))), whose gradient is for F_mu: a head could make policies agree
               without bringing any of them nearer to what the learner sees
    align      |F_pi(o) - stop F_mu(s)| + |H(F_pi(o)) - stop H(F_mu(s))|
    mirror     |F_proxy(s) - stop F_pi(o)| + |H(F_proxy(s)) - stop H(F_pi(o))|

|.| is the mean over entries and steps. The guider gets no gradient from the latter two: with one, all features could
become the same constant.

Source:
    Messikommer, Xing, Aljalbout, Scaramuzza, "Student-informed teacher training", ICLR 2025, arXiv 2412.09149, and the
    authors' code, from which the second part of `mirror` and `pull_on = "features"` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gps.guiders.model_free.networks import Networks, Parameters

Features = dict[str, Float[Array, "W S f"]]  # by policy


@dataclass(frozen=True)
class Alignment:
    """The terms, each of the features of one minibatch."""

    networks: Networks
    settings: Any  # of the method

    def losses(
        self, params: Parameters, features: Features, z: dict[str, Array], terms: tuple[str, ...]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Those of the terms that are meant here, by name, and more for the log.

        Args:
            z: the policies' outputs from these features.
        """
        losses, log = {}, {}
        if "informed" in terms:
            losses["informed"] = self.settings.sitt.pull * self.informed(params, features, z)
        if "align" in terms:
            losses["align"] = self.moves(features, z, "learner", "guider", True)
            log["kl_to_learner"] = self.networks.distribution.kl(z["guider"], z["learner"]).sum(-1).mean()
        if "mirror" in terms:
            losses["mirror"] = self.moves(features, z, "proxy", "learner", self.settings.sitt.mirror_outputs)
        return losses, log

    def informed(self, params: Parameters, features: Features, z: dict[str, Array]) -> Array:
        """The guider's distance to whom it is measured against."""
        sitt = self.settings.sitt
        if sitt.pull_on == "features":
            return _distance(features["guider"], features[sitt.against])
        own = self.networks.decode(jax.lax.stop_gradient(params), "guider", features["guider"])
        return self.networks.distribution.kl(own, jax.lax.stop_gradient(z[sitt.against])).sum(-1).mean()

    def moves(self, features: Features, z: dict[str, Array], one: str, towards: str, outputs: bool) -> Array:
        """How far one policy's features, and its outputs, are from another's."""
        distance = _distance(features[one], features[towards])
        return distance + _distance(z[one], z[towards]) if outputs else distance


def _distance(x: Array, goal: Array) -> Array:
    return jnp.abs(x - jax.lax.stop_gradient(goal)).mean()
