"""The guider contract: what one loop needs to drive any source of guidance.

One iteration is: collect, prepare, and then `rounds` times improve the guider, teach the learner, pull the
guider back. `collect` and `update` (all that follows it) are each compiled once. They are two programs and
not one because a program that calls the C engine back on the host can not be kept in JAX's compilation cache.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
from jaxtyping import Array, PRNGKeyArray

from gps.tasks.task import ControlTask
from policies.mlp import GaussianPolicy

Metrics = dict[str, Array]  # flat, scalars or one number per condition; for logs only


class Guider(Protocol):
    """A frozen object with pure methods: what changes is in the state, which is a pytree of arrays.

    The state holds everything that a resumed run needs. `samples` are what was collected, `problem` what
    was made of them once and is used in every round.
    """

    name: str
    task: ControlTask
    rounds: int  # improve-teach-pull rounds on one batch of samples
    steps_per_iteration: int  # simulator steps (actions) that one `collect` takes

    def init(self, key: PRNGKeyArray) -> Any:
        """The state before the first iteration."""
        ...

    def collect(self, state: Any, key: PRNGKeyArray) -> Any:
        """Roll the guider (or the learner) through the simulator."""
        ...

    def check(self, samples: Any) -> None:
        """Raise `DivergedError` if these samples can not be learned from; called on the host."""
        ...

    def prepare(self, state: Any, samples: Any) -> tuple[Any, Any, Metrics]:
        """Make of the samples what every round needs: (state, problem, metrics)."""
        ...

    def improve(self, state: Any, problem: Any) -> tuple[Any, Metrics]:
        """Improve the guider."""
        ...

    def teach(self, state: Any, problem: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        """Let the learner imitate the guider."""
        ...

    def pull_back(self, state: Any, problem: Any, last: Array) -> tuple[Any, Metrics]:
        """Hold the guider to what the learner can imitate; `last` is true in the last round."""
        ...

    def policy(self, state: Any) -> GaussianPolicy:
        """The learner's policy, which is what a run is about."""
        ...


class DivergedError(RuntimeError):
    """The simulation diverged so badly that training can not go on; the last checkpoint is whole."""


def update(guider: Guider, state: Any, samples: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
    """Everything of one iteration that follows `collect`; compile it whole.

    Returns:
        The new state, and the metrics of `prepare` and of the last round; those named "failed_..." are summed
        over the rounds.
    """
    state, problem, metrics = guider.prepare(state, samples)

    def turn(state, inputs):
        j, key = inputs
        state, improved = guider.improve(state, problem)
        state, taught = guider.teach(state, problem, key)
        state, pulled = guider.pull_back(state, problem, j == guider.rounds - 1)
        return state, {**improved, **taught, **pulled}

    turns = (jax.numpy.arange(guider.rounds), jax.random.split(key, guider.rounds))
    state, rounds = jax.lax.scan(turn, state, turns)
    last = {name: values.sum(0) if name.startswith("failed_") else values[-1] for name, values in rounds.items()}
    return state, {**metrics, **last}
