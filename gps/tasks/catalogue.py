"""The tasks by name. Importing this module imports none of them, and no jax."""

from __future__ import annotations

import re
from typing import Any

from gps.entry import Entry
from gps.tasks import presets
from gps.tasks.external.layouts import PLAYGROUND


def _reacher(settings: str, about: str) -> Entry:
    return _mujoco(f"reacher:{settings}", "Reacher", about, {})


def _mujoco(
    settings: str, task: str, about: str, model_based: presets.Tables, model_free: presets.Tables = presets.REACHING
) -> Entry:
    module = settings.partition(":")[0]
    where = "gps.tasks.mujoco"
    return Entry(
        f"{where}.{settings}",
        f"{where}.{module}:{task}",
        about,
        engines=True,
        model_free=model_free,
        model_based=model_based,
    )


def _vision(
    task: str, settings: str, about: str, model_based: presets.Tables, model_free: presets.Tables = presets.REACHING
) -> Entry:
    where = "gps.tasks.mujoco.vision"
    return Entry(
        f"{where}:{settings}",
        f"{where}:{task}",
        about,
        engines=True,
        model_free=model_free,
        model_based=presets.seeing(model_based),
    )


def _model_free(where: str, about: str, model_free: presets.Tables) -> Entry:
    where = f"gps.tasks.{where}"
    return Entry(f"{where}Settings", where, about, model_free=model_free)


def _memory(module: str, settings: str, task: str, about: str, **values: Any) -> Entry:
    where = f"gps.tasks.memory.{module}"
    return Entry(f"{where}:{settings}", f"{where}:{task}", about, values=values, model_free=presets.MEMORY)


def _autoencode(decks: int) -> Entry:
    about = f"watch {52 * decks} cards, then name their suits in reverse order"
    return _memory("cards", "AutoencodeSettings", "Autoencode", about, decks=decks)


def _battleship(size: int) -> Entry:
    about = f"sink ships of 2, 3, 3 and 4 cells on a hidden board of {size} x {size}"
    return _memory("battleship", "BattleshipSettings", "Battleship", about, board=size)


def _count_recall(decks: int, kind: str, about: str) -> Entry:
    about = f"count {about} in {52 * decks} cards, and say how many of one kind were dealt"
    return _memory("cards", "CountRecallSettings", "CountRecall", about, decks=decks, kind=kind)


def _cartpole(steps: int, noise: float = 0.0) -> Entry:
    about = f"balance a pole for {steps} steps without seeing velocities"
    if noise:
        about = f"balance a pole without seeing velocities, with noise {noise} in position and angle"
    return _memory("cartpole", "CartPoleSettings", "StatelessCartPole", about, horizon=steps, noise_sigma=noise)


def _repeat_previous(decks: int, back: int) -> Entry:
    about = f"see {52 * decks} cards and name the suit of the one {back - 1} steps back"
    return _memory("cards", "RepeatPreviousSettings", "RepeatPrevious", about, decks=decks, lag=back)


def _external(package: str, about: str, model_free: presets.Tables, **values: Any) -> Entry:
    where = f"gps.tasks.external.{package}_envs"
    return Entry(
        f"{where}:{package.capitalize()}Settings",
        f"{where}:{package}_task",
        about,
        values=values,
        model_free=model_free,
    )


def _brax(about: str, env: str, backend: str = "spring") -> Entry:
    about = f"Brax: {about}; the learner sees noise and no velocities"
    return _external("brax", about, presets.BRAX.get(env, presets.locomotion()), env=env, backend=backend)


def _playground(env: str) -> Entry:
    about = f"MuJoCo Playground's {env}; the learner sees noise and no velocities"
    return _external("playground", about, presets.locomotion(), env=env)


def gymnasium_entry(env: str) -> Entry:
    """An environment by the name that Gymnasium has for it; the task's is "gymnasium:" and that name."""
    return _external("gymnasium", f"Gymnasium's {env}", presets.GYMNASIUM)


def _playground_name(env: str) -> str:
    """The name of the task, such as playground-cartpole-balance for CartpoleBalance."""
    return "playground-" + re.sub(r"(?<!^)(?=[A-Z])", "-", env).lower()


