"""What an environment is: all that a model-free guider needs of a task, and how a task is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gps.errors import UserError
from policies.normalize import plausible


class TaskError(UserError):
    """A task's own code failed on the host, in the middle of a program; see `require_working`."""


@dataclass(frozen=True)
class ActionSpace:
    """What an action is: `size` numbers in [-1, 1], or, where it is discrete, one of `size` choices as an int32."""

    size: int
    discrete: bool = False


@dataclass(frozen=True)
class Score:
    """What the number of `ControlTask.measure` is: displays and figures name it, and nothing scales it."""

    name: str  # such as "distance" or "angle"
    unit: str = ""  # such as "cm" or "rad"
    more_is_better: bool = False

    @property
    def label(self) -> str:
        """Name and unit, as on an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


RETURN = Score("return", more_is_better=True)  # of environments that are no ControlTask


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """One moment of an episode, after the convention of Brax and MuJoCo Playground."""

    data: Any  # what the environment itself keeps, its random key among it
    # "state": what the learner sees, but for an image; "privileged_state", if any: what only the guider sees
    obs: dict[str, Array]
    reward: Float[Array, ""]  # of the step that led here
    done: Float[Array, ""]  # 1 at the last step
    # "diverged", if any: 1 where a simulation did and the environment has ended the episode for that; see `diverged`.
    # "novel", if any: 1 where the step came to something new in its episode, for those who explore. "success", if any:
    # 1 at the end of an episode that did what was to be done. Those that the task's `reported` names, if any, are
    # averaged where they are not NaN: in training over all steps, in an evaluation over the means of its episodes.
    metrics: dict[str, Array] = field(default_factory=dict)
    # "truncation": 1 where `done` comes from the time limit alone, so that the return has to be bootstrapped
    info: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """Episodes by `reset` and `step`, for one environment; `vmap` and `jit` them. It never resets itself.

    Where the learner sees an image too, there are an `image_shape` and `look(state)`, as `gps.tasks.images` has them.
    """

    name: str
    actions: ActionSpace
    observation_size: int  # of what the learner sees: obs["state"], a flat float array, and the image's numbers
    privileged_size: int  # of obs["privileged_state"], a flat float array; 0 where there is none
    horizon: int  # most steps of an episode
    calls_host: bool  # `step` leaves the device (the C engine), so that a program with it can not be kept on disk

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode with a condition drawn at random; reward and done are 0."""
        ...

    def step(self, state: State, action: Array) -> State:
        """Act for one step; what follows `done` is undefined."""
        ...


def reported(task: Environment) -> tuple[str, ...]:
    """The names of metrics of which a task wants the means in what a run reports."""
    return tuple(getattr(task, "reported", ()))


def observed(state: State) -> Bool[Array, ""]:
    """Whether the observations of a state are such, and not NaN, infinite or beyond `policies.normalize.LARGEST`."""
    return jnp.stack([plausible(o) for o in state.obs.values()]).all()


def diverged(state: State) -> Bool[Array, ""]:
    """Whether the simulation diverged in the step to this state.

    It says so, or its observations or its reward are not finite, or beyond `policies.normalize.LARGEST`.
    """
    told = state.metrics.get("diverged", jnp.zeros(())) > 0
    return told | ~observed(state) | ~plausible(state.reward[None])


def require_working(task: Any) -> None:
    """Raise TaskError where an environment that is stepped on the host has failed there.

    An error can not leave a compiled program as what it is: such a task has a method of this name for it.
    """
    own = getattr(task, "require_working", None)
    if own is not None:
        own()
