"""Guider, learner and critics as networks: what each sees, and which parameters it has.

A guider's network is the learner's with side inputs (privileged, 1): one network can be both, and of two networks the
guider can be made to start exactly where the learner is. Each role has its own running normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gps.guiders.learner import NetworkSettings, choose_distribution, make_network
from gps.guiders.model_free.methods import Method
from gps.tasks.task import Environment
from policies.distributions import Distribution
from policies.network import Network, NetworkPolicy
from policies.normalize import Normalizer

Observations = dict[str, Array]  # "state" (... no) and "privileged_state" (... ns), as environments give them


@dataclass(frozen=True)
class Roles:
    """The networks of one method on one task; parameters and normalisers are dicts by name."""

    method: Method
    shared: bool  # guider and learner are one network
    privileged: int  # size of what only a guider sees
    observed: int
    distribution: Distribution
    policy: Network
    value: Network

    @classmethod
    def make(cls, method: Method, shared: bool, task: Environment, settings: NetworkSettings) -> Roles:
        """For a task; errors as in `choose_distribution`."""
        distribution = choose_distribution(settings.distribution, task)
        return cls(
            method,
            shared and method.guider != "none",
            task.privileged_size,
            task.observation_size,
            distribution,
            make_network(settings, distribution.outputs, distribution.free),
            make_network(settings, 1, head_scale=1.0),
        )

    @property
    def side(self) -> int:
        """Size of a guider's side inputs."""
        return self.privileged + 1

    def start(self, learner: PRNGKeyArray, key: PRNGKeyArray) -> dict[str, Any]:
        """Fresh parameters; every policy starts as the same function of what the learner sees.

        Args:
            learner: what `gps.guiders.learner.start_policy` makes a learner of; the other policies start from it too.
            key: for the critics.
        """
        keys = jax.random.split(key, len(self.method.critics))
        owners = sorted({self._owner(role) for role in self.method.roles})
        guiders = {self._owner("guider")} if "guider" in self.method.roles else set()
        params = {
            name: self.policy.start(learner, self.observed, self.side if name in guiders else 0) for name in owners
        }
        sizes = [self._seen(self.viewer(name)) for name in self.method.critics]
        critics = zip(self.method.critics, sizes, keys, strict=True)
        return params | {name: self.value.start(key, size) for name, size, key in critics}

    def start_normalizers(self) -> dict[str, Normalizer]:
        """Before anything was seen."""
        return {role: Normalizer.start(self._seen(role)) for role in ("guider", "learner")}

    def start_memories(self, count: int) -> dict[str, Float[Array, "N H"]]:
        """Of every policy and critic, for `count` environments."""
        return {name: jnp.zeros((count, self.policy.memory)) for name in (*self.method.roles, *self.method.critics)}

    def viewer(self, name: str) -> str:
        """Whose observations a policy or critic sees: the guider's or the learner's."""
        if name in ("guider", "teacher_critic"):
            return "guider"
        return self.method.critic if name == "critic" else "learner"

    def normalized(self, normalizers: dict[str, Normalizer], obs: Observations) -> dict[str, Array]:
        """What guider and learner see of observations, normalised for each."""
        seen = {"learner": normalizers["learner"](obs["state"])}
        if self.privileged:
            seen["guider"] = normalizers["guider"](self.together(obs))
        return seen

    def together(self, obs: Observations) -> Array:
        """[privileged, observation]."""
        return jnp.concatenate([obs["privileged_state"], obs["state"]], axis=-1)

    def act(
        self,
        params: dict[str, Any],
        role: str,
        h: Float[Array, "B H"],
        seen: dict[str, Float[Array, "L B n"]],
        first: Bool[Array, "L B"],
    ) -> tuple[Float[Array, "L B H"], Float[Array, "L B z"]]:
        """A policy's memories and outputs over a sequence of normalised observations."""
        own = params[self._owner(role)]
        if role != "guider":
            return self.policy.run(own, h, seen["learner"], first)
        privileged, observed = jnp.split(seen["guider"], [self.privileged], axis=-1)
        side = jnp.concatenate([privileged, jnp.ones((*first.shape, 1))], axis=-1)
        return self.policy.run(own, h, observed, first, side)

    def judge(
        self,
        params: dict[str, Any],
        critic: str,
        h: Float[Array, "B H"],
        seen: dict[str, Float[Array, "L B n"]],
        first: Bool[Array, "L B"],
    ) -> tuple[Float[Array, "L B H"], Float[Array, "L B"]]:
        """A critic's memories and values over a sequence of normalised observations."""
        hs, values = self.value.run(params[critic], h, seen[self.viewer(critic)], first)
        return hs, values[..., 0]

    def along(self, params: dict[str, Any], name: str, h: Array, seen: dict[str, Array], first: Array):
        """What `act` or `judge` gives, as the name is a policy's or a critic's."""
        return (self.act if name in self.method.roles else self.judge)(params, name, h, seen, first)

    def trained(self, terms: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the parameters that the terms of a loss change."""
        trains = {"improve": "guider", "pull_back": "guider", "teach": "learner", "follow": "learner"}
        trains |= {"imitate": "imitator"} | {critic: critic for critic in self.method.critics}
        return tuple(sorted({self._owner(trains[term]) for term in terms}))

    def backtracked(self, params: dict[str, Any]) -> dict[str, Any]:
        """The guider made the learner: its parameters, and no weight on what the learner does not see."""
        return {**params, "guider": self.policy.with_blind_side(params["learner"], self.side)}

    def learner(self, params: dict[str, Any], normalizers: dict[str, Normalizer]) -> NetworkPolicy:
        """The learner as a policy of its own."""
        own = self.policy.without_side(params[self._owner("learner")])
        return NetworkPolicy(self.policy, self.distribution, own, normalizers["learner"])

    def _owner(self, role: str) -> str:
        return "policy" if self.shared and role in ("guider", "learner") else role

    def _seen(self, viewer: str) -> int:
        return self.observed + (self.privileged if viewer == "guider" else 0)
