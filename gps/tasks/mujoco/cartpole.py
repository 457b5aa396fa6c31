"""`cartpole`: a cart swings up the pole that hangs on it, and holds it.

States: the cart's position (m), the pole's angle (rad; 0 upright, pi hanging) and their velocities. Action: a force on
the cart of up to 10 N, about the weight of cart and pole. The learner sees position, cosine and sine of the angle, and
velocities. Cost: angle (the same after a whole turn), position, velocities and action. Score: angle from upright, mean
of the last 10 steps, in degrees. Solved: below 0.2 rad in all of them. Contexts: position, angle and their velocities
at the start, around hanging.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gps.settings import check_at_least
from gps.tasks import contexts, costs
from gps.tasks.mujoco.pendulum import from_upright
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score

SPREAD = (0.3, 0.5, 0.1, 0.5)  # m, rad, m/s, rad/s: largest distance of a start from hanging at rest


@dataclass(frozen=True)
class CartpoleSettings:
    """The task's numbers."""

    horizon: int = 50  # actions of 0.05 s
    train_starts: int = 32  # spread evenly over the contexts
    test_starts: int = 40  # drawn at random, the same in every run
    angle_weight: float = 1.0  # of 1/2 (2 sin(angle / 2))^2
    position_weight: float = 0.2  # of 1/2 position^2, per m^2
    velocity_weight: float = 0.02  # of 1/2 velocity^2, per (m/s)^2 and (rad/s)^2
    action_weight: float = 0.2  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 10, "horizon")
        check_at_least(self, 1, "train_starts", "test_starts")
        check_at_least(self, 0, "angle_weight", "position_weight", "velocity_weight", "action_weight")


class Cartpole(MujocoTask):
    """See the top of this file."""

    score = Score("angle", "degrees")

    def __init__(self, settings: CartpoleSettings, engine: str = "auto", name: str = "cartpole"):
        self.settings = s = settings
        starts = (contexts.spread(s.train_starts, 4), contexts.drawn(s.test_starts, 4))
        around = tuple(np.array([0.0, np.pi, 0.0, 0.0]) + points * SPREAD for points in starts)
        super().__init__(load("cartpole.xml", __file__), engine, name, around, s.horizon, 5)

    def start(self, context: Float[Array, "4"]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """What the context says."""
        return context[:2], context[2:]

    def skeleton(self, x: Float[Array, "4"]) -> Float[Array, "2 3"]:
        """Both ends of the pole, in metres."""
        return self.positions(x, "pole", "end")

    def observe(self, x: Float[Array, "4"], context: Array, noise: Array) -> Float[Array, "5"]:
        """Position, cosine and sine of the angle, velocities."""
        del context, noise
        return jnp.concatenate([x[:1], jnp.cos(x[1:2]), jnp.sin(x[1:2]), x[2:]])

    def residual(self, x: Float[Array, "4"], u: Float[Array, "1"], t, context: Array) -> Float[Array, "5"]:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "4"], context: Array) -> Float[Array, "4"]:
        """What the stage costs without the action."""
        del context
        s = self.settings
        return costs.total(
            costs.angle(x[1], 0.0, s.angle_weight),
            costs.quadratic(x[:1], s.position_weight),
            costs.quadratic(x[2:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 1"], context: Array) -> Array:
        """Angle from upright in degrees, mean of the last 10 steps."""
        del us, context
        return jnp.degrees(from_upright(xs[:, 1])).mean()

    def solved(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 1"], context: Array) -> Array:
        """Whether it stayed below 0.2 rad."""
        del us, context
        return (from_upright(xs[:, 1]) < 0.2).all()
