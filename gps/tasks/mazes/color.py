"""A field of lava with a safe path through it, that the learner can not tell from lava: `color-maze`.

Who sees the path takes it, and is paid for each of its cells. A learner that imitates that dies in the lava, or has to
guess; around the field it sees everything that it needs.

| way              | return                             |
|------------------|------------------------------------|
| along the path   | 10, and a half for each cell of it |
| around the field | 10                                 |

Source:
    Messikommer, Xing, Aljalbout, Scaramuzza, "Student-informed teacher training", ICLR 2025, arXiv 2412.09149, and the
    authors' code. There 1000 mazes are drawn once for all, and here each episode has another one. There an episode
    counts as a success wherever it ends, in lava too, and here at the goal alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from gps.settings import check_at_least
from gps.tasks.task import ActionSpace, State

SIDE, FIELD, EDGE = 21, 15, 3  # cells along the grid and along the field, and around the field
START, GOAL = (10, 19), (10, 1)  # x to the right, y upwards
MOVES = ((1, 0), (0, -1), (-1, 0), (0, 1))  # right, down, left, up
OUTSIDE, GROUND, LAVA, PATH = range(4)  # kinds of cells
COLUMNS = (3, 10)  # of the field, in which paths stay
_CELLS = (*MOVES, (0, 0))  # whose kinds are seen: the four neighbours, and the own one
_NOWHERE = len(MOVES)  # the last move before the first one


@dataclass(frozen=True)
class ColorMazeSettings:
    """How long an episode may take."""

    limit: int = 441  # steps, after which an episode is truncated
    judged: int = 100  # steps within which the goal counts as a success

    def __post_init__(self):
        check_at_least(self, 1, "limit", "judged")


class ColorMaze:
    """See `Environment`. The grid is 21 x 21 cells, with the field in the middle; the goal is on the other side of it.

    Actions: right, down, left, up; who would leave the grid stays. Reward 10 at the goal and -0.1 in lava, which both
    end the episode; 0.5 on a cell of the path seen first in the episode, -0.5 on one seen again.

    obs["state"] (16): offset to the goal in sides of the grid; one-hot of the last move, zeros before the first; of the
    four neighbours in the order of actions and the own cell, which are outside of the grid; which are of the field.
    obs["privileged_state"] (5): which of these cells are of the path.
    Metrics: "novel", the cell is seen first in the episode; "success", the goal within `judged` steps.
    """

    calls_host = False
    actions = ActionSpace(len(MOVES), discrete=True)
    observation_size = 2 + len(MOVES) + 2 * len(_CELLS)
    privileged_size = len(_CELLS)

    def __init__(self, settings: ColorMazeSettings, name: str = "color-maze"):
        self.name = name
        self.settings = settings
        self.horizon = settings.limit

    def reset(self, key: PRNGKeyArray) -> State:
        """Draw a maze."""
        return self.start(wind(key))

    def start(self, path: Bool[Array, "15 15"]) -> State:
        """Begin an episode in a maze with that path; see `wind`."""
        field = jnp.where(path, PATH, LAVA)[::-1].T  # from rows downwards to x, y
        inside = slice(EDGE, EDGE + FIELD)
        data = {
            "kinds": jnp.full((SIDE, SIDE), GROUND, jnp.int32).at[inside, inside].set(field),
            "seen": _at(jnp.asarray(START)),
            "at": jnp.asarray(START),
            "last": jnp.asarray(_NOWHERE),
            "t": jnp.zeros((), jnp.int32),
        }
        zero = jnp.zeros(())
        return State(data, _observe(data), zero, zero, {"novel": zero, "success": zero}, {"truncation": zero})

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Move by one cell."""
        before, t = state.data, state.data["t"] + 1
        at = jnp.clip(before["at"] + jnp.asarray(MOVES)[action], 0, SIDE - 1)
        here, kind = _at(at), _kind(before["kinds"], at)
        again = (here & before["seen"]).any()
        goal, burnt = (at == jnp.asarray(GOAL)).all(), kind == LAVA
        gained = jnp.where(again, -0.5, 0.5)
        reward = jnp.where(goal, 10.0, 0.0) - jnp.where(burnt, 0.1, 0.0) + jnp.where(kind == PATH, gained, 0.0)
        data = {**before, "seen": before["seen"] | here, "at": at, "last": jnp.asarray(action, jnp.int32), "t": t}
        over, late = goal | burnt, t >= self.settings.limit
        metrics = {"novel": ~again, "success": goal & (t <= self.settings.judged)}
        metrics = {name: value.astype(float) for name, value in metrics.items()}
        ends = {"truncation": (late & ~over).astype(float)}
        return State(data, _observe(data), reward, (over | late).astype(float), metrics, ends)


def wind(key: PRNGKeyArray) -> Bool[Array, "15 15"]:
    """Draw a path: which cells of the field it takes, by rows from the top.

    From a column drawn at random it goes 3 or 4 cells down, 1 to 3 sideways, and again, to the other side of the field.
    A turn that would leave `COLUMNS` goes the other way.
    """
    begin, down, sideways, way = jax.random.split(key, 4)
    low, high = COLUMNS
    stretches = FIELD // 3  # at most
    first = jax.random.randint(begin, (), low, high + 1)
    ends = jnp.cumsum(jax.random.randint(down, (stretches,), 3, 5))  # the row below each stretch
    turns = jax.random.randint(sideways, (stretches,), 1, 4) * jax.random.rademacher(way, (stretches,))

    def turn(column, by):
        there = column + by
        after = jnp.where((there < low) | (there > high), column - by, there)
        return after, after

    columns = jnp.concatenate([first[None], jax.lax.scan(turn, first, turns)[1]])
    row = jnp.arange(FIELD)
    stretch = (row[:, None] >= ends).sum(1)
    one = columns[stretch]
    turning = (row[:, None] + 1 == ends).any(1) & (row < FIELD - 1)
    other = jnp.where(turning, columns[stretch + 1], one)
    left, right = jnp.minimum(one, other), jnp.maximum(one, other)
    column = jnp.arange(FIELD)
    return (column >= left[:, None]) & (column <= right[:, None])


def _observe(data: dict[str, Array]) -> dict[str, Array]:
    kinds = jnp.stack([_kind(data["kinds"], data["at"] + jnp.asarray(cell)) for cell in _CELLS])
    offset = (jnp.asarray(GOAL) - data["at"]) / SIDE
    last = jax.nn.one_hot(data["last"], len(MOVES))
    seen = jnp.concatenate([offset, last, kinds == OUTSIDE, kinds >= LAVA])
    return {"state": seen.astype(float), "privileged_state": (kinds == PATH).astype(float)}


def _kind(kinds: Int[Array, "21 21"], at: Int[Array, "2"]) -> Int[Array, ""]:
    inside = ((at >= 0) & (at < SIDE)).all()
    return jnp.where(inside, jnp.where(_at(at), kinds, 0).sum(), OUTSIDE)


def _at(at: Int[Array, "2"]) -> Bool[Array, "21 21"]:
    """The one cell as a mask: CPUs are faster by it than by an index, in a batch."""
    cell = jnp.arange(SIDE)
    return (cell == at[0])[:, None] & (cell == at[1])
