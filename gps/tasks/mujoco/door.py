"""`door`: the arm hooks what it holds behind the handle of a door, and pulls it open.

States: 7 joint angles of the arm and that of the door (rad; 0 closed), and their velocities (rad/s). Actions: torques
of the arm's joints, in shares of the largest. The learner sees states, the place of the door, and the offsets from two
points of the peg, its tip and its upper end, to where they are when it hangs behind the handle's bar (m). Cost: squares
of these distances and the logarithm of the tip's, square of the angle by which the door is not open, velocities and
actions; at first both goals are above their places and sink, so that the peg comes over the gap before it goes in.
Score: angle of the door at the end, in degrees. Solved: at least 0.3 rad, from closed. Contexts: where the door's frame
stands, x, y and z in m from its place in door.xml, within 5 cm.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gps.settings import check_at_least, check_positive
from gps.tasks import contexts, costs
from gps.tasks.mujoco.arm import Arm
from gps.tasks.mujoco_task import load
from gps.tasks.task import Score

FRAME = (0.70, 0.30, 0.35)  # m
LENGTH = 0.2  # m, from the tip of the peg to its upper end
REACH = 0.05  # m
# The peg points down, its tip above the gap between bar and door; rad, by inverse kinematics as in `arm.DOWN`.
START = (0.0, -0.8728, 0.0, 0.9869, 0.0, 1.4567, 0.0)


@dataclass(frozen=True)
class DoorSettings:
    """The task's numbers."""

    horizon: int = 80  # actions of 0.05 s
    train_places: int = 20  # spread evenly over the contexts
    test_places: int = 20  # drawn at random, the same in every run
    opened: float = 0.6  # rad, where the door is to be
    angle_weight: float = 5.0  # of 1/2 (angle - opened)^2, per rad^2
    distance_weight: float = 20.0  # of 1/2 distance^2 of each point, per m^2
    log_weight: float = 0.1  # of 1/2 log(1 + distance^2 / precision^2) of the tip
    precision: float = 0.01  # m
    lift: float = 0.12  # m, by which the goals are above their places at first
    sinking: float = 0.3  # share of the episode in which they come down
    velocity_weight: float = 0.003  # of 1/2 velocity^2, per (rad/s)^2
    action_weight: float = 0.02  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 2, "horizon")
        check_at_least(self, 1, "train_places", "test_places")
        check_positive(self, "precision", "opened", "sinking")
        check_at_least(
            self, 0, "lift", "angle_weight", "distance_weight", "log_weight", "velocity_weight", "action_weight"
        )


class Door(Arm):
    """See the top of this file."""

    score = Score("angle", "degrees", more_is_better=True)

    def __init__(self, settings: DoorSettings, engine: str = "auto", name: str = "door"):
        self.settings = s = settings
        around = (REACH * contexts.spread(s.train_places, 3), REACH * contexts.drawn(s.test_places, 3))
        super().__init__(load("door.xml", __file__), engine, name, around, s.horizon, 10)

    def start(self, context: Array) -> tuple[Float[Array, "8"], Float[Array, "8"]]:
        """The arm at rest before the closed door."""
        del context
        return jnp.append(jnp.asarray(START), 0.0), jnp.zeros(8)

    def mocap(self, context: Float[Array, "3"]) -> Float[Array, "1 3"]:
        """The frame's place, in metres."""
        return (jnp.asarray(FRAME) + context)[None]

    def offsets(self, x: Float[Array, "16"], context: Float[Array, "3"]) -> Float[Array, "2 3"]:
        """How far tip and upper end of the peg are from theirs behind the bar, in metres."""
        tip, grip, hold = self.positions(x, "tip", "grip", "hold")
        hold = hold + context  # kinematics have the frame where the model has it
        return jnp.stack([tip - hold, grip - hold.at[2].add(LENGTH)])

    def observe(self, x: Float[Array, "16"], context: Float[Array, "3"], noise: Array) -> Float[Array, "25"]:
        """States, place of the door, offsets."""
        del noise
        return jnp.concatenate([x, context, self.offsets(x, context).ravel()])

    def residual(self, x: Float[Array, "16"], u: Float[Array, "7"], t, context: Float[Array, "3"]) -> Array:
        """Stage cost."""
        s = self.settings
        left = jnp.maximum(0.0, 1.0 - t / (s.sinking * self.horizon))  # of the way down
        return costs.total(self.final_residual(x, context, s.lift * left), costs.quadratic(u, s.action_weight))

    def final_residual(self, x: Float[Array, "16"], context: Float[Array, "3"], lift: float | Array = 0.0) -> Array:
        """What the stage costs without the action, with goals `lift` above their places, in m."""
        s, (tip, grip) = self.settings, self.offsets(x, context) - lift * jnp.array([0.0, 0.0, 1.0])
        return costs.total(
            costs.quadratic(x[7] - s.opened, s.angle_weight),
            costs.quadratic(tip, s.distance_weight),
            costs.quadratic(grip, s.distance_weight),
            costs.log_distance(tip, s.log_weight, s.precision),
            costs.quadratic(x[8:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 16"], us: Float[Array, "T 7"], context: Array) -> Array:
        """Angle of the door at the end, in degrees."""
        del us, context
        return jnp.degrees(xs[-1, 7])

    def solved(self, xs: Float[Array, "T+1 16"], us: Float[Array, "T 7"], context: Array) -> Bool[Array, ""]:
        """Whether that is at least 0.3 rad."""
        del us, context
        return xs[-1, 7] >= 0.3
