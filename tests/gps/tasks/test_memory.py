"""Whole episodes of the POPGym tasks against the package they follow, with its decks, boards and physical states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import popgym.envs
import pytest
from gymnasium.spaces import flatten

from gps.experiments.lookup import TASKS, find
from gps.tasks.memory.battleship import Battleship, BattleshipSettings
from gps.tasks.memory.cards import CountRecallSettings, RepeatPreviousSettings
from gps.tasks.memory.cartpole import CartPoleSettings, StatelessCartPole

UPSTREAM = {
    "autoencode": "Autoencode",
    "battleship": "Battleship",
    "count-recall": "CountRecall",
    "stateless-cartpole": "PositionOnlyCartPole",
    "noisy-stateless-cartpole": "NoisyPositionOnlyCartPole",
    "repeat-previous": "RepeatPrevious",
}
FAMILY = [name for name in TASKS if name.rpartition("-")[0] in UPSTREAM]
CARTPOLES = [name for name in FAMILY if "cartpole" in name]
GAMES = [name for name in FAMILY if name not in CARTPOLES]
CARDS = [name for name in GAMES if "battleship" not in name]
CHANCES = (0.0, 0.0, 0.5, 0.9, 1.0)  # of the best action rather than a random one, by episode


def family(name):
    return name.rpartition("-")[0]


def upstream(name, **settings):
    difficulty = "" if settings else name.rpartition("-")[2].capitalize()
    return getattr(popgym.envs, UPSTREAM[family(name)] + difficulty)(**settings)


@functools.cache
def ours(name):
    entry = find("task", name)
    return entry.build(entry.settings, name)


def best(env, hidden):
    """The best action by the privileged observation alone."""
    if isinstance(env, Battleship):
        board, shot = jnp.split(hidden, 2)
        return jnp.argmax(board * (1 - shot))
    if isinstance(env, StatelessCartPole):
        return (hidden @ jnp.array([0.2, 0.6, 8.0, 1.5]) > 0).astype(jnp.int32)
    kinds = env.actions.size
    return jnp.argmax(hidden[:kinds])  # the answer comes first


@functools.cache
def programs(name):
    """Of several episodes at once: reset, start, and all moments under actions that are part given, part best."""
    env = ours(name)

    def step(state, choice):
        action, wise = choice
        action = jnp.where(wise, best(env, state.obs["privileged_state"]), action)
        following = env.step(state, action)
        return following, (following, action)

    def play(state, actions, wise):
        _, (following, actions) = jax.lax.scan(step, state, (actions, wise))
        states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, following)
        return states.obs, states.reward, states.done, states.info, actions

    return [jax.jit(jax.vmap(function)) for function in (env.reset, env.start, play)]


def episodes(name, starts=None, chances=CHANCES, seed=0):
    """Obs, reward, done, info (all at 0 to horizon) and actions of as many episodes as there are chances."""
    reset, start, play = programs(name)
    generator = np.random.default_rng(seed)
    shape = (len(chances), ours(name).horizon)
    actions = generator.integers(ours(name).actions.size, size=shape, dtype=np.int32)
    wise = generator.uniform(size=shape) < np.asarray(chances)[:, None]
    keys = jax.random.split(jax.random.key(seed), len(chances))
    return jax.tree.map(np.asarray, play(start(*starts) if starts else reset(keys), actions, wise))


def returns(reward, done):
    """The return and the length of each episode; the first reward is of no action."""
    alive = np.cumsum(done, axis=1) - done == 0
    return np.where(alive, reward, 0.0)[:, 1:].sum(1), done.argmax(1)


def hidden_start(env):
    """What upstream drew, as the arguments of our `start`."""
    if hasattr(env, "board"):
        return (env.board,)
    if hasattr(env, "value_deck"):
        return tuple(env.deck_idx_type[deck.idx[::-1]] for deck in (env.value_deck, env.query_deck))
    return (env.deck.suits_idx[env.deck.idx[::-1]],)


def privileged(env, name):
    """Upstream's `get_state` in the form of our privileged observation, less the answer."""
    state = env.get_state()
    if family(name) == "battleship":
        return np.concatenate([state[0].ravel(), state[1].ravel()])
    if family(name) == "count-recall":
        return np.concatenate(state[:2])
    if family(name) == "autoencode":
        return np.concatenate([np.eye(4)[state[0][::-1]].ravel(), [state[1]], state[2]])
    cards = np.eye(4)[state[0]]
    cards[: max(0, env.k - env.deck.hand_size("player"))] = 0.0  # not yet dealt
    return np.concatenate([cards.ravel(), state[1]])


