"""The coloured maze against a plain one in Python: its paths, rewards, ends and what each role sees."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gps.settings import SettingsError, from_dict
from gps.tasks.mazes.color import ColorMaze, ColorMazeSettings, wind

TASK = ColorMaze(ColorMazeSettings())
RIGHT, DOWN, LEFT, UP = range(4)
MOVES = {RIGHT: (1, 0), DOWN: (0, -1), LEFT: (-1, 0), UP: (0, 1)}
ROUND = [LEFT] * 8 + [DOWN] * 18 + [RIGHT] * 8  # around the field
step = jax.jit(TASK.step)


@pytest.fixture(scope="module")
def paths() -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(wind))(jax.random.split(jax.random.key(0), 2000)))


class Plain:
    """The rules once more, by sets of cells."""

    def __init__(self, path: np.ndarray, limit: int = 441):
        self.path = {(3 + column, 17 - row) for row, column in np.argwhere(path)}
        self.field = {(x, y) for x in range(3, 18) for y in range(3, 18)}
        self.at, self.t, self.limit = (10, 19), 0, limit
        self.seen, self.last = {self.at}, None

    def step(self, action: int):
        """Reward, whether the episode ends, whether by its limit, and whether the cell is new."""
        x, y = (a + b for a, b in zip(self.at, MOVES[action], strict=True))
        self.at = (x, y) if 0 <= x <= 20 and 0 <= y <= 20 else self.at
        self.t, self.last, new = self.t + 1, action, self.at not in self.seen
        self.seen.add(self.at)
        burnt, goal = self.at in self.field - self.path, self.at == (10, 1)
        reward = -0.1 if burnt else 10.0 if goal else (0.5 if new else -0.5) if self.at in self.path else 0.0
        return reward, burnt or goal or self.t >= self.limit, self.t >= self.limit and not (burnt or goal), new

    def observed(self):
        cells = [tuple(np.add(self.at, move)) for move in (*MOVES.values(), (0, 0))]
        outside = [not (0 <= x <= 20 and 0 <= y <= 20) for x, y in cells]
        last = [self.last == action for action in MOVES]
        offset = [(10 - self.at[0]) / 21, (1 - self.at[1]) / 21]
        state = [*offset, *last, *outside, *(cell in self.field for cell in cells)]
        return np.array(state, float), np.array([cell in self.path for cell in cells], float)


def begin(path):
    return jax.jit(TASK.start)(jnp.asarray(path))


def play(path, actions):
    """Rewards up to the end of the episode, and its last state."""
    state, rewards = begin(path), []
    for action in actions:
        state = step(state, jnp.int32(action))
        rewards.append(float(state.reward))
        if state.done:
            break
    return rewards, state


def along(path) -> list[int]:
    """The actions that follow a path, from the start to the goal."""
    x, actions = 7, []  # in columns of the field
    for row in path:
        columns = np.flatnonzero(row)
        if not actions:
            first = columns[0] if len(columns) == 1 else None
            assert first is not None  # no path begins with a turn
            actions += [RIGHT if first > x else LEFT] * abs(int(first) - x) + [DOWN]
            x = int(first)
        actions.append(DOWN)
        other = int(columns[0] if columns[-1] == x else columns[-1])
        actions += [RIGHT if other > x else LEFT] * abs(other - x)
        x = other
    actions.append(DOWN)
    return [*actions, *[RIGHT if x < 7 else LEFT] * abs(x - 7), DOWN]


def test_paths_wind_down_within_their_columns(paths):
    """Stretches of 3 or 4 cells, turns of 1 to 3; each length and each first column as often as the others."""
    widths, stretches = [], []
    for path in paths:
        columns = [np.flatnonzero(row) for row in path]
        assert min(c[0] for c in columns) >= 3
        assert max(c[-1] for c in columns) <= 10
        for upper, lower in itertools.pairwise(columns):  # connected, and by an end of the row above
            assert lower[0] in (upper[0], upper[-1]) or lower[-1] in (upper[0], upper[-1])
        for row in columns:
            assert row[-1] - row[0] == len(row) - 1
        turns = [i for i, row in enumerate(columns) if len(row) > 1]
        widths += [len(columns[i]) - 1 for i in turns]
        stretches.append(turns[0] + 1)  # of the last ones, those that are short end before the field more often
        assert 14 - turns[-1] <= 4
    for found, expected in ((widths, (1, 2, 3)), (stretches, (3, 4))):
        shares = [np.mean(np.array(found) == value) for value in expected]
        assert sum(shares) == 1.0
        assert np.abs(np.array(shares) - 1 / len(expected)).max() < 0.03
    firsts = np.bincount([np.argmax(path[0]) for path in paths], minlength=15) / len(paths)
    assert (np.abs(firsts[3:11] - 1 / 8) < 0.03).all()


def test_both_ways_and_what_they_are_worth(paths):
    """The path pays a half for each of its cells, the way round nothing but the goal."""
    for path in paths[:5]:
        rewards, state = play(path, along(path))
        assert sum(rewards) == pytest.approx(10 + 0.5 * path.sum())
        assert float(state.done) == float(state.metrics["success"]) == 1.0
        rewards, state = play(path, ROUND)
        assert sum(rewards) == 10.0
        assert (len(rewards), float(state.metrics["success"])) == (34, 1.0)
    assert 20.5 < 10 + 0.5 * paths.sum((1, 2)).mean() < 21.5


def test_random_walks_are_those_of_the_plain_maze(paths):
    """Rewards, ends, novelty and both observations at every step, with lava, edges and cells that are seen again."""
    generator = np.random.default_rng(0)
    burnt = edges = again = 0
    for path in paths[:60]:
        plain, state = Plain(path), begin(path)
        follow = along(path)[: generator.integers(0, 12)]
        for action in [*follow, *generator.integers(0, 4, 60)]:
            before = plain.at
            reward, done, cut, new = plain.step(int(action))
            state = step(state, jnp.int32(action))
            assert float(state.reward) == pytest.approx(reward)
            assert (bool(state.done), bool(state.info["truncation"])) == (done, cut)
            assert bool(state.metrics["novel"]) == new
            for name, expected in zip(("state", "privileged_state"), plain.observed(), strict=True):
                np.testing.assert_allclose(state.obs[name], expected, atol=1e-6)
            edges += plain.at == before
            again += reward == -0.5
            burnt += reward == -0.1
            if done:
                break
    assert min(burnt, edges, again) >= 5


def test_path_and_lava_look_alike_to_the_learner(paths):
    one, other = (begin(path) for path in (paths[0], ~paths[0]))
    for action in along(paths[0])[:9]:
        np.testing.assert_array_equal(one.obs["state"], other.obs["state"])
        one, other = (step(state, jnp.int32(action)) for state in (one, other))
    assert one.obs["privileged_state"].any()


def test_the_limit_truncates_and_a_late_goal_is_no_success(paths):
    idle = [UP] * 200  # at the upper edge, where it stays
    rewards, state = play(paths[0], [*idle, *idle, *idle])
    assert len(rewards) == 441
    assert (float(state.done), float(state.info["truncation"]), sum(rewards)) == (1.0, 1.0, 0.0)
    for wait, success in ((65, 1.0), (66, 0.0)):  # one step up is one step more down
        rewards, state = play(paths[0], [*[UP] * wait, DOWN, *ROUND])
        assert (sum(rewards), float(state.done), float(state.info["truncation"])) == (10.0, 1.0, 0.0)
        assert float(state.metrics["success"]) == success, len(rewards)


def test_every_episode_has_another_maze():
    states = jax.jit(jax.vmap(TASK.reset))(jax.random.split(jax.random.key(5), 200))
    mazes = np.asarray(states.data["kinds"]).reshape(200, -1)
    assert len(np.unique(mazes, axis=0)) > 150


@pytest.mark.parametrize("name", ["limit", "judged"])
def test_impossible_limits_are_named(name):
    with pytest.raises(SettingsError, match=f"task: {name} must be at least 1, not 0"):
        from_dict(ColorMazeSettings, {name: 0}, "task")
