"""The losses of the model-free methods on one minibatch; `gps.guiders.model_free.methods` names their terms L1 to L4.

Those of student-informed teachers are in `gps.guiders.model_free.alignment`.

Source:
    Li, Xie, Lu, arXiv 2505.15418, section 4; Schulman et al., "Proximal policy optimization algorithms", 2017;
    Weihs et al., "Bridging the imitation gap by adaptive insubordination", NeurIPS 2021 (the weights of ADVISOR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gps.guiders.model_free.alignment import Alignment
from gps.guiders.model_free.batch import Batch
from gps.guiders.model_free.networks import Networks

_LARGEST_LOG_RATIO = 10.0
_VALUE_WEIGHT = 0.25  # of a critic's squared error; with an optimiser of its own, only the clipping of its norm sees it


@dataclass(frozen=True)
class Objective:
    """Which terms are minimised, and with what numbers. Each term is a mean over the steps that count for it."""

    networks: Networks
    settings: Any  # of the method; see gps.guiders.model_free.settings

    def improve(self, z: dict[str, Array], batch: Batch) -> tuple[Array, dict[str, Array]]:
        """L1: PPO on the guider; with GPO-clip the ratio is clipped to the learner first."""
        log_prob = self._log_prob(z["guider"], batch)
        ratio = _ratio(log_prob, batch.log_prob)
        clipped = ratio
        if self.clipped:
            learner = jax.lax.stop_gradient(self._log_prob(z["learner"], batch))
            clipped = jnp.clip(_ratio(log_prob, learner), *self.settings.region.bounds)
            clipped = clipped * _ratio(learner, batch.log_prob)
        return self._policy_gradient(z["guider"], ratio, clipped, batch.advantage, jnp.ones_like(ratio))

    def follow(self, z: dict[str, Array], batch: Batch, share: Array | float = 1.0) -> tuple[Array, dict[str, Array]]:
        """L4: PPO on the learner, each step with this share of its weight."""
        ratio = _ratio(self._log_prob(z["learner"], batch), batch.log_prob)
        return self._policy_gradient(z["learner"], ratio, ratio, batch.advantage, batch.weights["learner"], share)

    def teach(self, z: dict[str, Array], role: str, share: Array | float = 1.0) -> Array:
        """L2: the learner (or an imitator) moves towards the guider, at each step with this share of its weight."""
        return (share * self.distance(jax.lax.stop_gradient(z["guider"]), z[role])).mean()

    def pull_back(self, z: dict[str, Array], batch: Batch) -> Array:
        """L3: the guider moves towards the learner; with GPO-clip only where its ratio has left the region."""
        distance = self.distance(z["guider"], jax.lax.stop_gradient(z["learner"]))
        if not self.clipped:
            return distance.mean()
        low, high = self.settings.region.bounds
        ratio = _ratio(self._log_prob(z["guider"], batch), self._log_prob(z["learner"], batch))
        outside = jax.lax.stop_gradient((ratio < low) | (ratio > high))
        return jnp.where(outside, distance, 0.0).mean()

    def predict(self, z: dict[str, Array], batch: Batch, critic: str) -> Array:
        """A critic's squared error, over the steps that count for it."""
        error = (z[critic] - batch.targets[critic]) ** 2
        return _VALUE_WEIGHT * _mean(error, batch.weights[critic])

    def distance(self, guider: Float[Array, "*b z"], learner: Float[Array, "*b z"]) -> Float[Array, "*b"]:
        """KL between guider and learner, nats; direction and reduction as the settings say."""
        imitation = self.settings.imitation
        pair = (guider, learner) if imitation.kl == "forward" else (learner, guider)
        kl = self.networks.distribution.kl(*pair)
        return kl.mean(-1) if imitation.reduction == "mean" else kl.sum(-1)

    def advice(self, z: dict[str, Array]) -> Float[Array, "W S"]:
        """ADVISOR's weight of imitation: near 1 where an imitator can do what the guider does."""
        kl = self.networks.distribution.kl(z["guider"], z["imitator"]).sum(-1)
        return jax.lax.stop_gradient(jnp.exp(-self.settings.advice.sharpness * kl))

    def total(self, params, batch: Batch, alpha: Array, terms: tuple[str, ...]) -> tuple[Array, dict[str, Array]]:
        """The sum of the terms, and for the log each of them and what they are made of.

        Args:
            alpha: weight of the pull back of GPO-penalty.
            terms: of "improve", "teach", "pull_back", "follow", "imitate", "informed", "align", "mirror", and the
                names of critics.
        """
        method = self.networks.method
        features, z = self._outputs(params, batch, self._read_by(terms))
        losses, log = Alignment(self.networks, self.settings).losses(params, features, z, terms)
        advised = "advice" in method.tables and "teach" in terms
        advice = self.advice(z) if advised else None
        if "improve" in terms:
            losses["improve"], details = self.improve(z, batch)
            log |= {f"guider_{name}": value for name, value in details.items()}
        if "teach" in terms:
            losses["teach"] = self.teach(z, "learner", 1.0 if advice is None else advice)
        if "imitate" in terms:
            losses["imitate"] = self.teach(z, "imitator")
        if "pull_back" in terms:
            losses["pull_back"] = (alpha if self.penalised else 1.0) * self.pull_back(z, batch)
        if "teach" in terms or "pull_back" in terms:
            log["kl_to_learner"] = self.distance(z["guider"], z["learner"]).mean()
        if "follow" in terms:
            loss, details = self.follow(z, batch, 1.0 if advice is None else 1.0 - advice)
            losses["follow"] = self._follow_weight(alpha) * loss
            log |= {f"learner_{name}": value for name, value in details.items()}
        losses |= {critic: self.predict(z, batch, critic) for critic in method.critics if critic in terms}
        if advice is not None:
            log["advice"] = advice.mean()
        log |= {f"loss_{name}": value for name, value in losses.items()}
        return sum(losses.values(), jnp.zeros(())), log

    def _read_by(self, terms: tuple[str, ...]) -> tuple[str, ...]:
        """The policies and critics whose outputs the terms read."""
        method = self.networks.method
        readers = {
            "guider": ("improve", "teach", "pull_back", "imitate", "informed", "align"),
            "learner": ("teach", "pull_back", "follow", "align", "mirror", *(("improve",) if self.clipped else ())),
            "imitator": ("imitate",),
            "proxy": ("mirror",),
        }
        if method.aligns:
            readers[self.settings.sitt.against] += ("informed",)
        names = (name for name in method.policies if any(term in terms for term in readers[name]))
        return (*names, *(critic for critic in method.critics if critic in terms))

    def _outputs(self, params, batch: Batch, names: tuple[str, ...]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Features of policies, for a method that aligns them, and outputs of policies and critics."""
        networks, inputs = self.networks, (batch.memories, batch.seen, batch.first)
        encoded = tuple(name for name in names if networks.method.aligns and name in networks.method.policies)
        ran = networks.run(params, encoded, *inputs, decode=False)
        features = {name: own for name, (_, own) in ran.items()}
        z = {name: networks.decode(params, name, own) for name, own in features.items()}
        ran = networks.run(params, tuple(name for name in names if name not in z), *inputs)
        return features, z | {name: outputs for name, (_, outputs) in ran.items()}

    @property
    def penalised(self) -> bool:
        """The weight alpha holds the guider to the learner."""
        return "penalty" in self.networks.method.tables

    @property
    def clipped(self) -> bool:
        """The guider is clipped to a region around the learner."""
        return "region" in self.networks.method.tables

    def _follow_weight(self, alpha: Array) -> Array | float:
        if self.penalised:
            return alpha
        return self.settings.follow.weight if "follow" in self.networks.method.tables else 1.0

    def _policy_gradient(
        self, z, ratio, clipped, advantage, counts, share: Array | float = 1.0
    ) -> tuple[Array, dict[str, Array]]:
        """PPO's clipped surrogate and an entropy bonus, to be minimised; a mean over the steps that count."""
        ppo = self.settings.ppo
        low, high = 1.0 - ppo.clip, 1.0 + ppo.clip
        surrogate = jnp.minimum(ratio * advantage, jnp.clip(clipped, low, high) * advantage)
        entropy = self.networks.distribution.entropy(z)
        beyond = ((ratio < low) | (ratio > high)).astype(ratio.dtype)
        log = {"entropy": _mean(entropy, counts), "clipped": _mean(beyond, counts)}
        return -_mean(share * (surrogate + ppo.entropy * entropy), counts), log

    def _log_prob(self, z: Array, batch: Batch) -> Float[Array, "W S"]:
        return self.networks.distribution.log_prob(z, batch.action)


def _ratio(log_p: Array, log_q: Array) -> Array:
    return jnp.exp(jnp.clip(log_p - log_q, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))


def _mean(values: Array, counts: Array) -> Array:
    """Mean over the steps that count (1, others 0); zero where none does."""
    return (values * counts).sum() / jnp.maximum(counts.sum(), 1e-8)
