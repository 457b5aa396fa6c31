"""A simulator as a known model, and its derivatives: exact through MJX, finite differences through the C engine.

The model's state is x = (qpos, qvel, act): the physics state without the time. Both need nq == nv (no
quaternions), because they differentiate with respect to qpos itself.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynamics.simulator import Simulator, joints_size, physics_state, require_coordinates


def known_dynamics(
    simulator: Simulator, mocap: Float[Array, " 7*nmocap"] | None = None
) -> Callable[[Array, Array, Array], Array]:
    """`dynamics(x, u, t) -> x'` of a simulator, for solvers of known models such as `controllers.ilqr`.

    t is not used. Derivatives are those of `Simulator.step`, in forward and (MJX: without constraints) in reverse
    mode, under jit, vmap, scan and while_loop. Engine "mjx" compiles the physics and differentiates it exactly:
    for models without contacts. Engine "mujoco" compiles nothing and is called back for each step, and once for
    the Jacobians of a whole vmap: for models with contacts on a CPU, and for a quick start.

    Args:
        mocap: poses of the mocap bodies as at the end of a physics state; the model's own by default.

    Errors:
        ValueError where the model's positions are not its own coordinates (nq != nv), and where the C engine
        is to differentiate the integrator RK4.
    """
    model = simulator.model
    require_coordinates(model)
    n = joints_size(model)
    poses = physics_state(model, jnp.zeros(model.nq), jnp.zeros(model.nv))[n:] if mocap is None else mocap

    def dynamics(x, u, t):
        del t
        return simulator.step(jnp.concatenate([jnp.zeros(1, x.dtype), x, poses.astype(x.dtype)]), u)[1:n]

    return dynamics


def jacobians(
    simulator: Simulator,
    xs: Float[Array, "T nx"],
    us: Float[Array, "T nu"],
    mocap: Float[Array, " 7*nmocap"] | None = None,
) -> tuple[Float[Array, "T nx nx"], Float[Array, "T nx nu"]]:
    """A = dx'/dx and B = dx'/du along a trajectory; arguments and errors are those of `known_dynamics`."""
    dynamics = known_dynamics(simulator, mocap)
    return jax.vmap(jax.jacfwd(dynamics, argnums=(0, 1)), in_axes=(0, 0, None))(xs, us, 0)
