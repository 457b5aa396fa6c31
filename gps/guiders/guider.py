"""The guider contract: what one loop needs to drive any source of guidance.

An iteration is one or more times: collect, then update. The update improves the guider, teaches the learner and pulls
the guider back; model-based guiders do this one after the other, in rounds (`gps.guiders.model_based.scaffold`),
model-free ones by terms of one loss. Where everything can stay on the device an iteration is one program; else
`collect` and `update` are two, because a program that calls the C engine back on the host can not be kept in JAX's
compilation cache.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
from jaxtyping import Array, PRNGKeyArray

from gps.columns import Column
from gps.errors import UserError
from gps.tasks.task import Environment
from policies.policy import Policy

Metrics = dict[str, Array]  # flat, scalars or one number per condition; for logs only


class Guider(Protocol):
    """A frozen object with pure methods: what changes is in the state, which is a pytree of arrays.

    The state holds everything that a resumed run needs. A guider may take a teacher from another run, whose folder it
    names as `teacher_run`: then the loop calls `adopt(state, teacher) -> state` once, before the first iteration. The
    teacher is what `teacher(state)` of the other run's guider gives. A guider that is a policy of privileged
    observations gives it as `guiding(state)` to those who want to see it act, or None. A guider whose samples come from
    outside, such as a plant, has `gather(state, key) -> samples, metrics`, which is called on the host in place of
    `collect`.
    """

    name: str
    task: Environment
    updates: int  # times collect and update in one iteration
    fused: bool  # an iteration is one program, and `check` is not called
    batch: int  # conditions or environments, which several devices can share: first axis of their arrays in the state
    steps_per_iteration: int  # simulator steps (actions) of one iteration
    columns: tuple[Column, ...]  # of its own metrics, in the progress display of a run

    def init(self, key: PRNGKeyArray) -> Any:
        """The state before the first iteration."""
        ...

    def collect(self, state: Any, key: PRNGKeyArray) -> Any:
        """Roll the guider (or the learner) through the simulator."""
        ...

    def check(self, samples: Any) -> None:
        """Raise `DivergedError` if these samples can not be learned from; called on the host."""
        ...

    def update(self, state: Any, samples: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        """Everything that follows `collect`: the new state, and metrics."""
        ...

    def judge(self, metrics: Metrics) -> None:
        """Raise `DivergedError` if an iteration with these metrics was lost, and the next would be; on the host."""
        ...

    def policy(self, state: Any) -> Policy:
        """The learner's policy, which is what a run is about."""
        ...


class DivergedError(UserError, RuntimeError):
    """The simulation diverged so badly that training can not go on; the last checkpoint is whole."""


def iterate(guider: Guider, state: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
    """One iteration of a guider whose task stays on the device; compile it whole."""

    def turn(state, keys):
        collecting, updating = keys
        return guider.update(state, guider.collect(state, collecting), updating)

    state, metrics = jax.lax.scan(turn, state, update_keys(guider, key))
    return state, summarize(metrics)


def update_keys(guider: Guider, key: PRNGKeyArray) -> PRNGKeyArray:
    """Random keys for each update of an iteration: one to collect with, one to update with."""
    return jax.random.split(key, (guider.updates, 2))


def summarize(metrics: Metrics) -> Metrics:
    """Metrics of an iteration from those of its updates (leading axis): sums of what is counted, means of the rest.

    Of what tells where something happened first, the first number that there is.
    """

    def one(name: str, values: Array) -> Array:
        if name.startswith("first_"):
            return values[jax.numpy.argmax(~jax.numpy.isnan(values))]
        counted = name.startswith(("failed_", "diverged_"))
        return values.sum(0) if counted else jax.numpy.nanmean(values, axis=0)

    return {name: one(name, values) for name, values in metrics.items()}
