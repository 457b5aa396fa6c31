"""A simulator as a known model: exact derivatives through MJX, finite differences through the C engine.

The model's state is x = (qpos, qvel, act): the physics state without the time. Both need nq == nv (no
quaternions), because they differentiate with respect to qpos itself.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dynamics.simulator import Simulator


def known_dynamics(simulator: Simulator) -> Callable[[Array, Array, Array], Array]:
    """`dynamics(x, u, t) -> x'` of a simulator, for solvers of known models such as `controllers.ilqr`.

    Differentiable where the simulator is (engine "mjx"); t is not used.

    Errors:
        ValueError where the model's positions are not its own coordinates (nq != nv).
    """
    _check(simulator.model)

    def dynamics(x, u, t):
        del t
        return simulator.step(jnp.concatenate([jnp.zeros(1, x.dtype), x]), u)[1:]

    return dynamics


def jacobians(
    simulator: Simulator, xs: Float[Array, "T nx"], us: Float[Array, "T nu"]
) -> tuple[Float[Array, "T nx nx"], Float[Array, "T nx nu"]]:
    """A = dx'/dx and B = dx'/du along a trajectory by `jax.jacfwd`; the simulator must be MJX."""
    dynamics = known_dynamics(simulator)
    return jax.vmap(jax.jacfwd(dynamics, argnums=(0, 1)), in_axes=(0, 0, None))(xs, us, 0)


def finite_difference_jacobians(
    simulator: Simulator, xs: np.ndarray, us: np.ndarray, epsilon: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """The same A (T nx nx) and B (T nx nu) by MuJoCo's centred `mjd_transitionFD`, physics step by physics step.

    Plain numpy in float64, nothing is compiled: the better choice for models with contacts on a CPU.
    """
    model = simulator.model
    _check(model)
    data = mujoco.MjData(model)
    nx, nu = 2 * model.nv + model.na, model.nu
    A, B = np.zeros((len(us), nx, nx)), np.zeros((len(us), nx, nu))
    a, b = np.zeros((nx, nx)), np.zeros((nx, nu))
    for t, (x, u) in enumerate(zip(np.asarray(xs, float), np.asarray(us, float), strict=True)):
        data.qpos[:], data.qvel[:], data.act[:] = np.split(x, [model.nq, model.nq + model.nv])
        data.ctrl[:] = u
        A[t] = np.eye(nx)
        for _ in range(simulator.substeps):
            mujoco.mjd_transitionFD(model, data, epsilon, True, a, b, None, None)
            A[t], B[t] = a @ A[t], a @ B[t] + b
            mujoco.mj_step(model, data)
    return A, B


def _check(model: mujoco.MjModel) -> None:
    if model.nq != model.nv:
        raise ValueError(f"nq = {model.nq} but nv = {model.nv}: quaternion joints need tangent coordinates")
