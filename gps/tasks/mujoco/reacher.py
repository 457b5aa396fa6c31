"""A two-link arm reaches for a target in the plane: `reacher`, and `reacher-pomdp`, which hides velocities.

The learner sees cosine and sine of the elbow, the target and the vector from it to the fingertip, both in the upper
arm's frame (as a camera on the arm would show them), and the joint velocities. In the partially observed variant
there are no velocities, the joint angles carry noise, and the learner sees the last few frames instead of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gps.settings import check_at_least, check_positive
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score

START = (0.0, 1.6)  # rad, shoulder and elbow: the arm starts bent


@dataclass(frozen=True)
class ReacherSettings:
    """The task's numbers; the defaults are what the documented results are about."""

    horizon: int = 50  # actions in an episode
    substeps: int = 5  # physics steps of 0.01 s per action: 0.05 s
    train_targets: int = 24  # spread over the ring in a sunflower pattern
    test_targets: int = 200  # drawn over the ring, none closer than 5 mm to a training target
    ring: tuple[float, ...] = (0.04, 0.20)  # m, inner and outer radius around the shoulder; it reaches 0.01 to 0.21
    start_noise: float = 0.02  # rad and rad/s, standard deviation of the start pose
    distance_weight: float = 1.0  # of 1/2 (distance / 0.1 m)^2
    log_weight: float = 0.2  # of 1/2 log(1 + distance^2 / precision^2): its peak gives the last millimetres
    precision: float = 0.01  # m
    action_weight: float = 0.1  # of 1/2 action^2
    velocity_weight: float = 0.003  # of 1/2 velocity^2, (rad/s)^2
    hide_velocity: bool = False  # the learner does not see joint velocities
    angle_noise: float = 0.0  # rad, standard deviation of the learner's joint angles
    history: int = 1  # frames that the learner sees at once

    def __post_init__(self):
        inner, outer = self.ring if len(self.ring) == 2 else (0.0, 0.0)
        if not 0.01 < inner < outer < 0.21:
            raise ValueError(f"ring must be two radii in metres with 0.01 < inner < outer < 0.21, not {self.ring}")
        check_at_least(self, 2, "horizon")
        check_at_least(self, 1, "train_targets", "test_targets", "substeps", "history")
        check_positive(self, "precision")
        check_at_least(self, 0, "start_noise", "angle_noise")
        check_at_least(self, 0, "distance_weight", "log_weight", "action_weight", "velocity_weight")


PARTIAL = ReacherSettings(hide_velocity=True, angle_noise=0.01, history=6)


class Reacher(MujocoTask):
    """See `ControlTask`. x = (shoulder, elbow angle in rad, their velocities in rad/s), u = torque / 0.05 Nm."""

    score = Score("distance", "cm")

    def __init__(self, settings: ReacherSettings, engine: str = "auto", name: str = "reacher"):
        self.settings = s = settings
        training = sunflower(s.train_targets, s.ring).astype(np.float32)
        contexts = (training, draw_apart(s.test_targets, s.ring, training))
        super().__init__(load("reacher.xml", __file__), engine, name, contexts, s.horizon, s.substeps)
        self.history, self.start_noise = s.history, s.start_noise
        self.noise_size = 2 if s.angle_noise > 0 else 0

    def start(self, context: Float[Array, "2"]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """The bent arm at rest."""
        del context
        return jnp.asarray(START), jnp.zeros(2)

    def skeleton(self, x: Float[Array, "4"]) -> Float[Array, "3 3"]:
        """Shoulder, elbow and fingertip, in metres."""
        return self.positions(x, "upper", "lower", "fingertip")

    def target(self, context: Float[Array, "2"]) -> Float[Array, "3"]:
        """What the fingertip is to reach, in metres."""
        return jnp.append(context, 0.0)

    def point(self, x: Float[Array, "4"]) -> Float[Array, "2"]:
        """Fingertip position in the plane, in metres."""
        return self.position(x, "fingertip")[:2]

    def observe(self, x: Float[Array, "4"], context: Float[Array, "2"], noise: Array) -> Float[Array, " frame"]:
        """Cosine and sine of the elbow; target, and fingertip - target, in the upper arm's frame [; velocities]."""
        if self.noise_size:
            x = x.at[:2].add(self.settings.angle_noise * noise)
        cos, sin = jnp.cos(x[0]), jnp.sin(x[0])
        into_arm = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
        seen = [jnp.cos(x[1:2]), jnp.sin(x[1:2]), into_arm @ context, into_arm @ (self.point(x) - context)]
        return jnp.concatenate(seen if self.settings.hide_velocity else [*seen, x[2:]])

    def privileged(self, x: Float[Array, "4"], context: Float[Array, "2"]) -> Float[Array, "10"]:
        """Cosines and sines of both angles, target, fingertip - target, velocities; all in the world's frame."""
        return jnp.concatenate([jnp.cos(x[:2]), jnp.sin(x[:2]), context, self.point(x) - context, x[2:]])

    def cost(self, x: Float[Array, "4"], u: Float[Array, "2"], t, context: Float[Array, "2"]) -> Array:
        """Distance, its logarithm, torque and velocity, each squared and weighted."""
        del t
        s = self.settings
        effort = s.action_weight * (u @ u) + s.velocity_weight * (x[2:] @ x[2:])
        return self.final_cost(x, context) + 0.5 * effort

    def final_cost(self, x: Float[Array, "4"], context: Float[Array, "2"]) -> Array:
        """The part of the cost that is about the fingertip."""
        s = self.settings
        offset = self.point(x) - context
        squared = offset @ offset
        return 0.5 * s.distance_weight * squared / 0.01 + 0.5 * s.log_weight * jnp.log1p(squared / s.precision**2)

    def measure(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 2"], context: Float[Array, "2"]) -> Array:
        """Distance of the fingertip from the target in cm, over the last 10 steps."""
        del us
        offsets = jax.vmap(self.point)(xs[1:][-10:]) - context
        return 100 * jnp.linalg.norm(offsets, axis=-1).mean()

    def solved(self, xs: Float[Array, "T+1 4"], us: Float[Array, "T 2"], context: Float[Array, "2"]) -> Array:
        """Whether the fingertip stayed within 2 cm, on average, over the last 10 steps."""
        return self.measure(xs, us, context) < 2.0


def sunflower(count: int, ring: tuple[float, ...]) -> np.ndarray:
    """`count` points spread evenly over a ring: golden-angle spiral, equal areas."""
    i = np.arange(count)
    inner, outer = ring
    radius = np.sqrt(inner**2 + (i + 0.5) / count * (outer**2 - inner**2))
    angle = i * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def draw_apart(count: int, ring: tuple[float, ...], others: np.ndarray, apart: float = 0.005) -> np.ndarray:
    """`count` points drawn uniformly over a ring, each farther than `apart` from `others`.

    Always the same ones; a smaller count gives the first of them.
    """
    generator = np.random.default_rng(20150501)
    inner, outer = ring
    points = np.empty((0, 2))
    for _ in range(1000 + count):
        if len(points) >= count:
            return points[:count].astype(np.float32)
        radius = np.sqrt(generator.uniform(inner**2, outer**2, 64))
        angle = generator.uniform(-np.pi, np.pi, 64)
        drawn = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        gap = np.linalg.norm(drawn[:, None] - np.asarray(others), axis=-1).min(1)
        points = np.concatenate([points, drawn[gap > apart]])
    raise ValueError(
        f"train_targets = {len(others)} leave no room in the ring {ring} for test targets {1000 * apart:.0f} mm away "
        "from each: take fewer, or a wider ring"
    )
