"""A teacher that looks ahead: iLQR on a model in receding horizon, from wherever an episode has come to.

Every few steps it plans again from the state that it is in, starting with what is left of its last plan; in between it
follows the plan's feedback. What lies beyond the last plan comes from a nominal controller of the whole episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from controllers import ilqr
from controllers.expand import LeastSquares
from controllers.types import LinearGaussian
from gps.guiders.model_based.plan import follow
from gps.pytrees import all_finite, select
from gps.tasks.control_task import ControlTask

ROUND = 0.1  # share of the teacher's variance that is the same for all actions


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Advice:
    """What the teacher would do in one state: u ~ N(mean, chol chol')."""

    mean: Float[Array, " nu"]  # inside the limits
    chol: Float[Array, "nu nu"]

    def closer_to(self, mean: Float[Array, " nu"], std: Float[Array, " nu"], weight: Float[Array, ""]) -> Advice:
        """The p that minimises KL(p || advice) + weight KL(p || N(mean, D)), where D = diag std^2.

        Of precision (S^-1 + weight D^-1) / (1 + weight): with G = S (S + D / weight)^-1 the mean is u + G (mean - u),
        the covariance (1 + weight) (S - G S).
        """
        S = self.chol @ self.chol.T
        gain = jnp.linalg.solve(weight * S + jnp.diag(std**2), weight * S).T  # G, also of weight 0
        cov = (1.0 + weight) * (S - gain @ S)
        return Advice(self.mean + gain @ (mean - self.mean), jnp.linalg.cholesky(0.5 * (cov + cov.T)))


@dataclass(frozen=True)
class Lookahead:
    """Plans for one episode at a time; a plan is the controllers of the next H steps, in absolute coordinates."""

    task: ControlTask
    dynamics: Callable[..., Any]  # x' from x, u, t and the params (context, time of the plan, what the model learned)
    horizon: int  # H, actions of a plan
    every: int  # actions between two plans
    iterations: int  # of iLQR for each
    std: float  # mean standard deviation of an action

    def begin(self, nominal: LinearGaussian) -> LinearGaussian:
        """What stands for the last plan before the first."""
        return _window(nominal, -self.every, self.horizon)

    def plan(
        self,
        last: LinearGaussian,
        nominal: LinearGaussian,
        x: Float[Array, " nx"],
        params: tuple[Array, Array, Any],
        usable: Bool[Array, ""],
    ) -> tuple[LinearGaussian, Bool[Array, ""]]:
        """The plan from state x, and whether there is one; else it is the last one, moved on.

        Args:
            last: the plan before.
            nominal: for the whole episode.
            x: where the episode has come to.
            params: the episode's context, the time, and what the model has learned.
            usable: whether the model says anything yet; where it does not, the last plan is moved on.
        """
        t, last_stage = params[1], self.task.horizon - 1
        tail = _window(nominal, t + self.horizon - self.every, self.every)
        old = jax.tree.map(lambda a, b: jnp.concatenate([a[self.every :], b]), last, tail)
        us = follow(lambda x, u, t: self.dynamics(x, u, t, params), x, old, 1.0)
        solution = ilqr.solve(
            self.dynamics,
            # the stage of the window's own time; an episode's last one goes on beyond its end
            _of(self.task.cost, lambda x, u, t, params: (x, u, jnp.minimum(params[1] + t, last_stage), params[0])),
            x,
            us,
            final_cost=_of(self.task.final_cost, lambda x, params: (x, params[0])),
            params=params,
            limits=(-1.0, 1.0),
            # a fixed number of iterations: nobody waits for another
            options=ilqr.Options(max_iterations=self.iterations, line_search_steps=4, batching="lockstep"),
        )
        new = solution.controller()
        # an episode that has gone far astray has no plan, and NaN is what iLQR answers
        found = all_finite(new, batched=False)
        return select(found & usable, new, old), found

    def advise(self, plan: LinearGaussian, step: Int[Array, ""], x: Float[Array, " nx"]) -> Advice:
        """What to do in state x, `step` actions after the plan was made.

        Deviations cost what Q_uu says, so that the covariance has the form of its inverse; its size is `std`.
        """
        C = plan.chol[step] @ plan.chol[step].T
        nu = len(C)
        trace = jnp.trace(C)
        form = jnp.where(trace > 0, C * nu / jnp.where(trace > 0, trace, 1.0), jnp.eye(nu))
        cov = self.std**2 * ((1.0 - ROUND) * form + ROUND * jnp.eye(nu))
        return Advice(jnp.clip(plan.act(step, x), -1.0, 1.0), jnp.linalg.cholesky(cov))


def _of(cost, arguments: Callable[..., tuple]):
    """The cost, of least squares or not, as a function of what `arguments` makes its own arguments of."""

    def adapted(function):
        return lambda *given: function(*arguments(*given))

    return LeastSquares(adapted(cost.residual)) if isinstance(cost, LeastSquares) else adapted(cost)


def _window(controller: LinearGaussian, first: Int[Array, ""] | int, count: int) -> LinearGaussian:
    """Its steps from `first` on; beyond either end those at the end."""
    index = jnp.clip(first + jnp.arange(count), 0, len(controller.k) - 1)
    return jax.tree.map(lambda a: a[index], controller)
