"""A simulator whose physical parameters are an argument: what it predicts, and how that changes with them.

Engine "mjx" differentiates exactly. The C engine takes centred finite differences, in double precision on the host, and
compiles nothing: parameters are few, so that a sensitivity costs two roll-outs a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynamics.known_model import known_dynamics
from dynamics.mujoco_engine import MujocoSimulator, call_on_host
from dynamics.parameters import Parameters
from dynamics.simulator import Simulator, joints_size, require_coordinates, state_size

if TYPE_CHECKING:  # it takes half a second to import
    from dynamics.mjx_engine import MjxSimulator

STEP = 1e-4  # of theta; the solver of constraints leaves 1e-8 in a state, and the next term of the series is as small


class Adjustable(Protocol):
    """What identification needs of an engine. All methods are for one state; `vmap` and `jit` them.

    `theta` (p) are logarithms of the parameters' factors, `state` (nstate) is a simulator's; what is predicted are
    states x = (qpos, qvel, act), of `nx` numbers. What diverges is NaN.
    """

    parameters: Parameters

    def predict(self, theta: Array, state: Array, actions: Float[Array, "W nu"]) -> Float[Array, "W nx"]:
        """The states after each of W actions."""
        ...

    def sensitivity(self, theta: Array, state: Array, actions: Float[Array, "W nu"]) -> Float[Array, "W nx p"]:
        """Derivatives of them with respect to theta."""
        ...

    def slope(self, theta: Array, state: Array, action: Float[Array, " nu"]) -> Float[Array, "nx nx+nu"]:
        """Derivatives of the state after one action with respect to x and the action."""
        ...


def adjustable(simulator: Simulator, parameters: Parameters) -> Adjustable:
    """A simulator of the same engine with parameters as an argument.

    Errors:
        ValueError where positions are not their own coordinates (nq != nv), and for a simulator of neither engine.
    """
    require_coordinates(simulator.model)
    if isinstance(simulator, MujocoSimulator):
        return AdjustableMujoco(simulator, parameters)
    if not hasattr(simulator, "adjusted"):  # as MJX's has, whose module takes long to import
        raise ValueError(
            "parameters can be adjusted in a simulator that dynamics.engines.make_simulator has made alone"
        )
    in_jax: Any = simulator
    return AdjustableMjx(in_jax, parameters)


class AdjustableMjx:
    """See `Adjustable`; all of it is JAX code."""

    def __init__(self, simulator: MjxSimulator, parameters: Parameters):
        self.parameters = parameters
        self._simulator = simulator

    def predict(self, theta: Array, state: Array, actions: Float[Array, "W nu"]) -> Float[Array, "W nx"]:
        """See `Adjustable.predict`."""
        simulator = self._at(theta)

        def step(state, action):
            after = simulator.step(state, action)
            return after, after[1 : joints_size(simulator.model)]

        return jax.lax.scan(step, state, actions)[1]

    def sensitivity(self, theta: Array, state: Array, actions: Float[Array, "W nu"]) -> Float[Array, "W nx p"]:
        """See `Adjustable.sensitivity`."""
        return jax.jacfwd(self.predict)(theta, state, actions)

    def slope(self, theta: Array, state: Array, action: Float[Array, " nu"]) -> Float[Array, "nx nx+nu"]:
        """See `Adjustable.slope`."""
        n = joints_size(self._simulator.model)
        dynamics = known_dynamics(self._at(theta), state[n:])
        return jnp.concatenate(jax.jacfwd(dynamics, argnums=(0, 1))(state[1:n], action, 0), axis=-1)

    def _at(self, theta: Array) -> MjxSimulator:
        return self._simulator.adjusted(self.parameters.fields(self._simulator.model, theta))


class AdjustableMujoco:
    """See `Adjustable`; each method is one call of the host for all that it is vmapped over."""

    def __init__(self, simulator: MujocoSimulator, parameters: Parameters):
        self.parameters = parameters
        self._simulator = simulator
        self._nstate, self._njoints = state_size(simulator.model), joints_size(simulator.model)

    def predict(self, theta: Array, state: Array, actions: Float[Array, "W nu"]) -> Float[Array, "W nx"]:
        """See `Adjustable.predict`."""
        return self._call(self._predict, theta, state, actions, (len(actions), self._njoints - 1))

    def sensitivity(self, theta: Array, state: Array, actions: Float[Array, "W nu"]) -> Float[Array, "W nx p"]:
        """See `Adjustable.sensitivity`."""
        return self._call(self._sensitivity, theta, state, actions, (len(actions), self._njoints - 1, theta.size))

    def slope(self, theta: Array, state: Array, action: Float[Array, " nu"]) -> Float[Array, "nx nx+nu"]:
        """See `Adjustable.slope`.

        Errors:
            ValueError for the integrator RK4.
        """
        self._simulator.require_derivatives()
        nx = self._njoints - 1
        return self._call(self._slope, theta, state, action[None], (nx, nx + action.size))

    def _call(self, callback: Callable, theta: Array, state: Array, actions: Array, shape: tuple[int, ...]) -> Array:
        """`callback(theta, rows)` of the rows (state, actions) of each theta."""
        p = theta.size

        def by_theta(rows):
            thetas, of = np.unique(rows[:, :p].astype(np.float64), axis=0, return_inverse=True)
            answer = np.full((len(rows), *shape), np.nan)
            for i, each in enumerate(thetas):
                if np.isfinite(each).all():
                    answer[of == i] = callback(each, rows[of == i, p:])
            return answer

        return call_on_host(by_theta, jnp.concatenate([theta, state, actions.ravel()]), shape)

    # Inside a callback numpy alone, as in the engine.

    def _predict(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        simulator, nu = self._at(theta), self._simulator.model.nu
        state, actions = rows[:, : self._nstate], rows[:, self._nstate :].reshape(len(rows), -1, nu)
        predicted = np.empty((len(rows), actions.shape[1], self._njoints - 1))
        for t in range(actions.shape[1]):
            state = simulator.advance_rows(np.concatenate([state, actions[:, t]], axis=1))
            predicted[:, t] = state[:, 1 : self._njoints]
        return predicted

    def _sensitivity(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        moves = STEP * np.eye(theta.size)
        slopes = [(self._predict(theta + h, rows) - self._predict(theta - h, rows)) / (2 * STEP) for h in moves]
        return np.stack(slopes, axis=-1)

    def _slope(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        jacobians, n = self._at(theta).differentiate_rows(rows)[:, 1 : self._njoints], self._njoints
        return np.concatenate([jacobians[:, :, 1:n], jacobians[:, :, self._nstate :]], axis=-1)

    def _at(self, theta: np.ndarray) -> MujocoSimulator:
        return MujocoSimulator(self.parameters.adjusted(self._simulator.model, theta), self._simulator.substeps)
