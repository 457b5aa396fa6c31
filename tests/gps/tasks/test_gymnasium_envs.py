"""Gymnasium's environments as tasks, against Gymnasium itself, which is stepped by hand with the same actions."""

from __future__ import annotations

import dataclasses
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from support.guided import rows_of, same, trained

from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.experiments.lookup import code
from gps.guiders.learner import NetworkSettings
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.networks import Networks
from gps.guiders.model_free.unroll import Running, collect
from gps.runs import train
from gps.runs.folder import EVERYTHING, RunFolder
from gps.runs.programs import Programs
from gps.runs.resume import load
from gps.settings import SettingsError, override, write_toml
from gps.tasks.check import check_task
from gps.tasks.external.gymnasium_envs import GymnasiumSettings, task_of
from gps.tasks.task import TaskError

BOX = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Wheel(gymnasium.Env):
    """Turned by its actions and by chance; an episode ends at 2 turns, or never. It counts what is asked of it."""

    made = resets = steps = 0

    def __init__(self, observed=None, acted=None, breaks=10**9, chance=None):
        self.observation_space = observed or spaces.Dict(
            {"way": spaces.Box(-np.inf, np.inf, (2,)), "side": spaces.Discrete(2)}
        )
        self.action_space = acted or spaces.Box(np.array([[-2.0, 0.0]]), np.array([[2.0, 10.0]]), dtype=np.float64)
        self.breaks, self.chance = breaks, chance
        Wheel.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Wheel.resets += 1
        self.way, self.t = self.np_random.normal(), 0
        return self.seen(), {}

    def step(self, action):
        Wheel.steps += 1
        self.t += 1
        if self.t >= self.breaks:
            raise ValueError("the axle\nbroke")
        chance = self.chance or self.np_random
        self.way += 0.1 * float(action[0, 0]) + 0.05 * float(action[0, 1]) + 0.1 * chance.normal()
        return self.seen(), -self.way, abs(self.way) > 2, False, {}

    def seen(self):
        return {"way": np.array([self.way, self.t]), "side": int(self.way > 0)}


def wheel(horizon=30, name="wheel", **changes):
    return task_of(lambda: Wheel(**changes), GymnasiumSettings(horizon), name)


def task_named(name: str, **settings):
    return Experiment.resolve({"run": {"task": name, "guider": "ppo"}, "task": settings}).build_task()


def played(task, actions, keys):
    """The states (steps + 1, batch) of a batch of episodes."""

    def step(state, action):
        after = jax.vmap(task.step)(state, action)
        return after, after

    @jax.jit
    def run(keys, actions):
        first = jax.vmap(task.reset)(keys)
        rest = jax.lax.scan(step, first, actions)[1]
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    return jax.device_get(run(keys, actions))


@pytest.mark.parametrize(("name", "horizon"), [("CartPole-v1", 18), ("Pendulum-v1", 7)])
def test_episodes_are_gymnasiums_own(name, horizon):
    """With discrete and with continuous actions; some poles fall before the limit, all else is cut off at it."""
    task, generator = task_named(f"gymnasium:{name}", horizon=horizon), np.random.default_rng(0)
    count = 6
    if task.actions.discrete:
        actions = generator.integers(2, size=(horizon, count)).astype(np.int32)
    else:
        actions = generator.uniform(-1.5, 1.5, (horizon, count, 1)).astype(np.float32)
    states = played(task, actions, jax.random.split(jax.random.key(3), count))
    ends = set()
    assert len(set(states.data["seed"][0])) == count
    for i in range(count):
        env = gymnasium.make(name, max_episode_steps=horizon)
        observation, _ = env.reset(seed=int(states.data["seed"][0, i]))
        np.testing.assert_array_equal(states.obs["state"][0, i], observation)
        for t in range(horizon):
            action = int(actions[t, i]) if task.actions.discrete else 2 * np.clip(actions[t, i], -1, 1)
            observation, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(states.obs["state"][t + 1, i], np.float32(observation))
            assert states.reward[t + 1, i] == pytest.approx(float(reward), rel=1e-6)
            assert states.done[t + 1, i] == (terminated or truncated)
            assert states.info["truncation"][t + 1, i] == (truncated and not terminated)
            if terminated or truncated:
                ends.add("terminated" if terminated else "truncated")
                break
    assert ends == ({"terminated", "truncated"} if name == "CartPole-v1" else {"truncated"})


