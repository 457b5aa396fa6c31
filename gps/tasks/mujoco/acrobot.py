"""`acrobot`: two links with a motor between them swing up and stand on their end.

States: angles of shoulder (rad; 0 upright, pi hanging) and elbow (0 straight) and their velocities (rad/s). Action: a
torque at the elbow of up to 4 Nm. The learner sees cosines and sines of both angles, and the velocities. Cost: distance
of the end from its highest place, its logarithm, angle of the elbow, velocities and action. Score: that distance, mean
of the last 10 steps, in cm; the links are 50 cm long each. Solved: below 15 cm in all of them. Contexts: angles and
velocities at the start, around hanging.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gps.settings import check_at_least, check_positive
from gps.tasks import contexts, costs
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score

TOP = (0.0, 0.0, 1.0)  # m, highest place of the end
SPREAD = (0.3, 0.3, 0.3, 0.3)  # rad, rad/s: largest distance of a start from hanging at rest


@dataclass(frozen=True)
class AcrobotSettings:
    """The task's numbers."""

    horizon: int = 80  # actions of 0.05 s
    train_starts: int = 24  # spread evenly over the contexts
    test_starts: int = 40  # drawn at random, the same in every run
    distance_weight: float = 1.0  # of 1/2 distance^2, per m^2
    log_weight: float = 0.5  # of 1/2 log(1 + distance^2 / precision^2)
    precision: float = 0.2  # m
    velocity_weight: float = 0.01  # of 1/2 velocity^2, per (rad/s)^2
    action_weight: float = 0.05  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 10, "horizon")
        check_at_least(self, 1, "train_starts", "test_starts")
        check_positive(self, "precision")
        check_at_least(self, 0, "distance_weight", "log_weight", "velocity_weight", "action_weight")


class Acrobot(MujocoTask):
    """See the top of this file."""

    score = Score("distance", "cm")

    def __init__(self, settings: AcrobotSettings, engine: str = "auto", name: str = "acrobot"):
        self.settings = s = settings
        starts = (contexts.spread(s.train_starts, 4), contexts.drawn(s.test_starts, 4))
        around = tuple(np.array([np.pi, 0.0, 0.0, 0.0]) + points * SPREAD for points in starts)
        super().__init__(load("acrobot.xml", __file__), engine, name, around, s.horizon, 5)

    def start(self, context: Float[Array, "4"]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """What the context says."""
        return context[:2], context[2:]

    def skeleton(self, x: Float[Array, "4"]) -> Float[Array, "3 3"]:
        """Shoulder, elbow and end, in metres."""
        return self.positions(x, "upper", "lower", "end")

    def observe(self, x: Float[Array, "4"], context: Array, noise: Array) -> Float[Array, "6"]:
        """Cosines and sines of the angles, velocities."""
        del context, noise
        return jnp.concatenate([jnp.cos(x[:2]), jnp.sin(x[:2]), x[2:]])

    def residual(self, x: Float[Array, "4"], u: Float[Array, "1"], t, context: Array) -> Array:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "4"], context: Array) -> Array:
        """What the stage costs without the action."""
        del context
        s, offset = self.settings, self.position(x, "end") - jnp.asarray(TOP)
        return costs.total(
            costs.quadratic(offset, s.distance_weight),
            costs.log_distance(offset, s.log_weight, s.precision),
            costs.quadratic(x[2:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 1"], context: Array) -> Array:
        """Distance of the end from its highest place in cm, mean of the last 10 steps."""
        del us, context
        return self._distances(xs).mean()

    def solved(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 1"], context: Array) -> Array:
        """Whether it stayed below 15 cm."""
        del us, context
        return (self._distances(xs) < 15.0).all()

    def _distances(self, xs: Float[Array, "T+1 4"]) -> Float[Array, "10"]:
        ends = jax.vmap(lambda x: self.position(x, "end"))(xs[1:][-10:])
        return 100 * jnp.linalg.norm(ends - jnp.asarray(TOP), axis=-1)