TASKS: dict[str, Entry] = {
    "reacher": _reacher("ReacherSettings", "a two-link arm reaches for targets in the plane"),
    "reacher-pomdp": _reacher("PARTIAL", "as reacher, but the learner sees noisy joint angles and no velocities"),
    "pendulum": _mujoco(
        "pendulum:PendulumSettings", "Pendulum", "a weak motor swings up a pendulum and holds it", presets.SWINGING
    ),
    "acrobot": _mujoco(
        "acrobot:AcrobotSettings", "Acrobot", "two links with a motor between them stand up", presets.ACROBOT
    ),
    "point-mass": _mujoco(
        "point_mass:PointMassSettings", "PointMass", "a mass goes around posts to a place", presets.AROUND
    ),
    "pusher": _mujoco("pusher:PusherSettings", "Pusher", "a finger pushes a puck to a place", presets.PUSHING),
    "cartpole": _mujoco(
        "cartpole:CartpoleSettings", "Cartpole", "a cart swings up a pole and holds it", presets.SWINGING
    ),
    "arm-reach": _mujoco("arm_reach:ArmReachSettings", "ArmReach", "a seven-joint arm reaches for points", presets.ARM),
    "peg": _mujoco("peg:PegSettings", "Peg", "a seven-joint arm puts a peg into a hole", presets.PEG),
    "peg-blind": _mujoco(
        "peg:BLIND",
        "Peg",
        "as peg, but the learner does not see the hole",
        presets.remembering(presets.PEG),
        presets.remembering(presets.REACHING),
    ),
    "peg-noisy": _mujoco(
        "peg:NOISY", "Peg", "as peg, but the learner sees noisy angles and no velocities", presets.PEG
    ),
    "door": _mujoco("door:DoorSettings", "Door", "a seven-joint arm pulls a door open by its handle", presets.DOOR),
    "walker": _mujoco("walker:WalkerSettings", "Walker", "a torso on two legs walks", presets.WALKING),
    "reacher-vision": _vision("reacher", "ReacherVisionSettings", "reacher, the target seen by a camera", {}),
    "arm-reach-vision": _vision(
        "arm_reach", "ArmReachVisionSettings", "arm-reach, the target seen by a camera", presets.ARM
    ),
    "peg-vision": _vision("peg", "PegVisionSettings", "peg, the hole seen by a camera", presets.PEG),
    "drawer": _vision(
        "drawer",
        "DrawerVisionSettings",
        "an arm opens one of three drawers, which its learner sees by a camera that the arm can block",
        presets.PEG,
        presets.DRAWER,
    ),
    "tiger-door": _model_free(
        "doors.tiger:TigerDoor", "open the door without the tiger, or listen first", presets.DOORS
    ),
    "tiger-door-alt": _model_free(
        "doors.tiger:TigerDoorAlt", "what is best for who knows is not for who does not", presets.DOORS
    ),
    "color-maze": _model_free(
        "mazes.color:ColorMaze",
        "cross a field of lava on a path that only the guider sees, or go round it",
        presets.MAZE,
    ),
    "flight": _model_free(
        "flight.flight:Flight",
        "a quadrotor flies between obstacles, which its learner sees by a depth camera ahead",
        presets.FLIGHT,
    ),
    "autoencode-easy": _autoencode(1),
    "autoencode-medium": _autoencode(2),
    "autoencode-hard": _autoencode(3),
    "battleship-easy": _battleship(8),
    "battleship-medium": _battleship(10),
    "battleship-hard": _battleship(12),
    "count-recall-easy": _count_recall(1, "colors", "colours"),
    "count-recall-medium": _count_recall(2, "suits", "suits"),
    "count-recall-hard": _count_recall(4, "ranks", "ranks"),
    "stateless-cartpole-easy": _cartpole(200),
    "stateless-cartpole-medium": _cartpole(400),
    "stateless-cartpole-hard": _cartpole(600),
    "noisy-stateless-cartpole-easy": _cartpole(200, 0.1),
    "noisy-stateless-cartpole-medium": _cartpole(200, 0.2),
    "noisy-stateless-cartpole-hard": _cartpole(200, 0.3),
    "repeat-previous-easy": _repeat_previous(1, 4),
    "repeat-previous-medium": _repeat_previous(2, 32),
    "repeat-previous-hard": _repeat_previous(3, 64),
    # the backends are those of the GPO paper
    "brax-ant": _brax("a four-legged body runs", "ant"),
    "brax-half-cheetah": _brax("a planar body with two legs runs", "halfcheetah"),
    "brax-humanoid": _brax("a humanoid runs", "humanoid"),
    "brax-humanoid-standup": _brax("a humanoid stands up", "humanoidstandup"),
    "brax-inverted-double-pendulum": _brax("a cart balances two poles, one on the other", "inverted_double_pendulum"),
    "brax-swimmer": _brax("three links swim in the plane", "swimmer", "generalized"),
    "brax-walker2d": _brax("a planar biped walks", "walker2d", "mjx"),
    # not among the paper's
    "brax-inverted-pendulum": _brax("a cart balances a pole", "inverted_pendulum"),
    "brax-reacher": _brax("a two-link arm reaches for targets", "reacher"),
    **{_playground_name(env): _playground(env) for env in PLAYGROUND},
}
GYMNASIUM = "gymnasium"  # before the colon of a task's name: Gymnasium has what stands behind it
