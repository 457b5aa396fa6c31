"""`drawer`: an arm with seven joints hooks its two fingers behind the handle of a drawer, and pulls it open.

States: 7 joint angles of the arm (rad), how far the left, middle and right drawer are open (m), and their velocities.
Actions: where the arm's servos are to bring its joints; 0 is the pose of the start. Contexts: where the chest stands,
x and y in m from its place in drawer.xml, within 10 cm, by which angle it is turned, in rad, within 10 degrees, and
which drawer is to be opened: -1 for the left one, 0 or 1.

Cost: distance of the fingers' tips from behind the handle, turn of the hand against pointing down there, how far the
drawer is from where it is to be, velocities and actions. Where the tips are not between bar and drawer, the goal is
above the bar, as if there were a funnel: they come over the gap before they go in. Score: how far the drawer is open
at the end, in cm. Solved: at least 20 cm.

A model-free guider sees, beside joint angles and velocities of the arm, where the hand is to go and how it is turned,
in the chest's frame, and the drawer. In `drawer` as the catalogue has it the learner sees a camera's image.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gps.settings import check_at_least, check_positive
from gps.tasks import contexts, costs
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.task import Score, State

PLACE = (0.66, 0.0, 0.0)  # m, of the chest's frame
APART = 0.21  # m, from a drawer's middle to the next one's
GAP = (-0.0335, 0.0, 0.19)  # m, in the chest's frame: where tips are behind the middle drawer's bar
JOINTS = ("pan", "lift", "roll", "elbow", "forearm", "wrist", "hand")
DRAWERS = ("left", "middle", "right")
DOWN = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))  # of the hand in the chest's frame, when it hooks
SOLVED = 0.2  # m


@dataclass(frozen=True)
class DrawerSettings:
    """The task's numbers."""

    horizon: int = 150  # actions of 0.02 s
    shift: float = 0.1  # m, most by which the chest is off its place, in x and in y
    turn: float = 10.0  # degrees, most by which it is turned
    train_places: int = 18  # contexts of training, spread evenly, the drawers in turn; model-free guiders draw others
    test_places: int = 120  # drawn at random, the same in every run
    opened: float = 0.25  # m, where the drawer is to be; it counts as open from 0.2 m on
    open_weight: float = 6.0  # of the distance of the drawer from there, per m
    distance_weight: float = 2.0  # of the tips' distance, per m
    log_weight: float = 0.1  # of 1/2 log(1 + distance^2 / precision^2) of the tips
    precision: float = 0.02  # m
    funnel: float = 0.1  # m, by which the goal is higher where the tips are not over the gap
    turn_weight: float = 0.3  # of 1/2 angle^2 of the hand, per rad^2
    velocity_weight: float = 0.003  # of 1/2 velocity^2 of the arm's joints, per (rad/s)^2
    action_weight: float = 0.01  # of 1/2 action^2

    def __post_init__(self):
        check_at_least(self, 2, "horizon")
        check_at_least(self, 3, "train_places", "test_places")  # each drawer once
        check_positive(self, "precision")
        if not self.opened >= SOLVED:
            raise ValueError(f"opened must be at least {SOLVED:g} m, which is success, not {self.opened}")
        for setting, most, unit in (("opened", 0.34, "m"), ("shift", 0.15, "m"), ("turn", 30.0, "degrees")):
            if getattr(self, setting) > most:  # how far drawers and the arm go
                raise ValueError(f"{setting} must be at most {most:g} {unit}, not {getattr(self, setting)}")
        check_at_least(self, 0, "shift", "turn", "open_weight", "distance_weight", "log_weight", "funnel")
        check_at_least(self, 0, "turn_weight", "velocity_weight", "action_weight")


