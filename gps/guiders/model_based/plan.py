"""Plans that start controllers follow: iLQR on the model that is known, and feedback around what it finds.

A swing-up has many local optima. Where each start plans for itself, neighbours end in different ones, half of them
turning left, and no learner can imitate both. So one start, in the middle of all, is planned first, from what holds its
pose and from random sequences of actions; the others begin with the best of its plans and the feedback around it, and
most stay in its family.

Plans keep away from the limits of the actions: an action at its limit can not follow a deviation. The feedback is that
of the LQR for the task's cost along the plan, which knows no limits. Where a body just comes to touch another,
velocities jump, and a finite difference across the jump is as large as its step is small; so derivatives are clipped to
what is usual along the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from controllers import ilqr, lqr
from controllers.expand import quadratize
from controllers.types import LinearDynamics, LinearGaussian
from dynamics.known_model import jacobians, known_dynamics
from dynamics.rollout import exploration_noise
from gps.tasks.control_task import ControlTask, condition_mocap, known_simulator

RANDOM_STD = 0.5  # of random actions
SMOOTHING = 1 / 16  # of the horizon: the width of the filter over random actions
SMOOTH = 0.9  # share of a plan's steps whose derivatives count as they are

Plans = tuple[Float[Array, "M T+1 nx"], Float[Array, "M T nu"], Float[Array, "M T nu nx"]]


@dataclass(frozen=True)
class Planner:
    """Plans one start at a time."""

    task: ControlTask
    limit: float
    options: ilqr.Options

    def solve(self, x: Array, context: Array, us: Array) -> ilqr.Solution:
        """What iLQR makes of these actions."""
        # The context goes in as `params`: with one in a closure, iLQR solves a batch in lockstep, three times slower.
        return ilqr.solve(
            self._dynamics,
            self.task.cost,
            x,
            jnp.clip(us, -self.limit, self.limit),
            final_cost=self.task.final_cost,
            params=context,
            limits=(-self.limit, self.limit),
            options=self.options,
        )

    def feedback(self, xs: Array, us: Array, context: Array) -> Float[Array, "T nu nx"]:
        """Gains of the LQR along a plan, for the task's cost; not finite where there is none."""
        slopes = jnp.concatenate(
            jacobians(known_simulator(self.task), xs[:-1], us, condition_mocap(self.task, context)), axis=-1
        )
        steep = jnp.quantile(jnp.abs(slopes).max((1, 2)), SMOOTH)
        A, B = jnp.split(jnp.clip(slopes, -steep, steep), [xs.shape[1]], axis=-1)
        dynamics = LinearDynamics(A, B, jnp.zeros_like(xs[1:]), jnp.zeros_like(A))
        cost = quadratize(self.task.cost, self.task.final_cost, xs, us, args=(context,))
        return lqr.backward_pass(dynamics, cost).controller.K

    def follow(self, x: Array, context: Array, leader: LinearGaussian) -> Float[Array, "T nu"]:
        """The actions that another start's controller applies from this one."""
        return follow(lambda x, u, t: self._dynamics(x, u, t, context), x, leader, self.limit)

    def _dynamics(self, x: Array, u: Array, t: Array, context: Array) -> Array:
        return known_dynamics(known_simulator(self.task), condition_mocap(self.task, context))(x, u, t)


def follow(dynamics: Callable[..., Array], x: Array, leader: LinearGaussian, limit: float) -> Float[Array, "T nu"]:
    """The actions that a controller applies from x on, within the limit."""

    def step(x, t):
        u = jnp.clip(leader.act(t, x), -limit, limit)
        return dynamics(x, u, t), u

    return jax.lax.scan(step, x, jnp.arange(len(leader.k)))[1]


def plan(
    task: ControlTask,
    xs: Float[Array, "M nx"],
    held: LinearGaussian,
    key: PRNGKeyArray,
    restarts: int,
    limit: float,
    iterations: int,
) -> Plans:
    """A plan for each training condition, and the gains around it.

    Args:
        task: its state is that of the model's joints: positions, velocities and activations.
        xs: states that the conditions start in.
        held: controllers that hold the start poses; leading M.
        key: of the random actions.
        restarts: sequences of actions from which the start in the middle is planned, all but the first of them random;
            with 0 each start is planned on its own.
        limit: the largest action of a plan.
        iterations: of iLQR, at most.

    Returns:
        States, actions, and gains: those of `held` where the LQR has no solution along a plan.
    """
    planner = Planner(task, limit, ilqr.Options(max_iterations=iterations))
    contexts = task.train_contexts
    still = jax.vmap(lambda controller, x: controller.act(0, x))(held, xs)
    first = jnp.broadcast_to(still[:, None], held.k.shape)
    if restarts:
        middle = _in_the_middle(contexts)
        T, nu = held.k.shape[1:]
        noise = jax.vmap(lambda key: exploration_noise(key, T, nu, SMOOTHING * T))(jax.random.split(key, restarts - 1))
        actions = jnp.concatenate([first[middle, None], RANDOM_STD * noise])
        tries = jax.vmap(planner.solve, in_axes=(None, None, 0))(xs[middle], contexts[middle], actions)
        cheapest = jnp.argmin(jnp.where(jnp.isfinite(tries.cost), tries.cost, jnp.inf))
        leader = tries[cheapest].controller()
        first = jax.vmap(planner.follow, in_axes=(0, 0, None))(xs, contexts, leader)
    plans = jax.vmap(planner.solve)(xs, contexts, first)
    gains = jax.vmap(planner.feedback)(plans.states, plans.actions, contexts)
    usable = jnp.isfinite(gains).all((1, 2, 3), keepdims=True)
    return plans.states, plans.actions, jnp.where(usable, gains, held.K)


def _in_the_middle(contexts: Float[Array, "M nc"]) -> int:
    """The context that is nearest the mean of all, each of its numbers in standard deviations."""
    points = np.asarray(contexts, float).reshape(len(contexts), -1)
    away = (points - points.mean(0)) / np.maximum(points.std(0), 1e-9)
    return int((away**2).sum(1).argmin())
