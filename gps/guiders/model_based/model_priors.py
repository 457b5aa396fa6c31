"""Priors of the dynamics that take the task's known model: as it is, or with parameters that fit the samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from controllers import ilqr
from dynamics import buffer, known_model, parameters
from dynamics.adjustable import adjustable
from dynamics.buffer import Buffer
from dynamics.identify import Identification, Segments
from dynamics.prior import Prior
from dynamics.simulator import joints_size, state_size
from gps.guiders.model_based.deviations import Deviations
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import LocalModelSettings
from gps.tasks.control_task import ControlTask, condition_mocap, known_simulator


@dataclass(frozen=True)
class Known:
    """See `gps.guiders.model_based.priors`.

    Errors:
        ValueError for a task without a model that has derivatives, or one whose controllers have another state.
    """

    task: ControlTask
    settings: LocalModelSettings
    certain = True

    def __post_init__(self):
        _require_model(self.task)

    def init(self) -> Any:
        return ()

    def update(self, state: Any, samples: Samples) -> Any:
        return state

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        def along(xs, us, context):
            mocap = condition_mocap(self.task, context)
            A, B = known_model.jacobians(known_simulator(self.task), xs[:-1], us, mocap)
            return jnp.concatenate([A, B], axis=-1)

        return _of_model(jax.vmap(along)(deviations.xs, deviations.us, self.task.train_contexts), deviations)

    def dynamics(self, x: Array, u: Array, t: Array, params: tuple[Array, Array, Any]) -> Array:
        """x' for plans; `params` are the context, a time that does not matter, and the prior's state."""
        return known_model.known_dynamics(known_simulator(self.task), condition_mocap(self.task, params[0]))(x, u, t)


@dataclass(frozen=True)
class IdentifiedModel:
    """See `gps.guiders.model_based.priors`. Its state: transitions, and the logarithms of the parameters' factors.

    A row of the transitions is (simulator's state, action, x').

    Errors:
        ValueError as `Known`, and for parameters that the model does not have.
    """

    task: ControlTask
    settings: LocalModelSettings
    points: int = 500  # transitions that it is fitted to, the last ones
    iterations: int = 5  # of a fit, which begins where the last one ended
    certain = False

    def __post_init__(self):
        _require_model(self.task)
        _ = self.problem  # or ValueError

    @cached_property
    def problem(self) -> Identification:
        """What is fitted."""
        simulator = known_simulator(self.task)
        names = self.settings.identify or parameters.usual(simulator.model)
        return Identification(adjustable(simulator, parameters.select(simulator.model, names)))

    def init(self) -> tuple[Buffer, Float[Array, " p"]]:
        row = state_size(self.task.simulator.model) + self.task.nu + self.task.nx
        return buffer.empty(self.points, row), jnp.zeros(len(self.problem.adjustable.parameters.names))

    def update(self, state: Any, samples: Samples) -> Any:
        kept, theta = state
        before = self._states(samples.xs[:, :, :-1])
        rows = jnp.concatenate([before, samples.us, samples.xs[:, :, 1:]], axis=-1)
        weights = jnp.broadcast_to(samples.weights[..., None], rows.shape[:-1])
        kept = buffer.add(kept, rows.reshape(-1, rows.shape[-1]), weights.ravel(), self.points // 2)
        states, us, after = jnp.split(kept.points, [before.shape[-1], before.shape[-1] + self.task.nu], axis=1)
        transitions = Segments(states, us[:, None], after[:, None], kept.weights)
        return kept, self.problem.solve(transitions, theta, self.iterations).theta

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        slopes = jax.vmap(jax.vmap(self.problem.adjustable.slope, in_axes=(None, 0, 0)), in_axes=(None, 0, 0))
        return _of_model(slopes(state[1], self._states(deviations.xs[:, :-1]), deviations.us), deviations)

    @property
    def dynamics(self) -> ilqr.Dynamics:
        """As those of `Known`, with the parameters that fit."""

        def physics(x, params):
            return jnp.concatenate([jnp.zeros(1), x, condition_mocap(self.task, params[0])])

        def step(x, u, t, params):
            del t
            return self.problem.adjustable.predict(params[2][1], physics(x, params), u[None])[0]

        def jacobian(x, u, t, params):
            del t
            slope = self.problem.adjustable.slope(params[2][1], physics(x, params), u)
            return slope[:, : len(x)], slope[:, len(x) :]

        return ilqr.Dynamics(step, jacobian)

    def _states(self, xs: Float[Array, "M *N T nx"]) -> Float[Array, "M *N T nstate"]:
        """The simulator's states at time zero, with the mocap bodies of each condition."""
        mocap = jax.vmap(lambda context: condition_mocap(self.task, context))(self.task.train_contexts)
        mocap = jnp.broadcast_to(mocap.reshape(len(xs), *[1] * (xs.ndim - 2), -1), (*xs.shape[:-1], mocap.shape[-1]))
        return jnp.concatenate([jnp.zeros_like(xs[..., :1]), xs, mocap], axis=-1)


def _of_model(jacobians: Float[Array, "M T nx nz"], deviations: Deviations) -> Prior:
    """The prior with derivatives [A B] of a model; where it diverges it says that nothing changes."""
    nx = jacobians.shape[-2]
    slope = jacobians.at[..., :nx].add(-jnp.eye(nx))
    sound: Array = jnp.where(jnp.isfinite(slope), slope, 0.0)
    return deviations.believed(sound)


def _require_model(task: ControlTask) -> None:
    """Raise ValueError where a task has no model with derivatives, or its controllers another state than the model."""
    simulator = known_simulator(task)
    others = "take 'window', 'mixture' or 'neural'"
    model = getattr(simulator, "model", None)
    if model is None:
        raise ValueError(f"task {task.name} has no MuJoCo model that has derivatives: {others}")
    x = jnp.arange(1.0, joints_size(model))
    mocap = condition_mocap(task, task.train_contexts[0])
    try:
        jax.eval_shape(lambda x: known_model.jacobians(simulator, x, jnp.zeros((1, model.nu)), mocap), x[None])
    except ValueError as error:
        raise ValueError(f"task {task.name} has a model without derivatives ({error}), or {others}") from error
    if not np.array_equal(task.control_state(jnp.concatenate([jnp.zeros(1), x, mocap])), x):
        raise ValueError(
            "controllers must have the physics state (qpos, qvel, act) as theirs, and task "
            f"{task.name} has another `control_state`: {others}"
        )
