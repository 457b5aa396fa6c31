"""`arm-reach`: an arm with seven joints brings the tip of what it holds to a point, and to rest there.

States: 7 joint angles (rad) and velocities (rad/s). Actions: 7 torques, in shares of the largest. The learner sees
joint angles and velocities, the target and the offset from the tip to it (m). Cost: square and logarithm of the
distance, velocities and actions. Score: mean distance over the last 10 steps, in cm. Solved: within 2 cm. Contexts:
targets (m) in a box of 30 x 50 x 35 cm; training has its corners and points inside it, tests have others inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gps.settings import check_at_least, check_positive
from gps.tasks import costs
from gps.tasks.mujoco.arm import Arm
from gps.tasks.mujoco_task import load
from gps.tasks.task import Score

BOX = np.array([[0.40, -0.25, 0.15], [0.70, 0.25, 0.50]])  # m, from the foot of the column


@dataclass(frozen=True)
class ArmReachSettings:
    """The task's numbers."""

    horizon: int = 50  # actions of 0.05 s
    inside: int = 8  # training targets besides the 8 corners of the box
    test_targets: int = 40  # drawn at random, the same in every run
    # Share by which each mass, damping and gain of the arm is more or less than in the model that guiders are given.
    # The arm stays as it is. Start controllers and the priors "known" and "identified" take that model.
    model_error: float = 0.0
    distance_weight: float = 20.0  # of 1/2 distance^2, per m^2
    log_weight: float = 0.2  # of 1/2 log(1 + distance^2 / precision^2)
    precision: float = 0.01  # m
    velocity_weight: float = 0.01  # of 1/2 velocity^2, per (rad/s)^2
    action_weight: float = 0.02  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 2, "horizon")
        check_at_least(self, 1, "test_targets")
        check_positive(self, "precision")
        if not 0.0 <= self.model_error < 1.0:
            raise ValueError(f"model_error is a share, at least 0 and below 1, not {self.model_error}")
        check_at_least(self, 0, "inside", "distance_weight", "log_weight", "velocity_weight", "action_weight")


class ArmReach(Arm):
    """See the top of this file."""

    score = Score("distance", "cm")

    def __init__(self, settings: ArmReachSettings, engine: str = "auto", name: str = "arm-reach"):
        self.settings = s = settings
        self.model_error = s.model_error
        corners = np.stack(np.meshgrid(*BOX.T, indexing="ij"), -1).reshape(-1, 3)
        low, high = BOX
        # the i-th of a row of points that fill a cube evenly (Kronecker's, with powers of the plastic number)
        row = np.arange(1, s.inside + 1)[:, None] / np.array([1.2207, 1.4902, 1.8191]) + 0.5
        inside = low + (high - low) * (0.1 + 0.8 * (row % 1))
        test = np.random.default_rng(7).uniform(low, high, (s.test_targets, 3))
        super().__init__(
            load("arm_reach.xml", __file__), engine, name, (np.concatenate([corners, inside]), test), s.horizon, 10
        )

    def target(self, context: Float[Array, "3"]) -> Float[Array, "3"]:
        """What the tip is to reach, in metres."""
        return context

    def observe(self, x: Float[Array, "14"], context: Float[Array, "3"], noise: Array) -> Float[Array, "20"]:
        """Angles, velocities, target, target - tip."""
        del noise
        return jnp.concatenate([x, context, context - self.position(x, "tip")])

    def residual(self, x: Float[Array, "14"], u: Float[Array, "7"], t, context: Float[Array, "3"]) -> Array:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "14"], context: Float[Array, "3"]) -> Array:
        """What the stage costs without the action."""
        s, offset = self.settings, self.position(x, "tip") - context
        return costs.total(
            costs.quadratic(offset, s.distance_weight),
            costs.log_distance(offset, s.log_weight, s.precision),
            costs.quadratic(x[7:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 14"], us: Float[Array, "T 7"], context: Float[Array, "3"]) -> Array:
        """Distance of the tip in cm, mean of the last 10 steps."""
        del us
        tips = jax.vmap(lambda x: self.position(x, "tip"))(xs[1:][-10:])
        return 100 * jnp.linalg.norm(tips - context, axis=-1).mean()

    def solved(self, xs: Float[Array, "T+1 14"], us: Float[Array, "T 7"], context: Float[Array, "3"]) -> Array:
        """Whether that is below 2 cm."""
        return self.measure(xs, us, context) < 2.0
