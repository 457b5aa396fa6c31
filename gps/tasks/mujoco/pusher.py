"""`pusher`: a finger pushes a puck to a place, and leaves it there.

States: places of finger and puck in the plane (m), and their velocities (m/s). Actions: two forces of up to 8 N on the
finger, which can only push. The learner sees all of these, the goal, the offset from puck to goal and that from finger
to puck. Cost: square and logarithm of the distance of the puck from the goal, square of that of the finger from the
place behind the puck, velocities and actions. Score: distance of the puck from the goal at the end, in cm. Solved:
below 3 cm. Contexts: where the puck starts, to the side (m), and the goal (m).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gps.settings import check_at_least, check_positive
from gps.tasks import contexts, costs
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score

PUCK = (0.1, 0.0)  # m, around which the puck starts
CONTEXTS = ((0.0, 0.3, 0.0), (0.02, 0.06, 0.12))  # m: middle of puck's y, goal's x and y; the farthest from it
BEHIND = 0.07  # m, from the middle of the puck to that of a finger that touches it


@dataclass(frozen=True)
class PusherSettings:
    """The task's numbers."""

    horizon: int = 60  # actions of 0.05 s
    train_goals: int = 24  # spread evenly over the contexts
    test_goals: int = 40  # drawn at random, the same in every run
    distance_weight: float = 20.0  # of 1/2 distance^2 of the puck, per m^2
    log_weight: float = 0.1  # of 1/2 log(1 + distance^2 / precision^2) of the puck
    precision: float = 0.02  # m
    behind_weight: float = 5.0  # of 1/2 distance^2 of the finger from behind the puck, per m^2
    velocity_weight: float = 0.05  # of 1/2 velocity^2, per (m/s)^2
    action_weight: float = 0.02  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 2, "horizon")
        check_at_least(self, 1, "train_goals", "test_goals")
        check_positive(self, "precision")
        check_at_least(self, 0, "distance_weight", "log_weight", "behind_weight", "velocity_weight", "action_weight")


class Pusher(MujocoTask):
    """See the top of this file."""

    score = Score("distance", "cm")

    def __init__(self, settings: PusherSettings, engine: str = "auto", name: str = "pusher"):
        self.settings = s = settings
        middle, farthest = map(np.array, CONTEXTS)
        points = (contexts.spread(s.train_goals, 3), contexts.drawn(s.test_goals, 3))
        around = tuple(middle + p * farthest for p in points)
        super().__init__(load("pusher.xml", __file__), engine, name, around, s.horizon, 10)

    def start(self, context: Float[Array, "3"]) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
        """The finger at the origin, the puck before it and to the side; both at rest."""
        return jnp.stack([0.0, 0.0, 0.0, context[0]]), jnp.zeros(4)

    def skeleton(self, x: Float[Array, "8"]) -> Float[Array, "2 3"]:
        """Finger and puck, in metres."""
        return self.positions(x, "finger", "puck")

    def target(self, context: Float[Array, "3"]) -> Float[Array, "3"]:
        """The goal, in metres."""
        return jnp.append(context[1:], 0.0)

    def places(self, x: Float[Array, "*b 8"]) -> tuple[Float[Array, "*b 2"], Float[Array, "*b 2"]]:
        """Of finger and puck, in metres."""
        return x[..., :2], x[..., 2:4] + jnp.asarray(PUCK)

    def observe(self, x: Float[Array, "8"], context: Float[Array, "3"], noise: Array) -> Float[Array, "14"]:
        """State, goal, goal - puck, puck - finger."""
        del noise
        finger, puck = self.places(x)
        return jnp.concatenate([x, context[1:], context[1:] - puck, puck - finger])

    def residual(self, x: Float[Array, "8"], u: Float[Array, "2"], t, context: Float[Array, "3"]) -> Array:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "8"], context: Float[Array, "3"]) -> Array:
        """What the stage costs without the action."""
        s, (finger, puck) = self.settings, self.places(x)
        offset = puck - context[1:]
        away = offset / jnp.sqrt(
            offset @ offset + 0.02**2
        )  # from the goal; it fades within 2 cm, where no side is better
        return costs.total(
            costs.quadratic(offset, s.distance_weight),
            costs.log_distance(offset, s.log_weight, s.precision),
            costs.quadratic(finger - puck - BEHIND * away, s.behind_weight),
            costs.quadratic(x[4:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 8"], us: Float[Array, "T 2"], context: Float[Array, "3"]) -> Array:
        """Distance of the puck from the goal at the end, in cm."""
        del us
        return 100 * jnp.linalg.norm(self.places(xs[-1])[1] - context[1:])

    def solved(self, xs: Float[Array, "T+1 8"], us: Float[Array, "T 2"], context: Float[Array, "3"]) -> Bool[Array, ""]:
        """Whether that is below 3 cm."""
        return self.measure(xs, us, context) < 3.0