@pytest.mark.parametrize("name", GAMES)
def test_games_are_upstreams_step_by_step(name):
    theirs = [upstream(name) for _ in CHANCES]
    first = [env.reset(seed=seed)[0] for seed, env in enumerate(theirs)]
    starts = tuple(np.stack(part) for part in zip(*map(hidden_start, theirs), strict=True))
    obs, reward, done, info, actions = episodes(name, starts)
    space = theirs[0].action_space
    assert ours(name).actions.size == (np.prod(space.nvec) if "battleship" in name else space.n)
    assert ours(name).horizon == theirs[0].max_episode_length
    ends = set()
    for i, env in enumerate(theirs):
        expected = first[i], 0.0, False, False
        for t in range(ours(name).horizon + 1):
            seen, gain, terminated, truncated = expected
            hidden = obs["privileged_state"][i, t]
            shown = flatten(env.observation_space, seen)
            if "battleship" in name:  # the cell that was shot at last comes with it
                shown = np.concatenate([shown, np.eye(env.board_size**2)[actions[i, t - 1]] * (t > 0)])
            np.testing.assert_array_equal(obs["state"][i, t], shown)
            np.testing.assert_allclose(hidden[-len(privileged(env, name)) :], privileged(env, name), atol=1e-6)
            assert reward[i, t] == pytest.approx(gain, abs=1e-7)
            assert done[i, t] == (terminated or truncated)
            assert info["truncation"][i, t] == (truncated and not terminated)
            if terminated or truncated:
                ends.add((terminated, truncated))
                break
            action = actions[i, t]
            expected = env.step(np.array(divmod(action, env.board_size)) if "battleship" in name else action)[:4]
        else:
            pytest.fail("the episode did not end")
    assert ends == ({(True, False), (False, True)} if "battleship" in name else {(True, False)})


@pytest.mark.parametrize("name", CARTPOLES)
def test_cartpoles_are_upstreams_step_by_step(name):
    """Upstream gets our state before each step, so that rounding does not grow along the episode."""
    env = upstream(name)
    env.reset(seed=0)
    env.np_random = Silence()
    obs, reward, done, info, actions = episodes(name)
    ends = set()
    for i in range(len(CHANCES)):
        env.num_steps, env.steps_beyond_terminated = 0, None
        for t in range(ours(name).horizon):
            env.state = obs["privileged_state"][i, t].astype(float)
            seen, gain, terminated, truncated, _ = env.step(int(actions[i, t]))
            np.testing.assert_allclose(obs["privileged_state"][i, t + 1], env.get_state(), atol=2e-6)
            if "noisy" not in name:
                np.testing.assert_allclose(obs["state"][i, t + 1], seen, atol=1e-6)
            assert reward[i, t + 1] == pytest.approx(gain)
            assert done[i, t + 1] == (terminated or truncated)
            assert info["truncation"][i, t + 1] == (truncated and not terminated)
            if terminated or truncated:
                ends.add((terminated, truncated))
                break
    assert ends == {(True, False), (False, True)}


class Silence:
    """A random generator for upstream whose normal numbers are `noise` standard deviations."""

    def __init__(self, noise=0.0):
        self.noise = noise

    def normal(self, mean, sigma):
        return mean + sigma * self.noise


@pytest.mark.parametrize("name", [name for name in CARTPOLES if "noisy" in name])
def test_noise_is_added_as_upstream_adds_it(name):
    env, generator = upstream(name), np.random.default_rng(0)
    clipped = 0
    for noise in 3 * generator.standard_normal((100, 2)):
        physical = generator.uniform(-0.3, 0.3, 4).astype(np.float32)
        env.np_random = Silence(noise)
        expected = env.add_noise_to_obs(physical[::2])
        np.testing.assert_allclose(ours(name).observe(physical, jnp.asarray(noise, jnp.float32)), expected, atol=1e-6)
        clipped += abs(expected[1]) == env.observation_space.high[1]
    assert 0 < clipped < 100


