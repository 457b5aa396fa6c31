"""What the tasks of the seven-joint arm share: `arm-reach`, `peg` and its variants."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from gps.tasks.mujoco_task import MujocoTask

# The peg points straight down, its tip 0.22 m above the table and 0.55 m before the shoulder. Found by inverse
# kinematics with the arm in the vertical plane; rad.
DOWN = (0.0, -0.8072, 0.0, 1.8054, 0.0, 0.5727, 0.0)
LINKS = ("shoulder", "upper", "forearm", "wrist", "tip")


class Arm(MujocoTask):
    """A `MujocoTask` whose start is `DOWN`. x = (7 joint angles in rad, 7 velocities in rad/s).

    u = torques, in shares of the largest of each joint: pan 30, lift 50, roll 15, elbow 25, forearm 5, wrist 6 and
    hand 2 Nm. The weight of the arm takes up to 0.3 of them.
    """

    start_noise = 0.01

    def start(self, context: Array) -> tuple[Float[Array, "7"], Float[Array, "7"]]:
        """The arm at rest above the table."""
        del context
        return jnp.asarray(DOWN), jnp.zeros(7)

    def skeleton(self, x: Float[Array, "14"]) -> Float[Array, "5 3"]:
        """Shoulder, upper arm, elbow, wrist and tip of the peg, in metres."""
        return self.positions(x, *LINKS)