class Drawer(MujocoTask):
    """See the top of this file."""

    score = Score("opening", "cm", more_is_better=True)
    start_noise = 0.01

    def __init__(self, settings: DrawerSettings, engine: str = "auto", name: str = "drawer"):
        self.settings = s = settings
        self._reach = np.array([s.shift, s.shift, np.deg2rad(s.turn)])
        model = load("drawer.xml", __file__)
        self._start = np.append(model.actuator_ctrlrange.mean(1), np.zeros(3))  # rad, m
        around = [
            np.column_stack([self._reach * points, np.arange(len(points)) % 3 - 1.0])
            for points in (contexts.spread(s.train_places, 3), contexts.drawn(s.test_places, 3))
        ]
        super().__init__(model, engine, name, tuple(around), s.horizon, 4)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Any context."""
        where, which = jax.random.split(key)
        place = self._reach * jax.random.uniform(where, (3,), minval=-1.0)
        return jnp.append(place, jax.random.randint(which, (), -1, 2))

    def start(self, context: Array) -> tuple[Float[Array, "10"], Float[Array, "10"]]:
        """The arm at rest above the closed drawers."""
        del context
        return jnp.asarray(self._start, float), jnp.zeros(10)

    def initial_state(self, key: PRNGKeyArray, context: Float[Array, "4"]) -> Float[Array, " nstate"]:
        """See `ControlTask.initial_state`: around that, the drawers closed and at rest."""
        drawers = np.arange(8, 11)  # after the time and the arm's joints
        return super().initial_state(key, context).at[np.append(drawers, drawers + 10)].set(0.0)

    def mocap(self, context: Float[Array, "4"]) -> Float[Array, "1 3"]:
        """The chest's place, in metres."""
        return (jnp.asarray(PLACE) + jnp.append(context[:2], 0.0))[None]

    def mocap_turns(self, context: Float[Array, "4"]) -> Float[Array, "1 4"]:
        """Its quaternion."""
        half = 0.5 * context[2]
        return jnp.stack([jnp.cos(half), jnp.zeros(()), jnp.zeros(()), jnp.sin(half)])[None]

    def opening(self, x: Float[Array, "20"], context: Float[Array, "4"]) -> Float[Array, "2"]:
        """How far the drawer is open, in m, and its velocity in m/s."""
        wanted = context[3] == jnp.arange(-1, 2)
        return jnp.stack([jnp.where(wanted, part, 0.0).sum() for part in (x[7:10], x[17:])])

    def hand(self, x: Float[Array, "20"], context: Float[Array, "4"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """How far the tips are from behind the handle in m, and how the hand is turned, both in the chest's frame."""
        back = self._turn(context).T
        tip = back @ (self.position(x, "tip") - self.mocap(context)[0])
        goal = jnp.asarray(GAP) - jnp.stack([self.opening(x, context)[0], APART * context[3], jnp.zeros(())])
        return tip - goal, back @ self.kinematics.rotations(self.qpos(x), "hand")[0]

    def lamp(self, context: Float[Array, "4"]) -> Float[Array, "3"]:
        """Where a lamp shows which drawer is to be opened: on the chest behind it, in m."""
        own = jnp.stack([jnp.asarray(0.05), -APART * context[3], jnp.asarray(0.35)])
        return self.mocap(context)[0] + self._turn(context) @ own

    def observe(self, x: Float[Array, "20"], context: Float[Array, "4"], noise: Array) -> Float[Array, "29"]:
        """Angles and velocities of the arm, and all that a guider sees."""
        del noise
        return jnp.concatenate([x[:7], x[10:17], self.privileged(x, context)])

    def privileged(self, x: Float[Array, "20"], context: Float[Array, "4"]) -> Float[Array, "15"]:
        """Offset of the tips, two axes of the hand, the drawer's opening and velocity, and the context."""
        offset, turn = self.hand(x, context)
        return jnp.concatenate([offset, turn[:, 0], turn[:, 1], self.opening(x, context), context])

    def residual(self, x: Float[Array, "20"], u: Float[Array, "7"], t, context: Float[Array, "4"]) -> Array:
        """Stage cost."""
        del t
        return costs.total(self.final_residual(x, context), costs.quadratic(u, self.settings.action_weight))

    def final_residual(self, x: Float[Array, "20"], context: Float[Array, "4"]) -> Array:
        """What the stage costs without the action."""
        s, (offset, turn) = self.settings, self.hand(x, context)
        beside = (offset[0] / s.precision) ** 2
        offset = offset.at[2].add(-s.funnel * beside / (1.0 + beside))
        missing = self.opening(x, context)[:1] - s.opened
        return costs.total(
            costs.smooth_distance(offset, s.distance_weight, s.precision),
            costs.log_distance(offset, s.log_weight, s.precision),
            costs.turn(turn, jnp.asarray(DOWN), s.turn_weight),
            costs.smooth_distance(missing, s.open_weight, 0.02),
            costs.quadratic(x[10:17], s.velocity_weight),
        )

    def measure(self, xs: Float[Array, "T+1 20"], us: Float[Array, "T 7"], context: Float[Array, "4"]) -> Array:
        """Opening at the end, in cm."""
        del us
        return 100 * self.opening(xs[-1], context)[0]

    def solved(self, xs: Float[Array, "T+1 20"], us: Float[Array, "T 7"], context: Float[Array, "4"]) -> Array:
        """Whether that is at least 20 cm."""
        del us
        return self.opening(xs[-1], context)[0] >= SOLVED

    def _turn(self, context: Float[Array, "4"]) -> Float[Array, "3 3"]:
        """From the chest's frame to the world's."""
        c, s = jnp.cos(context[2]), jnp.sin(context[2])
        return jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode."""
        return self._told(super().reset(key))

    def step(self, state: State, action: Float[Array, "7"]) -> State:
        """Act once."""
        return self._told(super().step(state, action))

    def _told(self, state: State) -> State:
        """With the metric "success": at the end of an episode, whether the drawer is open."""
        opening = self.opening(self.control_state(state.data["state"]), state.data["context"])[0]
        success = state.done * (opening >= SOLVED)
        return dataclasses.replace(state, metrics={**state.metrics, "success": success})
