"""What acts in an episode."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Array, Float, PRNGKeyArray


class Policy(Protocol):
    """A policy that may remember: `policies.network.NetworkPolicy`, or one of a user's own."""

    def start_memory(self) -> Array:
        """What it remembers before an episode."""
        ...

    def noise(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Array:
        """The noise that actions take; zero gives the most likely action."""
        ...

    def act(self, memory: Array, o: Float[Array, " no"], noise: Array) -> tuple[Array, Array]:
        """One step: what it remembers after it, and an action as the environment takes it."""
        ...
