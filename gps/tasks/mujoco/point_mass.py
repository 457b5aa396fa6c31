"""`point-mass`: a mass goes around posts to a place behind them, and comes to rest.

States: position (m) and velocity (m/s) in the plane. Actions: two forces of up to 3 N on 1 kg. The learner sees
position, velocity, the goal and the offset to it. Cost: square and logarithm of the distance, nearness to each of three
posts (inside their radius of 10 cm and that of the mass, 3 cm), velocity and actions. Score: distance from the goal,
mean of the last 10 steps, in cm. Solved: below 3 cm, without having touched a post. Contexts: goals (m).
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

GOALS = ((0.9, 0.0), (0.12, 0.35))  # m, middle of the rectangle of goals, and half its sides
POSTS = ("post1", "post2", "post3")
TOUCH = 0.13  # m, from the middle of a post to that of a mass that touches it


@dataclass(frozen=True)
class PointMassSettings:
    """The task's numbers."""

    horizon: int = 50  # actions of 0.05 s
    train_goals: int = 9  # spread evenly over the contexts
    test_goals: int = 40  # drawn at random, the same in every run
    distance_weight: float = 1.0  # of 1/2 distance^2, per m^2
    log_weight: float = 0.1  # of 1/2 log(1 + distance^2 / precision^2)
    precision: float = 0.02  # m
    post_weight: float = 0.05  # of nearness to a post, see `costs.near`
    margin: float = 0.1  # m, distance from touching a post within which that counts
    velocity_weight: float = 0.02  # of 1/2 velocity^2, per (m/s)^2
    action_weight: float = 0.05  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 10, "horizon")
        check_at_least(self, 1, "train_goals", "test_goals")
        check_positive(self, "precision", "margin")
        check_at_least(self, 0, "distance_weight", "log_weight", "post_weight", "velocity_weight", "action_weight")


class PointMass(MujocoTask):
    """See the top of this file."""

    score = Score("distance", "cm")
    start_noise = 0.005

    def __init__(self, settings: PointMassSettings, engine: str = "auto", name: str = "point-mass"):
        self.settings = s = settings
        model = load("point_mass.xml", __file__)
        self.posts = jnp.asarray(np.array([model.geom(post).pos[:2] for post in POSTS]))
        middle, sides = map(np.array, GOALS)
        points = (contexts.spread(s.train_goals, 2), contexts.drawn(s.test_goals, 2))
        super().__init__(model, engine, name, tuple(middle + p * sides for p in points), s.horizon, 5)

    def skeleton(self, x: Float[Array, "4"]) -> Float[Array, "1 3"]:
        """The mass, in metres."""
        return self.positions(x, "mass")

    def target(self, context: Float[Array, "2"]) -> Float[Array, "3"]:
        """The goal, in metres."""
        return jnp.append(context, 0.0)

    def clearance(self, x: Float[Array, "*b 4"]) -> Float[Array, "*b 3"]:
        """Distance of the mass from touching each post, in metres; negative inside."""
        offsets = x[..., None, :2] - self.posts
        return jnp.sqrt((offsets**2).sum(-1) + 1e-8) - TOUCH

    def observe(self, x: Float[Array, "4"], context: Float[Array, "2"], noise: Array) -> Float[Array, "8"]:
        """Position, velocity, goal, offset to the goal."""
        del noise
        return jnp.concatenate([x, context, context - x[:2]])

    def residual(self, x: Float[Array, "4"], u: Float[Array, "2"], t, context: Float[Array, "2"]) -> Array:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "4"], context: Float[Array, "2"]) -> Array:
        """What the stage costs without the action."""
        s, offset = self.settings, x[:2] - context
        return costs.total(
            costs.quadratic(offset, s.distance_weight),
            costs.log_distance(offset, s.log_weight, s.precision),
            costs.near(self.clearance(x), s.margin, s.post_weight),
            costs.quadratic(x[2:], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 2"], context: Float[Array, "2"]) -> Array:
        """Distance from the goal in cm, mean of the last 10 steps."""
        del us
        return 100 * jnp.linalg.norm(xs[1:][-10:, :2] - context, axis=-1).mean()

    def solved(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 2"], context: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether that is below 3 cm and no post was touched."""
        return (self.measure(xs, us, context) < 3.0) & (self.clearance(xs) > 0.0).all()
