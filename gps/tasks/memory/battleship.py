"""Find ships that are hidden on a board: `battleship`.

Rules, observation and rewards are those of `popgym.envs.battleship` in the Python package popgym 1.0.7 (Morad et al.,
"POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from gps.settings import check_at_least
from gps.tasks.task import ActionSpace, State


@dataclass(frozen=True)
class BattleshipSettings:
    """The board and the fleet."""

    board: int = 8  # cells along a side
    ships: tuple[int, ...] = (2, 3, 3, 4)  # cells of each, in the order in which they are placed

    def __post_init__(self):
        check_at_least(self, 1, "board")
        if not self.ships or min(self.ships) < 1:
            raise ValueError(f"ships must be one or more lengths of at least 1, not {self.ships}")
        if sum(self.ships) == self.board**2:
            raise ValueError(
                f"ships {self.ships} fill the board of {self.board} x {self.board}: nothing is to be found"
            )
        taken = 0
        for ship in self.ships:
            # So many places do not overlap each other; ships may touch, so each cell that is taken blocks one at most.
            if taken >= self.board * (self.board // ship):
                raise ValueError(
                    f"ships {self.ships} may not fit on a board of {self.board} x {self.board}: enlarge it"
                )
            taken += ship


class Battleship:
    """Fire at one cell a step until all ships are sunk, at most as often as there are cells.

    An action is a cell of the n x n board in row-major order: row * n + column. With S ship cells, a first hit on one
    gives 1/S and everything else, a second shot at a cell included, -1/(n^2 - S): a perfect game returns 1, and
    shooting at each cell once, until the fleet is sunk, 0 or more. The episode is truncated after n^2 steps, unless the
    fleet is sunk by then.

    obs["state"] (2 + n^2): one-hot of the last shot (miss, hit), a miss at the start; then the cell that it went to,
    zeros at the start. Upstream's observation is the first two, and asks for the last action beside it
    (`obs_requires_prev_action`): a policy that draws its actions does not know where it shot.

    obs["privileged_state"] (2 n^2): the ships (1) on the board, then the cells that were shot at (1), row-major. The
    last shot, the rest of upstream's `get_state`, is in obs["state"].
    """

    calls_host = False

    def __init__(self, settings: BattleshipSettings, name: str = "battleship-easy"):
        self.name = name
        self.settings = settings
        self.cells = settings.board**2
        self.fleet = sum(settings.ships)
        self.horizon = self.cells
        self.actions = ActionSpace(self.cells, discrete=True)
        self.observation_size = 2 + self.cells
        self.privileged_size = 2 * self.cells

    def reset(self, key: PRNGKeyArray) -> State:
        """Place the ships, one after the other, each anywhere that is free with the same chance."""
        board = jnp.zeros((self.settings.board, self.settings.board), bool)
        for ship, draw in zip(self.settings.ships, jax.random.split(key, len(self.settings.ships)), strict=True):
            board = _place(draw, board, ship)
        return self.start(board)

    def start(self, board: Bool[Array, "n n"]) -> State:
        """Begin an episode with ships in these cells."""
        board = jnp.asarray(board, bool).reshape(-1)
        zero = jnp.zeros((), jnp.int32)
        data = {"board": board, "shot": jnp.zeros_like(board), "hits": zero, "t": zero}
        nowhere = jnp.zeros_like(board)
        return self._state(data, nowhere, hit=jnp.zeros((), bool), reward=jnp.zeros(()))

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Shoot at the cell `action`."""
        board, shot = state.data["board"], state.data["shot"]
        here = jnp.arange(self.cells) == action
        hit = (here & board & ~shot).any()
        reward = jnp.where(hit, jnp.float32(1 / self.fleet), jnp.float32(-1 / (self.cells - self.fleet)))
        data = {"board": board, "shot": shot | here, "hits": state.data["hits"] + hit, "t": state.data["t"] + 1}
        return self._state(data, here, hit, reward)

    def _state(self, data, here, hit, reward) -> State:
        sunk = data["hits"] >= self.fleet
        late = data["t"] >= self.horizon
        privileged = jnp.concatenate([data["board"], data["shot"]]).astype(jnp.float32)
        seen = jnp.concatenate([jnp.stack([~hit, hit]), here]).astype(jnp.float32)
        obs = {"state": seen, "privileged_state": privileged}
        # Upstream sets both flags where the last shot sinks the fleet; the limit is then not what ended the game.
        truncated = (late & ~sunk).astype(jnp.float32)
        return State(data, obs, reward, (sunk | late).astype(jnp.float32), {}, {"truncation": truncated})


def _place(key: PRNGKeyArray, board: Bool[Array, "n n"], ship: int) -> Bool[Array, "n n"]:
    """Put a ship in a free row or column of cells.

    Upstream draws a start, an axis and a direction until they fit. That gives every place that fits the same chance,
    as a ship can start at either of its ends; here the place is drawn among those at once.
    """
    size = len(board)
    starts = size - ship + 1
    across = jnp.stack([board, board.T])
    free = ~jnp.stack([across[:, :, i : i + starts] for i in range(ship)]).any(0)  # axis, row, first cell
    rank = jnp.cumsum(free.reshape(-1))
    place = jnp.argmax(rank > jax.random.randint(key, (), 0, rank[-1]))
    axis, row, first = jnp.unravel_index(place, free.shape)
    cell = jnp.arange(size)
    cells = (cell == row)[:, None] & ((cell >= first) & (cell < first + ship))
    return board | jnp.where(axis == 0, cells, cells.T)
