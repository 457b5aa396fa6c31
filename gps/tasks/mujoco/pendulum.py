"""`pendulum`: a motor that is too weak to lift a pendulum swings it up, and holds it.

States: angle (rad; 0 upright, pi hanging) and velocity (rad/s). Action: a torque of up to 3 Nm, three fifths of what
would hold the pendulum level. The learner sees cosine and sine of the angle, and the velocity. Cost: angle (the same
after a whole turn), velocity and action. Score: angle from upright, mean of the last 10 steps, in degrees. Solved:
below 0.2 rad in all of them. Contexts: angle and velocity at the start, around hanging.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gps.settings import check_at_least
from gps.tasks import contexts, costs
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score

SPREAD = (0.3, 0.5)  # rad, rad/s: largest distance of a start from hanging at rest


@dataclass(frozen=True)
class PendulumSettings:
    """The task's numbers."""

    horizon: int = 60  # actions of 0.05 s
    train_starts: int = 16  # spread evenly over the contexts
    test_starts: int = 40  # drawn at random, the same in every run
    angle_weight: float = 1.0  # of 1/2 (2 sin(angle / 2))^2
    velocity_weight: float = 0.01  # of 1/2 velocity^2, per (rad/s)^2
    action_weight: float = 0.4  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 10, "horizon")
        check_at_least(self, 1, "train_starts", "test_starts")
        check_at_least(self, 0, "angle_weight", "velocity_weight", "action_weight")


class Pendulum(MujocoTask):
    """See the top of this file."""

    score = Score("angle", "degrees")

    def __init__(self, settings: PendulumSettings, engine: str = "auto", name: str = "pendulum"):
        self.settings = s = settings
        starts = (contexts.spread(s.train_starts, 2), contexts.drawn(s.test_starts, 2))
        around = tuple(np.array([np.pi, 0.0]) + points * SPREAD for points in starts)
        super().__init__(load("pendulum.xml", __file__), engine, name, around, s.horizon, 5)

    def start(self, context: Float[Array, "2"]) -> tuple[Float[Array, "1"], Float[Array, "1"]]:
        """What the context says."""
        return context[:1], context[1:]

    def skeleton(self, x: Float[Array, "2"]) -> Float[Array, "2 3"]:
        """Both ends of the rod, in metres."""
        return self.positions(x, "rod", "end")

    def observe(self, x: Float[Array, "2"], context: Array, noise: Array) -> Float[Array, "3"]:
        """Cosine and sine of the angle, velocity."""
        del context, noise
        return jnp.stack([jnp.cos(x[0]), jnp.sin(x[0]), x[1]])

    def residual(self, x: Float[Array, "2"], u: Float[Array, "1"], t, context: Array) -> Float[Array, "3"]:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "2"], context: Array) -> Float[Array, "2"]:
        """What the stage costs without the action."""
        del context
        s = self.settings
        return costs.total(costs.angle(x[0], 0.0, s.angle_weight), costs.quadratic(x[1:], s.velocity_weight))

    def measure(self, xs: Float[Array, "T+1 2"], us: Float[Array, "T 1"], context: Array) -> Array:
        """Angle from upright in degrees, mean of the last 10 steps."""
        del us, context
        return jnp.degrees(from_upright(xs[:, 0])).mean()

    def solved(self, xs: Float[Array, "T+1 2"], us: Float[Array, "T 1"], context: Array) -> Array:
        """Whether it stayed below 0.2 rad."""
        del us, context
        return (from_upright(xs[:, 0]) < 0.2).all()


def from_upright(angles: Float[Array, " T+1"]) -> Float[Array, "10"]:
    """Distance of an angle from zero, over the last 10 steps; in rad, at most pi."""
    last = angles[1:][-10:]
    return jnp.abs(jnp.arctan2(jnp.sin(last), jnp.cos(last)))
