"""Guider, learner and critics as networks: what each sees, and which parameters it has.

A guider's input is [privileged, observation, 1] and a learner's [0, observation, 0]: one network can be both. Each
role has its own running normalisation and it is applied before anything is zeroed, so that what is zeroed stays zero.
Apart, guider and learner still have one form, so that a guider can be made to start exactly where the learner is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gps.guiders.model_free.methods import Method
from gps.guiders.model_free.settings import NetworkSettings
from gps.tasks.task import Environment
from policies.distributions import Categorical, Distribution, Gaussian, TanhGaussian
from policies.network import Network, NetworkPolicy
from policies.normalize import Normalizer

Observations = dict[str, Array]  # "state" (... no) and "privileged_state" (... ns), as environments give them

_CONTINUOUS: dict[str, Callable[[int], Distribution]] = {"gaussian": Gaussian, "tanh-gaussian": TanhGaussian}


def choose_distribution(name: str, task: Environment) -> Distribution:
    """The distribution of that name over the task's actions.

    Errors:
        ValueError where the task has no such actions.
    """
    actions = task.actions
    if name == "auto":
        name = "categorical" if actions.discrete else "tanh-gaussian"
    if actions.discrete != (name == "categorical"):
        kind = f"{actions.size} choices" if actions.discrete else f"{actions.size} numbers"
        fitting = "'categorical'" if actions.discrete else "'gaussian' or 'tanh-gaussian'"
        raise ValueError(
            f"guider.network.distribution = {name!r} does not fit {task.name}, whose actions are {kind}: take {fitting}"
        )
    return Categorical(actions.size) if actions.discrete else _CONTINUOUS[name](actions.size)


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
        form = {"hidden": settings.hidden, "memory": settings.memory, "activation": settings.activation}
        return cls(
            method,
            shared and method.guider != "none",
            task.privileged_size,
            task.observation_size,
            distribution,
            Network(outputs=distribution.outputs, free=distribution.free, **form),
            Network(outputs=1, head_scale=1.0, **form),
        )

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after a learner's observation; none where there is no guider of the same form."""
        return (self.privileged, 1) if self.method.guider != "none" else (0, 0)

    def start(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Fresh parameters; every policy starts as the same function of what the learner sees."""
        *keys, common = jax.random.split(key, len(self.method.critics) + 1)
        policies = {self._owner(role) for role in self.method.roles}
        params = {name: self.policy.start(common, self.observed + sum(self.padding)) for name in sorted(policies)}
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
        if role == "guider":
            x = jnp.concatenate([seen["guider"], jnp.ones((*first.shape, 1))], axis=-1)
        else:
            before, after = self.padding
            x = jnp.pad(seen["learner"], ((0, 0), (0, 0), (before, after)))
        return self.policy.run(params[self._owner(role)], h, x, first)

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
        layers = params["learner"]["params"]
        before, after = self.padding
        visible = jnp.pad(jnp.ones(self.observed), (before, after))
        kernel = visible[:, None] * layers["Dense_0"]["kernel"]
        guider = {"params": {**layers, "Dense_0": {**layers["Dense_0"], "kernel": kernel}}}
        return {**params, "guider": guider}

    def learner(self, params: dict[str, Any], normalizers: dict[str, Normalizer]) -> NetworkPolicy:
        """The learner as a policy of its own."""
        own = params[self._owner("learner")]
        return NetworkPolicy(self.policy, self.distribution, self.padding, own, normalizers["learner"])

    def _owner(self, role: str) -> str:
        return "policy" if self.shared and role in ("guider", "learner") else role

    def _seen(self, viewer: str) -> int:
        return self.observed + (self.privileged if viewer == "guider" else 0)
