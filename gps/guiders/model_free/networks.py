"""The networks of a method: its policies and critics; what each of them sees, and which parameters it has.

A guider's network is the learner's with side inputs (privileged, 1): one network can be both, and of two networks the
guider can be made to start exactly where the learner is, but for images. Guider and learner have a running
normalisation each. A proxy has the form of a guider. Guider, learner and proxy can have one head, which is among the
parameters of the guider.

Where the learner sees images, a guider with a network of its own does without them, and so do critics that see what it
sees: there are other numbers for all that they need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gps.guiders.learner import NetworkSettings, choose_distribution, make_network
from gps.guiders.model_free.methods import Method
from gps.tasks.images import image_shape, image_size
from gps.tasks.task import Environment
from policies.distributions import Distribution
from policies.network import Network, NetworkPolicy
from policies.normalize import Normalizer

# "state" and "privileged_state" (... n), as environments give them; "image" (L P n) of the first P environments alone,
# flattened and in half precision, where no critic needs it and "state" does not end with it
Observations = dict[str, Array]
Parameters = dict[str, Any]  # by network: policies ("policy" where guider and learner are one) and critics


_SEE_ALL = ("guider", "proxy")  # policies


@dataclass(frozen=True)
class Networks:
    """The networks of one method on one task; parameters, memories and normalisers are dicts by name."""

    method: Method
    shared: bool  # guider and learner are one network
    privileged: int  # size of what only a guider sees
    observed: int  # size of what the learner sees
    pixels: int  # of which are an image that no guider sees
    distribution: Distribution
    policy: Network  # the learner's; where there is such an image, a guider's and a proxy's is that without eyes
    critic: Network  # likewise
    one_head: bool = False  # learner and proxy act by the guider's head, of which they get no gradient

    @classmethod
    def make(
        cls, method: Method, shared: bool, task: Environment, settings: NetworkSettings, one_head: bool = False
    ) -> Networks:
        """For a task; errors as in `choose_distribution`."""
        distribution, image = choose_distribution(settings.distribution, task), image_shape(task)
        alike = shared or method.backtracks  # guiders see it too
        return cls(
            method,
            shared,
            task.privileged_size,
            task.observation_size,
            0 if alike else image_size(task),
            distribution,
            make_network(settings, distribution.outputs, distribution.free, image=image),
            make_network(settings, 1, head_scale=1.0, image=image),
            one_head,
        )

    @property
    def critics_look(self) -> bool:
        """Whether some critic sees images."""
        return any(self._network(critic).eyes for critic in self.method.critics)

    @property
    def names(self) -> tuple[str, ...]:
        """All policies and critics."""
        return (*self.method.policies, *self.method.critics)

    def start(self, learner: PRNGKeyArray, key: PRNGKeyArray) -> Parameters:
        """Fresh parameters; every policy that sees what the learner sees starts as the same function of that.

        Args:
            learner: what `gps.guiders.learner.start_policy` makes a learner of; the other policies start from it too.
            key: for the critics.
        """
        params = {}
        for name in self.method.policies:  # the guider first: with one network, its parameters are the learner's too
            hidden, side = (self.pixels, self.privileged + 1) if name in _SEE_ALL else (0, 0)
            own = self._network(name).start(learner, self.observed - hidden, side)
            params.setdefault(self.owner(name), self.policy.without_head(own) if self._borrows(name) else own)
        for name in self.method.critics:
            key, own = jax.random.split(key)
            params[name] = self._network(name).start(own, self._size(self.viewer(name)))
        return params

    def start_normalizers(self) -> dict[str, Normalizer]:
        """Before anything was seen."""
        return {viewer: self._network(viewer).start_normalizer(self._size(viewer)) for viewer in ("guider", "learner")}

    def start_memories(self, count: int) -> dict[str, Float[Array, "N H"]]:
        """Of every policy and critic, for `count` environments."""
        return {name: jnp.zeros((count, self.policy.memory)) for name in self.names}

    def viewer(self, name: str) -> str:
        """Whose observations a policy or critic sees: the guider's or the learner's."""
        if name in (*_SEE_ALL, "teacher_critic"):
            return "guider"
        return self.method.critic if name == "critic" else "learner"

    def normalized(self, normalizers: dict[str, Normalizer], obs: Observations) -> dict[str, Array]:
        """What guider and learner see of observations, normalised for each, and an "image" as it is."""
        seen = {name: o for name, o in obs.items() if name == "image"}
        seen["learner"] = normalizers["learner"](obs["state"])
        if self.privileged:
            seen["guider"] = normalizers["guider"](self.everything(obs))
        return seen

    def everything(self, obs: Observations) -> Array:
        """[privileged, observation without an image]: what a guider sees."""
        return jnp.concatenate([obs["privileged_state"], obs["state"][..., : self.observed - self.pixels]], axis=-1)

    def run(
        self,
        params: Parameters,
        names: tuple[str, ...],
        memories: dict[str, Float[Array, "B H"]],
        seen: dict[str, Float[Array, "L B n"]],
        first: Bool[Array, "L B"],
        decode: bool = True,
    ) -> dict[str, tuple[Float[Array, "L B H"], Array]]:
        """Policies and critics over a sequence of normalised observations.

        Args:
            names: of policies and critics.
            memories: of each before the sequence.
            seen: what `normalized` returns. Who sees an "image" is run for the members of the batch that have one.
            first: the step is the first of an episode.
            decode: False for the features of policies in place of their outputs.

        Returns:
            By name: memories after each step, and outputs (L B z) of a policy or values (L B) of a critic; zeros
            where it was not run.
        """
        if self.shared and "guider" in names and "learner" in names:
            rest = tuple(name for name in names if name not in ("guider", "learner"))
            return self._both(params, memories, seen, first) | self.run(params, rest, memories, seen, first)
        return {name: self._run(params, name, memories[name], seen, first, decode) for name in names}

    def decode(self, params: Parameters, name: str, features: Float[Array, "*b f"]) -> Float[Array, "*b z"]:
        """The outputs that a policy makes of features."""
        return self.policy.decode(self._own(params, name), features)

    def _run(self, params: Parameters, name: str, h: Array, seen: dict[str, Array], first: Array, decode: bool):
        if name in self.method.critics:
            hs, values = self._network(name).run(params[name], h, seen[self.viewer(name)], first)
            return hs, values[..., 0]
        x, first, side = self._inputs(name, seen, first)
        hs, z = self._network(name).run(self._own(params, name), h[: x.shape[1]], x, first, side, decode)
        others = (0, 0), (0, len(h) - x.shape[1]), (0, 0)
        return jnp.pad(hs, others), jnp.pad(z, others)

    def _network(self, name: str) -> Network:
        """Of a policy or a critic."""
        network = self.critic if name in self.method.critics else self.policy
        return network.clone(eyes=None) if self.pixels and self.viewer(name) == "guider" else network

    def _own(self, params: Parameters, name: str) -> Any:
        """All parameters of a policy. No gradient passes from who borrows the guider's head to it."""
        own = params[self.owner(name)]
        return self.policy.with_head(own, jax.lax.stop_gradient(params["guider"])) if self._borrows(name) else own

    def _borrows(self, name: str) -> bool:
        return self.one_head and name in ("learner", "proxy")

    def _inputs(self, name: str, seen: dict[str, Array], first: Array) -> tuple[Array, Array, Array | None]:
        """What the network of a policy is run on: what it sees, `first`, and side inputs."""
        x = seen[self.viewer(name)]
        if name in _SEE_ALL:
            return self._guiders(x, first)
        if "image" in seen:
            shown = seen["image"].shape[1]
            x, first = jnp.concatenate([x[:, :shown], seen["image"]], axis=-1), first[:, :shown]
        return x, first, None

    def _both(self, params: Parameters, memories: dict[str, Array], seen: dict[str, Array], first: Array):
        """Guider and learner, one network, side by side: one program to compile instead of two."""
        x, first_guider, side = self._guiders(seen["guider"], first)
        x = jnp.concatenate([x, seen["learner"]], axis=1)
        side = jnp.concatenate([side, jnp.zeros_like(side)], axis=1)  # a learner sees nothing there
        h = jnp.concatenate([memories["guider"], memories["learner"]])
        hs, z = self.policy.run(params["policy"], h, x, jnp.concatenate([first_guider, first], axis=1), side)
        halves = zip(jnp.split(hs, 2, axis=1), jnp.split(z, 2, axis=1), strict=True)
        return dict(zip(("guider", "learner"), halves, strict=True))

    def _guiders(self, x: Array, first: Array) -> tuple[Array, Array, Array]:
        """What the network of a guider that sees x is run on: the learner's part, `first`, and side inputs."""
        privileged, observed = jnp.split(x, [self.privileged], axis=-1)
        return observed, first, jnp.concatenate([privileged, jnp.ones((*first.shape, 1))], axis=-1)

    def trained_by(self, terms: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the parameters that the terms of a loss change."""
        trains = {"improve": "guider", "pull_back": "guider", "teach": "learner", "follow": "learner"}
        trains |= {"imitate": "imitator", "informed": "guider", "align": "learner", "mirror": "proxy"}
        trains |= {critic: critic for critic in self.method.critics}
        return tuple(sorted({self.owner(trains[term]) for term in terms}))

    def backtracked(self, params: Parameters) -> Parameters:
        """The guider made the learner: its parameters, and no weight on what the learner does not see."""
        return {**params, "guider": self.policy.with_blind_side(params["learner"], self.privileged + 1)}

    def learner(self, params: Parameters, normalizers: dict[str, Normalizer]) -> NetworkPolicy:
        """The learner as a policy of its own."""
        own = self.policy.without_side(self._own(params, "learner"))
        return NetworkPolicy(self.policy, self.distribution, own, normalizers["learner"])

    def guider(self, params: Parameters, normalizers: dict[str, Normalizer]) -> GuiderPolicy:
        """The guider as a policy of its own."""
        return GuiderPolicy(self, params, normalizers["guider"])

    def owner(self, name: str) -> str:
        """Under which name the parameters of a policy or critic stand."""
        return "policy" if self.shared and name in ("guider", "learner") else name

    def _size(self, viewer: str) -> int:
        return self.observed + (self.privileged - self.pixels if viewer == "guider" else 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GuiderPolicy:
    """A guider, one step of one episode at a time; it is given [privileged, all that the learner sees]."""

    networks: Networks = field(metadata={"static": True})
    params: Parameters
    normalizer: Normalizer

    def start_memory(self) -> Float[Array, " H"]:
        """What it remembers before an episode."""
        return jnp.zeros(self.networks.policy.memory)

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, "*shape n"]:
        """The noise for actions; zero gives the mode."""
        return self.networks.distribution.noise(key, shape)

    def act(
        self, memory: Float[Array, " H"], o: Float[Array, " n"], noise: Float[Array, " n"]
    ) -> tuple[Float[Array, " H"], Array]:
        """What it remembers after a step, and the environment's action."""
        o = o[: len(o) - self.networks.pixels]
        seen, first = {"guider": self.normalizer(o)[None, None]}, jnp.zeros((1, 1), bool)
        memories, z = self.networks.run(self.params, ("guider",), {"guider": memory[None]}, seen, first)["guider"]
        distribution = self.networks.distribution
        return memories[0, 0], distribution.environment(distribution.sample(z[0, 0], noise))
