"""The control side of a task, which model-based guiders need: a state, a cost that has derivatives, conditions."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dynamics.simulator import Simulator, joints_size
from gps.tasks.task import Environment, Score


class ControlTask(Environment, Protocol):
    """An environment whose controllers' state, cost and conditions are named.

    The controllers' state x (nx) is what linear-Gaussian controllers act on and local dynamics predict; a
    context (nc) is what distinguishes conditions, such as a target. The learner never sees x: it sees the
    last `history` frames of `observe`.

    A task may have more, and what it lacks is left out:

        solved(xs, us, context) -> bool             whether an episode did what was to be done: success rates
        skeleton(x) -> (P 3)                        the mechanism as a line in the world, in m: paths and an animation
        target(context) -> (3)                      what is to be reached, in m: drawn with them
        known                                       a Simulator: the model that guiders are given, see `known_simulator`

    `cost` and `final_cost` may be a `controllers.expand.LeastSquares`: local models then expand them by Gauss and
    Newton, which is never indefinite.
    """

    simulator: Simulator
    score: Score  # what `measure` measures
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

    def cost(self, x: Float[Array, " nx"], u: Float[Array, " nu"], t, context: Float[Array, " nc"]) -> Array:
        """Stage cost, twice differentiable; the reward is its negative."""
        ...

    def final_cost(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Array:
        """Terminal cost, twice differentiable."""
        ...

    def measure(
        self, xs: Float[Array, "T+1 nx"], us: Float[Array, "T nu"], context: Float[Array, " nc"]
    ) -> Float[Array, ""]:
        """The score of an episode, in the unit of `score`."""
        ...


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


def known_simulator(task: ControlTask) -> Simulator:
    """The model that guiders may know: `known` where the task has one, which may be off, and else its simulator."""
    return getattr(task, "known", task.simulator)


def condition_mocap(task: ControlTask, context: Float[Array, " nc"]) -> Float[Array, " 7*nmocap"]:
    """Where a condition has its mocap bodies; they stay there."""
    return task.initial_state(jax.random.key(0), context)[joints_size(task.simulator.model) :]


def step_costs(task: ControlTask, xs, us, context) -> Float[Array, " T+1"]:
    """Cost of each step of one trajectory (T+1 states, T actions), and of its end."""
    stage = jax.vmap(task.cost, in_axes=(0, 0, 0, None))(xs[:-1], us, jnp.arange(len(us)), context)
    return jnp.append(stage, task.final_cost(xs[-1], context))


def episode_cost(task: ControlTask, xs, us, context) -> Float[Array, ""]:
    """Cost of one trajectory (T+1 states, T actions), its terminal cost included."""
    return step_costs(task, xs, us, context).sum()