def test_spaces_are_flattened_and_actions_scaled():
    task = wheel()
    assert (task.observation_size, task.actions.size, task.actions.discrete, task.privileged_size) == (4, 2, False, 0)
    actions = np.array([[[1.0, -1.0]], [[-3.0, 1.0]], [[0.5, 0.0]]], np.float32)  # (-2 to 2, 0 to 10)
    states = played(task, actions, jax.random.split(jax.random.key(0), 1))
    env = Wheel()
    seen = [env.reset(seed=int(states.data["seed"][0, 0]))[0]]
    seen += [env.step(np.array([action]))[0] for action in ([2.0, 0.0], [-2.0, 10.0], [1.0, 5.0])]
    wanted = [[side == 0, side == 1, *o["way"]] for o in seen for side in [o["side"]]]
    np.testing.assert_allclose(states.obs["state"][:, 0], wanted, rtol=1e-6)
    assert check_task(task) == []


def test_a_state_can_be_left_and_returned_to():
    """Steps are functions: of the same state any number of actions, in any order, by another process as well."""
    task, other = wheel(), wheel()
    step, far = jax.jit(task.step), jax.jit(other.step)
    state = task.reset(jax.random.key(1))
    for t in range(5):
        state = step(state, jnp.array([0.1 * t, -1.0]))
    here, there = step(state, jnp.array([0.5, -1.0])), step(state, jnp.array([-0.5, -1.0]))
    again = step(state, jnp.array([0.5, -1.0]))
    assert same(here, again)
    assert not same(here.obs, there.obs)
    saved = jax.tree.map(jnp.asarray, jax.device_get(state))
    assert same(far(saved, jnp.array([0.5, -1.0])), here)
    before = Wheel.steps
    far(far(saved, jnp.array([0.5, -1.0])), jnp.array([0.0, 0.0]))
    assert Wheel.steps - before == 5 + 1 + 1  # it was elsewhere, and went on from where it had come to
    task.require_working()
    other.require_working()


def test_an_environment_without_an_observation_is_left_alone():
    """Its next action would be NaN; nothing else than NaN is an error of its own."""
    task = wheel()
    state = task.step(task.reset(jax.random.key(1)), jnp.array([0.0, -1.0]))
    lost, steps = dataclasses.replace(state, obs={"state": state.obs["state"].at[2].set(jnp.nan)}), Wheel.steps
    after = task.step(lost, jnp.full(2, jnp.nan))
    assert (float(after.done), float(after.reward), float(after.info["truncation"])) == (1, 0, 0)
    assert Wheel.steps == steps
    task.require_working()


def test_equal_members_of_a_batch_do_not_disturb_each_other():
    keys = jnp.stack([jax.random.key(5)] * 3)
    actions = np.stack([[[0.3, -1.0]] * 3, [[0.3, -1.0], [0.3, -1.0], [-0.9, 1.0]], [[0.1, 0.0]] * 3]).astype(
        np.float32
    )
    states = played(wheel(), actions, keys)
    alone = [played(wheel(), actions[:, i : i + 1], keys[:1]) for i in range(3)]
    for i in range(3):
        np.testing.assert_array_equal(states.obs["state"][:, i], alone[i].obs["state"][:, 0])
    assert not np.array_equal(states.obs["state"][:, 0], states.obs["state"][:, 2])


def test_an_unroll_makes_no_more_resets_and_environments_than_it_needs():
    task = wheel(horizon=4)
    count, length = 6, 10
    networks = Networks.make(METHODS["ppo"], False, task, NetworkSettings(hidden=(4,)))
    policy = networks.start(*jax.random.split(jax.random.key(0))), networks.start_normalizers()
    begin = jax.jit(lambda key: jax.vmap(task.reset)(jax.random.split(key, count)))
    running = Running(begin(jax.random.key(1)), jnp.ones(count, bool), jnp.zeros(count), networks.start_memories(count))
    made, resets, steps = Wheel.made, Wheel.resets, Wheel.steps
    run = jax.jit(
        lambda running, key: collect(
            task, networks, (("learner",), jnp.zeros(count, int)), policy, running, key, length
        )
    )
    _, unroll = jax.block_until_ready(run(running, jax.random.key(2)))
    episodes = int(unroll.done.sum())
    assert episodes >= 2 * count
    assert Wheel.steps - steps == count * length
    assert Wheel.resets - resets == episodes
    assert Wheel.made - made <= count
    np.testing.assert_array_equal(unroll.truncated, unroll.done & (np.abs(unroll.final["state"][..., 2]) <= 2))


