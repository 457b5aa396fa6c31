"""Where the velocities stand in the observations of foreign environments. Importing this module imports no jax."""

from __future__ import annotations

from typing import NamedTuple


class Layout(NamedTuple):
    """Where the velocities stand in an observation."""

    size: int  # of the whole observation
    velocities: tuple[tuple[int, int], ...]  # [first, end) of each run of them

    def visible(self, hide_velocity: bool) -> tuple[int, ...]:
        """The entries that are no velocities, or all of them."""
        hidden = {i for first, end in self.velocities for i in range(first, end)} if hide_velocity else set()
        return tuple(i for i in range(self.size) if i not in hidden)


# From the order in which each environment of Brax 0.14 puts its observation together. Sizes before and after are
# those of the paper. A humanoid's torques (the last 23) are no velocities.
_BRAX_HUMANOID = Layout(244, ((22, 45), (155, 221)))  # joints; then 11 links' linear and angular ones
BRAX = {
    "ant": Layout(27, ((13, 27),)),
    "halfcheetah": Layout(17, ((8, 17),)),
    "humanoid": _BRAX_HUMANOID,
    "humanoidstandup": _BRAX_HUMANOID,
    "inverted_double_pendulum": Layout(8, ((5, 8),)),
    "inverted_pendulum": Layout(4, ((2, 4),)),
    "reacher": Layout(11, ((6, 8),)),  # of the tip
    "swimmer": Layout(8, ((3, 8),)),
    "walker2d": Layout(17, ((8, 17),)),
}

# From the order in which each environment of Playground 0.2 puts its observation together.
_CARTPOLE = Layout(5, ((3, 5),))
_FINGER_TURN = Layout(12, ((4, 7),))  # then touch, the target and the distance to it
_HOPPER = Layout(15, ((6, 13),))  # then touch
_HUMANOID = Layout(67, ((37, 67),))  # of the centre of mass; of the joints
_WALKER = Layout(24, ((15, 24),))
PLAYGROUND = {
    "AcrobotSwingup": Layout(6, ((4, 6),)),
    "AcrobotSwingupSparse": Layout(6, ((4, 6),)),
    "BallInCup": Layout(8, ((4, 8),)),
    "CartpoleBalance": _CARTPOLE,
    "CartpoleBalanceSparse": _CARTPOLE,
    "CartpoleSwingup": _CARTPOLE,
    "CartpoleSwingupSparse": _CARTPOLE,
    "CheetahRun": Layout(17, ((8, 17),)),
    "FingerSpin": Layout(9, ((4, 7),)),  # then touch
    "FingerTurnEasy": _FINGER_TURN,
    "FingerTurnHard": _FINGER_TURN,
    "FishSwim": Layout(24, ((11, 24),)),
    "HopperHop": _HOPPER,
    "HopperStand": _HOPPER,
    "HumanoidRun": _HUMANOID,
    "HumanoidStand": _HUMANOID,
    "HumanoidWalk": _HUMANOID,
    "PendulumSwingup": Layout(3, ((2, 3),)),
    "PointMass": Layout(4, ((2, 4),)),
    "SwimmerSwimmer6": Layout(25, ((7, 25),)),
    "WalkerRun": _WALKER,
    "WalkerStand": _WALKER,
    "WalkerWalk": _WALKER,
}
