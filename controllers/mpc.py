"""Receding-horizon control (model predictive control): iLQR again at every step, from the last plan moved on.

    plan = mpc.start(problem, x0, us)                # solve from scratch, as long as it takes
    plan = mpc.step(problem, plan, x)                # a fixed number of iterations from the measured state x
    u = plan.action                                  # apply it

A step is one compiled program that is the same from step to step; `Problem` says what is solved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import ilqr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Problem:
    """What is solved at every step, over a horizon that starts now; functions as for `ilqr.solve`.

    Their t counts from now: what changes from step to step, such as a reference, goes into `params`. States and
    actions are flat arrays. There are no general constraints: a few iterations a step could not make them hold.
    """

    dynamics: Callable[..., Any]
    cost: Callable[..., Any]
    final_cost: Callable[..., Any] | None = None  # of the state at the end of the horizon
    limits: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # lowest and highest action, nu numbers each
    iterations: int = 2  # of iLQR per step
    options: ilqr.Options | None = None  # of the first solve, and of the steps but for their iterations

    def __post_init__(self):
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations!r}")
        if self.limits is not None:  # hashable, so that it can key what was compiled
            if len(self.limits) != 2:
                raise ValueError(f"limits must be a pair (low, high), not {self.limits!r}")
            low, high = (tuple(np.asarray(limit, float).ravel().tolist()) for limit in self.limits)
            if len(low) != len(high) or not all(a <= b for a, b in zip(low, high, strict=True)):
                raise ValueError(f"limits must have low <= high for each action, not {low} and {high}")
            object.__setattr__(self, "limits", (low, high))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Plan:
    """The plan from one measured state."""

    action: Float[Array, " nu"]  # to apply now
    us: Float[Array, "T nu"]
    xs: Float[Array, "T+1 nx"]  # xs[0] is the measured state
    K: Float[Array, "T nu nx"]  # gains around the plan; K[0] for what changes before the next step
    cost: Float[Array, ""]  # of the plan, in task units
    status: Int[Array, ""]  # an ilqr.Status; ITERATION_LIMIT is the usual one


def start(problem: Problem, x0: Float[Array, " nx"], us: Float[Array, "T nu"], params: Any = None) -> Plan:
    """The first plan, by a full solve.

    Errors:
        ValueError as `ilqr.solve`.
    """
    return _plan(problem, problem.options or ilqr.Options(), x0, us, params)


def step(problem: Problem, plan: Plan, x: Float[Array, " nx"], params: Any = None) -> Plan:
    """The next plan: from the state x, measured one step later, starting with the last plan moved on by one.

    The iterations start from where the old plan's feedback leads from x, its last action repeated; its actions
    alone would lead astray wherever the plant is unstable.
    """
    return _step(problem, plan, x, params)


@partial(jax.jit, static_argnums=0)
def _step(problem: Problem, plan: Plan, x, params) -> Plan:
    args = () if params is None else (params,)
    limits = None if problem.limits is None else jnp.array(problem.limits, plan.us.dtype)

    def follow(x, old):
        u_old, x_old, K, t = old
        u = u_old + K @ (x - x_old)
        u = jnp.where(jnp.isfinite(u), u, u_old)  # a measurement or a plan that failed does not outlast its step
        u = u if limits is None else jnp.clip(u, limits[0], limits[1])
        return problem.dynamics(x, u, t, *args), u

    last = (plan.us[-1], plan.xs[-1], jnp.zeros_like(plan.K[-1]))
    moved = [jnp.concatenate([a[1:], b[None]]) for a, b in zip((plan.us, plan.xs[:-1], plan.K), last, strict=True)]
    _, us = jax.lax.scan(follow, x, (*moved, jnp.arange(len(plan.us))))
    return _plan(problem, replace(problem.options or ilqr.Options(), max_iterations=problem.iterations), x, us, params)


def simulate(
    problem: Problem,
    plan: Plan,
    model: Callable[..., Any],
    steps: int,
    params: Any = None,
) -> tuple[Float[Array, "steps+1 nx"], Float[Array, "steps nu"], Float[np.ndarray, " steps"]]:
    """Run the controller on `model(x, u, t)` (nx), which may differ from the plan's, from the plan's state.

    Returns:
        States, actions, and the seconds that each `step` took, without the model's own. The first step, which
        compiles, is done once beforehand.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps!r}")
    jax.block_until_ready(step(problem, plan, plan.xs[0], params))
    xs, us, seconds = [plan.xs[0]], [], []
    for t in range(steps):
        us.append(plan.action)
        xs.append(jax.block_until_ready(jnp.asarray(model(xs[-1], us[-1], t), xs[0].dtype)))
        began = time.perf_counter()
        plan = jax.block_until_ready(step(problem, plan, xs[-1], params))
        seconds.append(time.perf_counter() - began)
    return jnp.stack(xs), jnp.stack(us), np.array(seconds)


def latency(seconds: Float[np.ndarray, " steps"]) -> dict[str, float]:
    """Median, 90th and 99th percentile and worst of step times, in milliseconds."""
    p50, p90, p99, worst = 1e3 * np.percentile(seconds, [50, 90, 99, 100])
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "max": float(worst)}


def _plan(problem: Problem, options: ilqr.Options, x, us, params) -> Plan:
    solution = ilqr.solve(
        problem.dynamics,
        problem.cost,
        x,
        us,
        final_cost=problem.final_cost,
        params=params,
        limits=None if problem.limits is None else (jnp.array(problem.limits[0]), jnp.array(problem.limits[1])),
        options=options,
    )
    return Plan(
        action=solution.actions[0],
        us=solution.actions,
        xs=solution.states,
        K=solution.K,
        cost=solution.cost,
        status=solution.status,
    )