# Runs: all of one guider, whose learner does not see a cart-pole's velocities.

POLE = override(
    {"run": {"task": "gymnasium:CartPole-v1", "guider": "gpo-clip", "iterations": 4, "checkpoint_every": 2}},
    ["task.hidden=[1, 3]", "guider.learner.network.hidden=[16]", "guider.ppo.environments=8", "run.evaluate_every=4"],
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def whole(quick, place):
    """A run that nothing has interrupted; not to be written."""
    return RunFolder.open(place, EVERYTHING) if place.exists() else trained(place, POLE)


def test_a_pole_is_balanced_for_longer_than_by_chance(whole):
    returns = [row["train_return"] for row in rows_of(whole)]
    assert returns[0] < 40
    assert returns[-1] > 2 * returns[0]
    task = load(whole).guider.task
    assert (task.observation_size, task.privileged_size, task.visible) == (2, 4, (0, 2))


def test_a_resumed_run_ends_at_the_same_bits(whole, tmp_path):
    part = trained(tmp_path / "part", override(POLE, ["run.iterations=2"]))
    loaded = load(part)
    assert loaded.state.running.states.data["whole"].data["t"].max() > 0  # in the middle of episodes
    loaded.guider.task.environment._replays._kept.clear()  # as a new process, which knows of none of them
    write_toml(part.path / "config.toml", Experiment.resolve(POLE).to_dict())
    train.train(RunFolder.open(part.path, EVERYTHING), quiet=True)
    assert same(load(RunFolder.open(part.path, EVERYTHING)).state, load(whole).state)
    assert rows_of(part)[-1]["learner_return"] == rows_of(whole)[-1]["learner_return"]


def test_evaluations_do_not_disturb_training(whole, tmp_path):
    often = trained(tmp_path / "often", override(POLE, ["run.evaluate_every=2"]))
    assert same(load(often).state, load(whole).state)
    assert rows_of(often)[-1]["learner_return"] == rows_of(whole)[-1]["learner_return"]


def test_what_an_environment_raises_ends_the_run_in_one_line(whole, tmp_path, capfd):
    folder = RunFolder.create(tmp_path / "run", Experiment.resolve(POLE))
    step = CartPoleEnv.step

    def fragile(env, action):
        if abs(env.state[2]) > 0.2:
            raise ValueError("the pole\nbroke")
        return step(env, action)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CartPoleEnv, "step", fragile)
        for _ in range(2):  # and again, when it is resumed
            with pytest.raises(TaskError, match=r"^task gymnasium:CartPole-v1: step \d+ .*: ValueError: the pole$"):
                train.train(folder, quiet=True)
    assert issubclass(TaskError, UserError)
    assert capfd.readouterr().err == ""
    assert folder.checkpoints.steps() == [0]
    train.train(folder, quiet=True)  # the pole is mended
    assert same(load(folder).state, load(whole).state)


