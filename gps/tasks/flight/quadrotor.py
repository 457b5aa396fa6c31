"""A quadrotor that follows commanded body rates and collective thrust at once, in JAX.

With position p and velocity v in the world's frame (z up), attitude q (a quaternion w x y z, from the body's frame to
the world's; body x is forward, y left, z up along the thrust), thrust f per mass and body rates w:

    p' = v
    v' = f R(q) e_z - g e_z - drag v
    q' = q (0, w) / 2
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from controllers.integrators import rk4

GRAVITY = 9.81  # m/s^2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Body:
    """Where a quadrotor is and how it moves."""

    place: Float[Array, "3"]  # m
    velocity: Float[Array, "3"]  # m/s, in the world's frame
    attitude: Float[Array, "4"]  # a unit quaternion, w x y z

    @property
    def turn(self) -> Float[Array, "3 3"]:
        """The rotation from the body's frame to the world's."""
        w, x, y, z = self.attitude
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        return jnp.stack([jnp.stack(row) for row in rows])

    @property
    def heading(self) -> Float[Array, "2"]:
        """The horizontal direction in which it looks: that of body x, of length 1."""
        ahead = self.turn[:2, 0]
        return ahead / jnp.maximum(jnp.linalg.norm(ahead), 1e-6)


def facing(place: Float[Array, "3"], angle: Float[Array, ""]) -> Body:
    """A body at rest, level, that looks in a direction: `angle` in rad from x towards y."""
    zero = jnp.zeros_like(angle)
    return Body(place, jnp.zeros(3), jnp.stack([jnp.cos(angle / 2), zero, zero, jnp.sin(angle / 2)]))


def fly(body: Body, thrust: Float[Array, ""], rates: Float[Array, "3"], dt: float, drag: float) -> Body:
    """The body after dt seconds of a command, by one step of the fourth-order Runge-Kutta method.

    Args:
        thrust: in m/s^2, along body z.
        rates: in rad/s, around body x, y and z.
        drag: in 1/s.
    """
    spin = jnp.tensordot(rates, jnp.asarray(_SPIN), 1)
    weight = jnp.array([0.0, 0.0, GRAVITY])

    def rate(x: Float[Array, "10"]) -> Float[Array, "10"]:
        velocity, q = x[3:6], x[6:]
        force = thrust * (jnp.asarray(_UP) * (q[:, None] * q)).sum((1, 2)) - weight
        return jnp.concatenate([velocity, force - drag * velocity, (spin * q).sum(1)])

    x = rk4(rate, jnp.concatenate([body.place, body.velocity, body.attitude]), dt)
    return Body(x[:3], x[3:6], x[6:] / jnp.linalg.norm(x[6:]))


# Sums over constants, as XLA computes the stages anew for each number of what is put together by components.
_SPIN = 0.5 * np.array(  # q (0, w) / 2 as a matrix times q, for each of the rates
    [
        [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, -1, 0]],
        [[0, 0, -1, 0], [0, 0, 0, -1], [1, 0, 0, 0], [0, 1, 0, 0]],
        [[0, 0, 0, -1], [0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0]],
    ]
)
_UP = np.array(  # body z as quadratic forms of q
    [
        [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]],
        [[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],
        [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]],
    ],
    float,
)
