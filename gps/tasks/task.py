"""What a task is: the environment that every guider needs, and the control side that model-based ones need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dynamics.simulator import Simulator


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
    obs: dict[str, Array]  # "state": what the learner sees; "privileged_state", if any: what only the guider sees
    reward: Float[Array, ""]  # of the step that led here
    done: Float[Array, ""]  # 1 at the last step
    # "diverged", if any: 1 where a simulation did and the environment has ended the episode for that; see `diverged`
    metrics: dict[str, Array] = field(default_factory=dict)
    # "truncation": 1 where `done` comes from the time limit alone, so that the return has to be bootstrapped
    info: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """Episodes by `reset` and `step`, for one environment; `vmap` and `jit` them. It never resets itself."""

    name: str
    actions: ActionSpace
    observation_size: int  # of obs["state"], a flat float array
    privileged_size: int  # of obs["privileged_state"], a flat float array; 0 where there is none
    horizon: int  # most steps of an episode
    calls_host: bool  # `step` leaves the device (the C engine), so that a program with it can not be kept on disk

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode with a condition drawn at random; reward and done are 0."""
        ...

    def step(self, state: State, action: Array) -> State:
        """Act for one step; what follows `done` is undefined."""
        ...


class ControlTask(Environment, Protocol):
    """An environment whose controllers' state, cost and conditions are named.

    The controllers' state x (nx) is what linear-Gaussian controllers act on and local dynamics predict; a
    context (nc) is what distinguishes conditions, such as a target. The learner never sees x: it sees the
    last `history` frames of `observe`.
    """

    name: str
    simulator: Simulator
    horizon: int  # actions in an episode
    dt: float  # seconds per action
    nx: int
    nu: int
    frame_size: int  # size of one observation frame
    noise_size: int  # standard normal numbers that one frame takes; 0 for noiseless observations
    history: int  # frames that the learner sees at once
    train_contexts: Float[Array, "M nc"]
    test_contexts: Float[Array, "M_test nc"]  # disjoint from the training contexts

    def initial_state(self, key: PRNGKeyArray, context: Float[Array, " nc"]) -> Float[Array, " nstate"]:
        """Draw the physics state that an episode starts in."""
        ...

    def control_state(self, state: Float[Array, " nstate"]) -> Float[Array, " nx"]:
        """The controllers' state in a physics state."""
        ...

    def observe(
        self, x: Float[Array, " nx"], context: Float[Array, " nc"], noise: Float[Array, " noise"]
    ) -> Float[Array, " frame"]:
        """One frame of what the learner sees; differentiable in x."""
        ...

    def privileged(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Array:
        """What a guider sees: everything, without noise."""
        ...

    def cost(self, x: Float[Array, " nx"], u: Float[Array, " nu"], t, context: Float[Array, " nc"]) -> Array:
        """Stage cost, twice differentiable; the reward is its negative."""
        ...

    def final_cost(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Array:
        """Terminal cost, twice differentiable."""
        ...

    def distance(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Array:
        """How far from solved a state is, in metres: what the numbers at the end of a run are about."""
        ...

    def skeleton(self, x: Float[Array, " nx"]) -> Float[Array, "P 2"]:
        """The task's mechanism as a line in the plane, in metres: what figures draw; its last point is to reach."""
        ...


def diverged(state: State) -> Bool[Array, ""]:
    """Whether the simulation diverged in the step to this state: it says so, or something is not finite."""
    told = state.metrics.get("diverged", jnp.zeros(())) > 0
    finite = jnp.stack([jnp.isfinite(x).all() for x in (state.reward, *state.obs.values())]).all()
    return told | ~finite


def is_control(task: Environment) -> TypeGuard[ControlTask]:
    """Whether model-based guiders can use a task: it names its controllers' state, its cost and its conditions."""
    return all(hasattr(task, name) for name in ("cost", "final_cost", "train_contexts"))


def require_control(task: Environment, guider: str) -> None:
    """Raise ValueError where a model-based guider is to work on a task that it can not optimise trajectories of."""
    if not is_control(task):
        raise ValueError(
            f"guider {guider!r} optimises trajectories and needs a ControlTask (a simulator, a differentiable cost, "
            f"conditions), which {task.name} is not: take a model-free guider, such as 'gpo-clip'"
        )


def episode_cost(task: ControlTask, xs, us, context) -> Float[Array, ""]:
    """Cost of one trajectory (T+1 states, T actions), its terminal cost included."""
    stage = jax.vmap(task.cost, in_axes=(0, 0, 0, None))(xs[:-1], us, jnp.arange(len(us)), context)
    return stage.sum() + task.final_cost(xs[-1], context)