@pytest.mark.parametrize("name", [name for name in CARTPOLES if "noisy" in name])
def test_noise_is_white_and_of_the_right_size(name):
    runs = [episodes(name, chances=(1,) * 5, seed=seed)[0] for seed in range(8)]
    obs = {key: np.concatenate([run[key] for run in runs]) for key in runs[0]}
    noise = (obs["state"] - obs["privileged_state"][..., ::2]) / ours(name).settings.noise_sigma
    position, angle = noise[..., 0], noise[..., 1]  # 40 episodes of 201 moments: standard errors near 0.011
    assert abs(position.mean()) < 0.05
    assert position.std() == pytest.approx(1, abs=0.04)
    assert abs(np.median(angle)) < 0.06  # the angle may be clipped: 12 degrees are 0.2
    assert abs(np.corrcoef(position.ravel(), angle.ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(position[:, 1:].ravel(), position[:, :-1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(position[0], position[1])[0, 1]) < 0.3
    assert position[:, 0].std() > 0.7  # the first observation is noisy as well


@pytest.mark.parametrize("name", FAMILY)
def test_privileged_observation_is_enough_for_a_perfect_game(name):
    _, reward, done, info, _ = episodes(name, chances=(1,) * 5, seed=2)
    total, length = returns(reward, done)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    assert set(length) == {12 if "battleship" in name else ours(name).horizon}
    truncation = info["truncation"][np.arange(5), length]
    assert (truncation == (1.0 if "cartpole" in name else 0.0)).all()


@pytest.mark.parametrize("name", GAMES)
def test_random_play_stays_in_the_range_of_returns(name):
    _, reward, done, _, _ = episodes(name, chances=(0,) * 5, seed=3)
    total, _ = returns(reward, done)
    worst = -ours(name).horizon / (ours(name).horizon - 12) if "battleship" in name else -1.0
    assert (total >= worst - 1e-5).all()
    assert (total < 0.2).all()


@pytest.mark.parametrize("name", CARDS)
def test_wrong_answers_lose_one(name):
    env = ours(name)
    state = env.reset(jax.random.key(0))
    step, total = jax.jit(env.step), 0.0
    for _ in range(env.horizon):
        assert not state.done
        wrong = (best(env, state.obs["privileged_state"]) + 1) % env.actions.size
        state = step(state, wrong)
        total += float(state.reward)
    assert state.done
    assert total == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("name", FAMILY)
def test_reset_and_step_give_the_same_tree(name):
    env = ours(name)
    begun = jax.eval_shape(env.reset, jax.random.key(0))
    following = jax.eval_shape(env.step, begun, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.structure(begun) == jax.tree.structure(following)
    kinds = [[(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(s)] for s in (begun, following)]
    assert kinds[0] == kinds[1]
    assert not any(weak for _, _, weak in kinds[0])
    assert begun.obs["state"].shape == (env.observation_size,)
    assert begun.obs["privileged_state"].shape == (env.privileged_size,)
    assert {leaf.dtype for leaf in jax.tree.leaves(begun.obs)} == {jnp.dtype("float32")}
    assert env.name == name
    assert env.actions.discrete
    assert not env.calls_host


@pytest.mark.parametrize("name", [name for name in CARDS if name.endswith("hard")])
def test_every_reset_shuffles_whole_decks(name):
    env = ours(name)
    data = jax.jit(jax.vmap(lambda key: env.reset(key).data))(jax.random.split(jax.random.key(0), 500))
    piles = data["piles"] if "count-recall" in name else data["cards"][:, None]
    whole = np.sort(env.deck)
    piles = np.asarray(piles).reshape(-1, len(whole))
    np.testing.assert_array_equal(np.sort(piles, axis=1), np.broadcast_to(whole, piles.shape))
    assert len(np.unique(piles, axis=0)) == len(piles)  # the two piles of one game are drawn apart as well
    kinds = whole.max() + 1
    for place in (0, 1, len(whole) - 1):
        shares = np.bincount(piles[:, place], minlength=kinds) / len(piles)
        assert np.abs(shares - 1 / kinds).max() < 5 * np.sqrt(1 / kinds / len(piles))


def test_every_place_of_a_ship_is_equally_likely():
    """A ship of 3 on a board of 4 x 4 has 8 places in rows and 8 in columns."""
    env = Battleship(BattleshipSettings(board=4, ships=(3,)))
    keys = jax.random.split(jax.random.key(0), 8000)
    boards = np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key).data["board"]))(keys))
    places, counts = np.unique(boards, axis=0, return_counts=True)
    assert len(places) == 16
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_fleets_are_placed_as_often_in_each_cell_as_upstreams():
    ahead, env = 20000, upstream("battleship-easy")
    reset, *_ = programs("battleship-easy")
    boards = np.asarray(reset(jax.random.split(jax.random.key(0), ahead)).data["board"])
    assert (boards.sum(1) == 12).all()
    env.reset(seed=0)
    theirs = np.stack([env.board for _ in range(2000) if env.reset()]).reshape(2000, -1)
    share = boards.mean(0)
    error = np.sqrt(share * (1 - share) * (1 / 2000 + 1 / ahead))
    assert np.abs((share - theirs.mean(0)) / error).max() < 4.5
    # How ships lie to one another: pairs of neighbours that are both taken.
    pairs, their_pairs = (
        (b[:, :, 1:] & b[:, :, :-1]).sum((1, 2)) for b in (boards.reshape(-1, 8, 8), theirs.reshape(-1, 8, 8) > 0)
    )
    assert pairs.mean() == pytest.approx(their_pairs.mean(), abs=4 * their_pairs.std() / np.sqrt(2000))


def test_cartpoles_start_in_upstreams_range():
    reset, *_ = programs("stateless-cartpole-easy")
    physical = np.asarray(reset(jax.random.split(jax.random.key(0), 2000)).obs["privileged_state"])
    assert np.abs(physical).max() < 0.05
    np.testing.assert_allclose(physical.mean(0), 0.0, atol=0.004)
    np.testing.assert_allclose(physical.std(0), 0.05 / np.sqrt(3), rtol=0.05)
    assert np.abs(np.corrcoef(physical.T) - np.eye(4)).max() < 0.1


def test_fleet_sunk_by_the_last_shot_is_not_truncated():
    """Upstream sets both flags there; a return must not be bootstrapped past the end of the game."""
    env, theirs = ours("battleship-easy"), upstream("battleship-easy")
    theirs.reset(seed=4)
    state, step, total = env.start(jnp.asarray(theirs.board)), jax.jit(env.step), 0.0
    for cell in np.argsort(theirs.board.ravel(), kind="stable"):  # the sea first
        assert not state.done
        state = step(state, jnp.int32(cell))
        _, reward, terminated, truncated, _ = theirs.step(np.array(divmod(cell, 8)))
        total += reward
        assert state.reward == pytest.approx(reward)
    assert terminated
    assert truncated
    assert state.done == 1
    assert state.info["truncation"] == 0
    assert total == pytest.approx(0)


def test_pole_that_falls_at_the_last_step_is_not_truncated():
    def fall(env):
        step = jax.jit(env.step)
        state, steps = env.start(jnp.zeros(4), jax.random.key(0)), 0
        while not state.done:
            state, steps = step(state, jnp.int32(1)), steps + 1
        return state, steps

    _, steps = fall(ours("stateless-cartpole-easy"))
    for horizon, truncated in ((steps, 0.0), (steps - 1, 1.0)):
        state, _ = fall(StatelessCartPole(CartPoleSettings(horizon=horizon)))
        assert state.info["truncation"] == truncated
        theirs = upstream("stateless-cartpole-easy", max_episode_length=horizon)
        theirs.reset(seed=0)
        theirs.state = np.zeros(4)
        ended = [theirs.step(1)[2:4] for _ in range(horizon)]
        assert ended[-1] == (truncated == 0.0, True)
        assert not any(map(any, ended[:-1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: RepeatPreviousSettings(decks=1, lag=52), "lag must be below the 52 cards"),
        (lambda: RepeatPreviousSettings(decks=0), "decks must be at least 1"),
        (lambda: CountRecallSettings(kind="suit"), "did you mean 'suits'"),
        (lambda: BattleshipSettings(board=3), "may not fit on a board of 3 x 3"),
        (lambda: BattleshipSettings(board=4, ships=(4, 4, 4, 4)), "nothing is to be found"),
        (lambda: BattleshipSettings(board=4, ships=()), "one or more lengths"),
        (lambda: CartPoleSettings(noise_sigma=-0.1), "noise_sigma must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()
