"""Every outcome of the two tiger problems, and their optima by trying every policy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gps.settings import SettingsError, from_dict
from gps.tasks.doors.tiger import LISTEN, TigerDoor, TigerDoorAlt, TigerDoorAltSettings, TigerDoorSettings

COST = 0.2
NOTHING, SAW_LEFT, SAW_RIGHT = np.eye(3)


def door(cost=COST):
    return TigerDoor(TigerDoorSettings(listen_cost=cost))


def alt():
    return TigerDoorAlt(TigerDoorAltSettings())


def starts(task):
    """The first moment of an episode in each of the two hidden states."""
    states = jax.vmap(task.reset)(jax.random.split(jax.random.key(0), 16))
    hidden = np.argmax(states.obs["privileged_state"], axis=1)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in (int(np.argmax(hidden == s)) for s in (0, 1))]


def play(task, state, policy):
    """Return and number of steps of one episode, the policy a function of the learner's observation's class."""
    total, steps = 0.0, 0
    while not state.done:
        state = task.step(state, jnp.int32(policy[int(np.argmax(state.obs["state"]))]))
        total, steps = total + float(state.reward), steps + 1
    return total, steps


def outcomes(task, classes):
    """Return of every deterministic policy of the learner, in each of the hidden states: {policy: (first, second)}."""
    policies = itertools.product(range(task.actions.size), repeat=classes)
    begun = starts(task)
    return {policy: tuple(play(task, state, policy)[0] for state in begun) for policy in policies}


@pytest.mark.parametrize("tiger", [0, 1])
@pytest.mark.parametrize("action", [0, 1])
def test_a_door_ends_the_episode(tiger, action):
    after = door().step(starts(door())[tiger], jnp.int32(action))
    assert float(after.reward) == (action != tiger)
    assert (float(after.done), float(after.info["truncation"])) == (1.0, 0.0)
    np.testing.assert_array_equal(after.obs["state"], NOTHING)
    np.testing.assert_array_equal(after.obs["privileged_state"], np.eye(2)[tiger])


@pytest.mark.parametrize("tiger", [0, 1])
@pytest.mark.parametrize("second", [0, 1, LISTEN])
def test_listening_shows_the_tiger_and_the_second_step_is_the_last(tiger, second):
    before = starts(door())[tiger]
    np.testing.assert_array_equal(before.obs["state"], NOTHING)
    heard = door().step(before, jnp.int32(LISTEN))
    assert float(heard.reward) == pytest.approx(-COST)
    assert float(heard.done) == 0.0
    np.testing.assert_array_equal(heard.obs["state"], [SAW_LEFT, SAW_RIGHT][tiger])
    last = door().step(heard, jnp.int32(second))
    assert float(last.reward) == pytest.approx(-COST if second == LISTEN else float(second != tiger))
    assert (float(last.done), float(last.info["truncation"])) == (1.0, 0.0)
    np.testing.assert_array_equal(last.obs["state"], [SAW_LEFT, SAW_RIGHT][tiger])


@pytest.mark.parametrize(("hidden", "action", "reward"), [(0, 0, 2.0), (0, 1, 0.0), (1, 0, 0.0), (1, 1, 1.0)])
def test_every_outcome_of_the_alternative(hidden, action, reward):
    before = starts(alt())[hidden]
    after = alt().step(before, jnp.int32(action))
    assert (float(after.reward), float(after.done), float(after.info["truncation"])) == (reward, 1.0, 0.0)
    for state in (before, after):
        np.testing.assert_array_equal(state.obs["state"], [1.0])
        np.testing.assert_array_equal(state.obs["privileged_state"], np.eye(2)[hidden])


@pytest.mark.parametrize("cost", [0.0, 0.1, 0.49])
def test_optima_of_the_tiger_door(cost):
    returns = outcomes(door(cost), classes=3)
    assert len(returns) == 27
    learner = {policy: sum(values) / 2 for policy, values in returns.items()}
    best = max(learner, key=lambda policy: learner[policy])
    assert learner[best] == pytest.approx(1 - cost)
    assert best == (LISTEN, 1, 0)  # and the door without the tiger
    # The guider knows the hidden state: it chooses a policy for each.
    assert sum(map(max, zip(*returns.values(), strict=True))) / 2 == pytest.approx(1.0)
    # It never listens (for a positive cost), and what it does first is either door: so is its imitation.
    if cost:
        teachers = [{p[0] for p, values in returns.items() if values[s] == pytest.approx(1.0)} for s in (0, 1)]
        assert teachers == [{1}, {0}]
        assert (learner[0, 0, 0] + learner[1, 0, 0]) / 2 == pytest.approx(0.5)


def test_optima_of_the_alternative():
    returns = outcomes(alt(), classes=1)
    learner = {policy: sum(values) / 2 for policy, values in returns.items()}
    assert learner == {(0,): 1.0, (1,): 0.5}
    teacher = [max(returns, key=lambda policy, s=s: returns[policy][s]) for s in (0, 1)]
    assert sum(returns[policy][s] for s, policy in enumerate(teacher)) / 2 == 1.5
    assert sum(learner[policy] for policy in teacher) / 2 == 0.75  # each of its actions half of the time


@pytest.mark.parametrize("make", [door, alt])
def test_the_hidden_state_is_a_fair_coin(make):
    task = make()
    states = jax.vmap(task.reset)(jax.random.split(jax.random.key(1), 4000))
    shares = states.obs["privileged_state"].mean(0)
    assert shares.sum() == 1.0
    assert abs(shares[0] - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert (states.obs["state"] == states.obs["state"][0]).all()  # and the learner sees nothing of it


@pytest.mark.parametrize("make", [door, alt])
def test_many_episodes_in_one_scan(make):
    """Reset and step give the same tree, and a batch under `scan` does what single episodes do."""
    task = make()
    state = jax.vmap(task.reset)(jax.random.split(jax.random.key(2), 64))
    assert state.obs["state"].shape == (64, task.observation_size)
    assert state.obs["privileged_state"].shape == (64, task.privileged_size)
    actions = jax.random.randint(jax.random.key(3), (task.horizon, 64), 0, task.actions.size)

    def act(state, action):
        after = jax.vmap(task.step)(state, action)
        over = state.done > 0
        held = jax.tree.map(lambda a, b: jnp.where(over.reshape(-1, *[1] * (b.ndim - 1)), a, b), state, after)
        return held, jnp.where(over, 0.0, after.reward)

    last, rewards = jax.jit(lambda state: jax.lax.scan(act, state, actions))(state)
    assert last.done.all()
    assert not last.info["truncation"].any()
    for i in range(0, 64, 7):
        one, total = jax.tree.map(lambda leaf, i=i: leaf[i], state), 0.0
        for t in range(task.horizon):
            if not one.done:
                one = task.step(one, actions[t, i])
                total += float(one.reward)
        assert float(rewards[:, i].sum()) == pytest.approx(total)


@pytest.mark.parametrize("cost", [-0.01, 0.5, 2.0, float("nan")])
def test_impossible_costs_are_named(cost):
    with pytest.raises(SettingsError, match=r"task: listen_cost must be at least 0 and less than 0\.5"):
        from_dict(TigerDoorSettings, {"listen_cost": cost}, "task")


def test_names_and_settings():
    assert (door().name, alt().name) == ("tiger-door", "tiger-door-alt")
    assert from_dict(TigerDoorSettings, {}).listen_cost == 0.1
    assert from_dict(TigerDoorAltSettings, {}) == TigerDoorAltSettings()
    assert (door().calls_host, alt().calls_host) == (False, False)