def test_a_run_is_saved_also_where_its_environment_fails_in_an_evaluation(whole, tmp_path):
    """With its iterations and rows so far, though a checkpoint was not due."""
    settings = override(POLE, ["run.evaluate_every=2", "run.checkpoint_every=2"])
    folder = RunFolder.create(tmp_path / "run", Experiment.resolve(settings))

    def fails(programs, policy, key):
        raise TaskError("the pole broke")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Programs, "evaluate", fails)
        with pytest.raises(TaskError, match="broke"):
            train.train(folder, quiet=True)
    assert (folder.checkpoints.steps(), len(folder.metrics.rows())) == ([1], 1)
    train.train(folder, quiet=True)
    assert same(load(folder).state, load(whole).state)


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"acted": spaces.MultiBinary(3)},
            r"action space must be Discrete, or a Box of floats .*, not MultiBinary\(3\)",
        ),
        ({"acted": spaces.Box(-np.inf, 1.0, (1,))}, "action space must be .* with finite limits, not Box"),
        ({"acted": spaces.Box(0, 9, (1,), np.int32)}, "action space must be .* a Box of floats"),
        ({"observed": spaces.Dict(a=BOX, b=spaces.Text(3))}, "observation space must be of Box.* and it has Text"),
        ({"observed": spaces.Tuple([BOX, spaces.Sequence(BOX)])}, "observation space must be of Box.* it has Sequence"),
        ({"observed": spaces.Box(0, 255, (4, 4, 3), np.uint8)}, "has images, Box.* are seen as numbers alone"),
        ({"chance": np.random.default_rng()}, "not deterministic: with the same seed and actions step 1 gave"),
        ({"breaks": 3}, "a first episode of it: ValueError: the axle$"),
        (
            {"observed": spaces.Dict(way=spaces.Box(-9, 9, (3,)), side=spaces.Discrete(2))},
            "4 numbers, and its observation space has 5",
        ),
    ],
)
def test_what_no_policy_can_act_in_is_refused(changes, message):
    with pytest.raises(SettingsError, match=f"^task wheel: .*{message}"):
        wheel(**changes)


def test_each_episode_has_an_environment_of_its_own():
    one = Wheel()
    with pytest.raises(SettingsError, match=r"wheel: .* the same environment was made twice"):
        task_of(lambda: one, GymnasiumSettings(9), "wheel")


def test_environments_that_can_not_be_made_are_named(monkeypatch):
    with pytest.raises(SettingsError, match=r"gymnasium:CartPol-v1: .* can not be made: NameNotFound: .*`CartPole`"):
        task_named("gymnasium:CartPol-v1")
    with pytest.raises(SettingsError, match=r"wheel: the environment has no time limit of its own: set task.horizon"):
        wheel(horizon=0)
    assert task_named("gymnasium:CartPole-v1").horizon == 500
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(SettingsError, match=r"gymnasium:X-v0 needs Gymnasium, .*: pip install '.*\[gymnasium\]'"):
        task_named("gymnasium:X-v0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": [1, 4]}, r"task.hidden must be entries from 0 to 3 of the observation, not \[4\]"),
        ({"hidden": [0, 1, 2, 3]}, "visible must name at least one of the 4 entries"),
        ({"horizon": 100_001}, "at most 100000 numbers, and 100001 actions are 100001: lower task.horizon"),
        ({"horizon": -1}, "task: horizon must be at least 0, not -1"),
        ({"env": "other:Env-v0"}, "unknown setting 'task.env'"),  # only the name of the task says what is imported
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        task_named("gymnasium:CartPole-v1", **settings)


def test_guiders_that_need_more_say_so():
    def build(guider):
        return Experiment.resolve({"run": {"task": "gymnasium:CartPole-v1", "guider": guider}}).build()

    with pytest.raises(
        SettingsError, match="'gpo-clip' needs a privileged observation, which gymnasium:CartPole-v1 has"
    ):
        build("gpo-clip")
    with pytest.raises(SettingsError, match=r"badmm.*gymnasium:CartPole-v1"):
        build("badmm")


def test_a_name_of_gymnasium_is_code_only_where_it_names_a_module():
    assert code({"run": {"task": "gymnasium:CartPole-v1"}}) == {}
    assert code({"run": {"guider": "gymnasium:CartPole-v1"}}) == {"run.guider": "gymnasium:CartPole-v1"}
    assert code({"run": {"task": "gymnasium:module:Env-v0"}}) == {"run.task": "gymnasium:module:Env-v0"}


def test_a_replay_that_comes_elsewhere_is_told():
    """As by another version of the environment than the run began with."""
    task = wheel()
    state = task.reset(jax.random.key(1))
    for _ in range(3):
        state = task.step(state, jnp.array([0.0, -1.0]))
    task._replays._make = lambda: Wheel(chance=np.random.default_rng(1))
    task._replays._kept.clear()
    task._replays._idle.clear()
    after = task.step(state, jnp.array([0.0, -1.0]))
    assert np.isnan(after.obs["state"]).all()
    with pytest.raises(TaskError, match=r"^task wheel: step 4 .*: 3 actions repeated .* came to another observation"):
        task.require_working()
    task.require_working()  # told once
