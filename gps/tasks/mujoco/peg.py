"""`peg`: the arm puts the peg that it holds into a hole; `peg-blind` and `peg-noisy` see less.

States: 7 joint angles (rad) and velocities (rad/s). Actions: 7 torques, in shares of the largest. Contexts: where the
block with the hole stands, x and y in m from the place below the start, within 10 cm. The peg is 2 cm thick and the
hole 3 cm wide and 10 cm deep. Score: distance of the tip from the bottom in the end, in cm. Solved: within 1 cm.

Cost: distances of two points of the peg, its tip and its upper end, from their goals, where they are when it stands
upright on the hole's bottom. There are the square of each distance, the logarithm of each distance sideways, and that
of the tip's in depth: if the logarithm saw sideways and depth together, a peg beside the hole would gain little by
moving over it. In the first third of the episode both goals sink from above the hole to their places, so that the peg
comes over the hole before it goes down. They have to be down well before the peg is: a learner that sees no time takes
from a slow descent that a peg half way down need not be pushed. Velocities and actions cost their squares.

The learner sees joint angles and velocities, the hole's place, and the offsets of both points from their goals (m). In
`peg-blind` it sees angles, velocities and both points, and has to feel for the hole; in `peg-noisy` angles with noise
instead of angles and velocities, the points that follow from them, and a few frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gps.settings import check_at_least, check_positive
from gps.tasks import costs
from gps.tasks.mujoco.arm import Arm
from gps.tasks.mujoco_task import load
from gps.tasks.task import Score

BOTTOM = (0.55, 0.0, 0.02)  # m, of the hole in the middle
LENGTH = 0.2  # m, from the tip to the upper end


@dataclass(frozen=True)
class PegSettings:
    """The task's numbers."""

    horizon: int = 100  # actions of 0.05 s
    holes: int = 3  # training holes along each side of a square grid
    reach: float = 0.1  # m, from its middle to its sides
    test_holes: int = 20  # drawn inside it
    distance_weight: float = 20.0  # of 1/2 distance^2 of each point, per m^2
    log_weight: float = 0.2  # of 1/2 log(1 + d^2 / precision^2), for d sideways of each point and in depth of the tip
    precision: float = 0.01  # m
    lift: float = 0.12  # m, by which the goals are above their places at first
    sinking: float = 0.3  # share of the episode in which they come down
    velocity_weight: float = 0.03  # of 1/2 velocity^2, per (rad/s)^2
    action_weight: float = 0.02  # of 1/2 action^2
    see_hole: bool = True  # the learner sees where the hole is
    see_velocity: bool = True  # the learner sees the joints' velocities
    angle_noise: float = 0.0  # rad, standard deviation of the learner's joint angles
    history: int = 1  # frames that the learner sees at once

    def __post_init__(self):
        check_at_least(self, 2, "horizon", "holes")
        check_at_least(self, 1, "test_holes", "history")
        check_positive(self, "precision", "reach", "sinking")
        if self.reach > 0.15:
            raise ValueError(f"reach must be at most 0.15 m, where the arm and the table end, not {self.reach}")
        check_at_least(self, 0, "distance_weight", "log_weight", "velocity_weight", "action_weight")
        check_at_least(self, 0, "angle_noise", "lift")


BLIND = PegSettings(see_hole=False)
NOISY = PegSettings(see_velocity=False, angle_noise=0.01, history=4)


class Peg(Arm):
    """See the top of this file."""

    score = Score("distance", "cm")

    def __init__(self, settings: PegSettings, engine: str = "auto", name: str = "peg"):
        self.settings = s = settings
        side = np.linspace(-s.reach, s.reach, s.holes)
        grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
        test = np.random.default_rng(7).uniform(-s.reach, s.reach, (s.test_holes, 2))
        super().__init__(load("peg.xml", __file__), engine, name, (grid, test), s.horizon, 10)
        self.history, self.noise_size = s.history, 7 if s.angle_noise > 0 else 0

    def mocap(self, context: Float[Array, "2"]) -> Float[Array, "1 3"]:
        """The block's place on the table, in metres."""
        return (jnp.array([BOTTOM[0], BOTTOM[1], 0.0]) + jnp.append(context, 0.0))[None]

    def bottom(self, context: Float[Array, "2"]) -> Float[Array, "3"]:
        """The hole's bottom, in metres."""
        return jnp.asarray(BOTTOM) + jnp.append(context, 0.0)

    def points(self, x: Float[Array, "14"]) -> Float[Array, "2 3"]:
        """Tip and upper end of the peg, in metres."""
        return self.positions(x, "tip", "grip")

    def offsets(self, x: Float[Array, "14"], context: Float[Array, "2"]) -> Float[Array, "2 3"]:
        """How far both are from their goals."""
        bottom = self.bottom(context)
        return self.points(x) - jnp.stack([bottom, bottom.at[2].add(LENGTH)])

    def observe(self, x: Float[Array, "14"], context: Float[Array, "2"], noise: Array) -> Float[Array, " frame"]:
        """Angles [, velocities]; the hole and the offsets of both points, or these points alone."""
        s = self.settings
        if self.noise_size:
            x = x.at[:7].add(s.angle_noise * noise)
        seen = [x[:7], x[7:]] if s.see_velocity else [x[:7]]
        points = [context, self.offsets(x, context).ravel()] if s.see_hole else [self.points(x).ravel()]
        return jnp.concatenate(seen + points)

    def residual(self, x: Float[Array, "14"], u: Float[Array, "7"], t, context: Float[Array, "2"]) -> Array:
        """Stage cost."""
        s = self.settings
        left = jnp.maximum(0.0, 1.0 - t / (s.sinking * self.horizon))  # of the way down
        return costs.total(self.final_residual(x, context, s.lift * left), costs.quadratic(u, s.action_weight))

    def final_residual(self, x: Float[Array, "14"], context: Float[Array, "2"], lift: float | Array = 0.0) -> Array:
        """What the stage costs without the action, with goals `lift` above their places, in m."""
        s, (tip, grip) = self.settings, self.offsets(x, context) - lift * jnp.array([0.0, 0.0, 1.0])
        return costs.total(
            *(costs.quadratic(offset, s.distance_weight) for offset in (tip, grip)),
            *(costs.log_distance(offset[:2], s.log_weight, s.precision) for offset in (tip, grip)),
            costs.log_distance(tip[2:], s.log_weight, s.precision),
            costs.quadratic(x[7:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 14"], us: Float[Array, "T 7"], context: Float[Array, "2"]) -> Array:
        """Distance of the tip from the bottom at the end, in cm."""
        del us
        return 100 * jnp.linalg.norm(self.offsets(xs[-1], context)[0])

    def solved(self, xs: Float[Array, "T+1 14"], us: Float[Array, "T 7"], context: Float[Array, "2"]) -> Array:
        """Whether that is below 1 cm."""
        return self.measure(xs, us, context) < 1.0
