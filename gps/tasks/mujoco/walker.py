"""`walker`: a torso on two legs walks forward in the plane, without a fall.

States: place (m) and pitch (rad) of the torso, angles of hips, knees and ankles (rad), and their velocities. Actions:
six torques, in shares of the largest (80 Nm, at the ankles 40). The learner sees all but how far it has come. Cost:
offset of the forward speed from the wanted one, of the torso from its height and from upright, velocities of the
joints and actions. Score: distance walked, in m. Solved: at least 1 m with the torso always above 0.6 m. Contexts:
pitch (rad), forward speed (m/s), and how far the legs are apart (rad) at the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gps.settings import check_at_least
from gps.tasks import contexts, costs
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score

STANDING = (0.0, -0.02, 0.0, 0.3, -0.5, 0.2, 0.0, -0.3, 0.3)  # m and rad: one leg before the other, both feet level
STARTS = ((0.0, 0.3, 0.0), (0.05, 0.2, 0.1))  # middle of the contexts, and the farthest from it
HEIGHT = 0.83  # m, of the torso where z is 0
FALLEN = 0.6  # m


@dataclass(frozen=True)
class WalkerSettings:
    """The task's numbers."""

    horizon: int = 100  # actions of 0.025 s
    train_starts: int = 12  # spread evenly over the contexts
    test_starts: int = 20  # drawn at random, the same in every run
    speed: float = 0.8  # m/s
    speed_weight: float = 2.0  # of 1/2 (speed - wanted)^2, per (m/s)^2
    height_weight: float = 20.0  # of 1/2 z^2, per m^2
    pitch_weight: float = 2.0  # of 1/2 pitch^2, per rad^2
    velocity_weight: float = 0.002  # of 1/2 velocity^2 of the joints, per (rad/s)^2
    action_weight: float = 0.1  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 10, "horizon")
        check_at_least(self, 1, "train_starts", "test_starts")
        check_at_least(self, 0, "speed_weight", "height_weight", "pitch_weight", "velocity_weight", "action_weight")


class Walker(MujocoTask):
    """See the top of this file."""

    score = Score("distance", "m", more_is_better=True)

    def __init__(self, settings: WalkerSettings, engine: str = "auto", name: str = "walker"):
        self.settings = s = settings
        middle, farthest = map(np.array, STARTS)
        points = (contexts.spread(s.train_starts, 3), contexts.drawn(s.test_starts, 3))
        around = tuple(middle + p * farthest for p in points)
        super().__init__(load("walker.xml", __file__), engine, name, around, s.horizon, 5)

    def start(self, context: Float[Array, "3"]) -> tuple[Float[Array, "9"], Float[Array, "9"]]:
        """Standing with legs apart, already moving forward."""
        pitch, speed, apart = context
        qpos = jnp.asarray(STANDING).at[2].add(pitch).at[3].add(apart).at[6].add(-apart)
        return qpos, jnp.zeros(9).at[0].set(speed)

    def skeleton(self, x: Float[Array, "18"]) -> Float[Array, "7 3"]:
        """From one foot over the torso to the other, in metres."""
        right, left = (tuple(f"{side}_{part}" for part in ("foot", "shank", "thigh")) for side in ("right", "left"))
        return self.positions(x, *right, "torso", *left[::-1])

    def observe(self, x: Float[Array, "18"], context: Array, noise: Array) -> Float[Array, "17"]:
        """Everything but x."""
        del context, noise
        return x[1:]

    def residual(self, x: Float[Array, "18"], u: Float[Array, "6"], t, context: Array) -> Array:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "18"], context: Array) -> Array:
        """What the stage costs without the action."""
        del context
        s = self.settings
        return costs.total(
            costs.quadratic(x[9] - s.speed, s.speed_weight),
            costs.quadratic(x[1], s.height_weight),
            costs.quadratic(x[2], s.pitch_weight),
            costs.quadratic(x[12:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 18"], us: Float[Array, "T 6"], context: Array) -> Array:
        """Distance walked, in m."""
        del us, context
        return xs[-1, 0] - xs[0, 0]

    def solved(self, xs: Float[Array, "T+1 18"], us: Float[Array, "T 6"], context: Array) -> Bool[Array, ""]:
        """Whether it is at least 1 m and the torso stayed above `FALLEN`."""
        return (self.measure(xs, us, context) >= 1.0) & (HEIGHT + xs[:, 1] > FALLEN).all()
