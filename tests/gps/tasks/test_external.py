"""Tasks of Brax and MuJoCo Playground against the packages themselves, and the adapter on an environment of its own.

The packages are optional: what needs one is skipped where it is not installed.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gps.experiments.lookup import TASKS, find
from gps.settings import SettingsError, from_dict
from gps.tasks.external.adapter import External
from gps.tasks.external.brax_envs import BraxSettings, brax_task
from gps.tasks.external.layouts import Layout
from gps.tasks.external.playground_envs import PlaygroundSettings

ALL = [name for name in TASKS if name.startswith(("brax-", "playground-"))]
# Guider's and learner's observation in the paper's table of tasks.
PAPER = {
    "brax-ant": (27, 13),
    "brax-half-cheetah": (17, 8),
    "brax-humanoid": (244, 155),
    "brax-humanoid-standup": (244, 155),
    "brax-inverted-double-pendulum": (8, 5),
    "brax-swimmer": (8, 3),
    "brax-walker2d": (17, 8),
}


@jax.tree_util.register_dataclass
@dataclass
class Foreign:
    """A state as these packages have it."""

    obs: Any
    reward: Any
    done: Any
    metrics: dict
    info: dict


class Counting:
    """Counts to `end` and terminates there; becomes NaN at `broken`. Has the packages' habits with types and dicts."""

    action_size = 1

    def __init__(self, end=99, broken=99):
        self.end, self.broken = end, broken

    def reset(self, key):
        return Foreign(jnp.zeros(2), jnp.zeros(()), jnp.zeros(()), {"action": jnp.zeros(())}, {"key": key})

    def step(self, state, action):
        state.metrics["action"] = action[0]  # into the dict that it was given, as Brax does
        count = state.obs[0] + 1
        obs = jnp.stack([jnp.where(count >= self.broken, jnp.nan, count), action[0]])
        return replace(state, obs=obs, reward=1.0, done=jnp.where(count >= self.end, 1, 0))


def play(foreign, horizon, steps, action=0.5):
    """The moments of an episode, each field (steps + 1, ...)."""
    task = External(foreign, "counting", horizon, Layout(2, ()))

    def advance(state, _):
        following = task.step(state, jnp.full(1, action))
        return following, following

    first = task.reset(jax.random.key(0))
    _, rest = jax.lax.scan(advance, first, length=steps)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


@pytest.mark.parametrize(
    ("end", "broken", "done", "truncation", "diverged"),
    [
        (99, 99, [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]),  # the time limit alone
        (2, 99, [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]),  # terminated before it
        (3, 99, [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]),  # terminated at it
        (99, 3, [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]),  # diverged at it
        (99, 2, [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]),
    ],
)
def test_how_episodes_end(end, broken, done, truncation, diverged):
    moments = play(Counting(end, broken), horizon=3, steps=3)
    np.testing.assert_array_equal(moments.done, done)
    np.testing.assert_array_equal(moments.info["truncation"], truncation)
    np.testing.assert_array_equal(moments.metrics["diverged"], diverged)
    sound = 1 - np.array(diverged)
    np.testing.assert_array_equal(moments.reward, [0, 1, 1, 1] * sound)
    np.testing.assert_array_equal(moments.obs["state"][:, 0], np.arange(4) * sound)


def test_actions_are_taken_at_their_limits():
    np.testing.assert_array_equal(play(Counting(), 9, 2, action=3.0).metrics["action"], [0, 1, 1])
    np.testing.assert_array_equal(play(Counting(), 9, 2, action=-0.25).metrics["action"], [0, -0.25, -0.25])


def test_a_state_is_not_written_into_and_keeps_its_types():
    task = External(Counting(), "counting", 9, Layout(2, ()))
    first = task.reset(jax.random.key(0))
    second = task.step(first, jnp.ones(1))
    assert float(first.data["foreign"].metrics["action"]) == 0
    assert float(second.metrics["action"]) == 1
    types = jax.eval_shape(task.reset, jax.random.key(0))
    assert jax.eval_shape(task.step, types, jnp.ones(1)) == types  # weak types among them


def test_observation_of_another_size_is_refused():
    with pytest.raises(SettingsError, match=r"task counting: .* observation of 2 numbers and not the 3"):
        External(Counting(), "counting", 9, Layout(3, ()))


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("brax-ant", "brax", "brax"), ("playground-cartpole-balance", "mujoco_playground", "playground")],
)
def test_message_without_the_package(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    entry = find("task", name)
    with pytest.raises(SettingsError, match=rf"task {name} needs .*: pip install 'guided-policy-search\[{extra}\]'"):
        entry.build(entry.settings, name)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (BraxSettings, {"env": "halfcheeta"}, "task: unknown env 'halfcheeta'; did you mean 'halfcheetah'"),
        (BraxSettings, {"backend": "springs"}, "task: unknown backend 'springs'; did you mean 'spring'"),
        (BraxSettings, {"env": "swimmer"}, "task: backend must be 'generalized' for swimmer, not 'spring'"),
        (BraxSettings, {"sigma": -1.0}, "task: sigma must be at least 0, not -1.0"),
        (BraxSettings, {"horizon": 0}, "task: horizon must be at least 1, not 0"),
        (PlaygroundSettings, {"env": "CartpoleBalanc"}, "did you mean 'CartpoleBalance'"),
        (PlaygroundSettings, {"sigma": float("nan")}, "task: sigma must be at least 0, not nan"),
        (PlaygroundSettings, {"horizon": 0}, "task: horizon must be at least 1, not 0"),
    ],
)
def test_settings_that_are_refused(cls, settings, message):
    with pytest.raises(SettingsError, match=message):
        from_dict(cls, settings, "task")


@pytest.mark.parametrize("name", ALL)
def test_registry_entries_are_their_environments(name):
    """The settings are the ones that a file without settings gives, and the name is the environment's."""
    entry = find("task", name)
    defaults, about = entry.settings, entry.about
    assert name.split("-", 1)[1].replace("-", "") == defaults.env.lower().replace("_", "")
    assert (defaults.horizon, defaults.sigma, defaults.hide_velocity) == (1000, 0.1, True)
    assert about.isascii()


@pytest.fixture
def brax():
    """Brax's environments."""
    pytest.importorskip("brax")
    from brax import envs

    return envs


def against(task, raw, steps, batch=16):
    """Moments of the task, and of the raw environment from the same start with the same actions, until its end.

    Returns:
        What the task went through, fields (steps, batch, ...), the raw environment's state at each step, and a mask
        (steps, batch) that is true up to and with the step at which the task says that an episode is done.
    """
    keys = jax.random.split(jax.random.key(7), batch)
    actions = jax.random.uniform(jax.random.key(8), (steps, batch, task.actions.size), minval=-1)

    @jax.jit
    def run(keys, actions):
        ours = jax.vmap(task.reset)(keys)
        theirs = jax.vmap(lambda key: raw.reset(jax.random.split(key, 3)[0]))(keys)

        def advance(carry, action):
            state = jax.vmap(task.step)(carry[0], action)
            data = jax.vmap(raw.step)(carry[1], action)
            data = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), carry[1], data)
            return (state, data), (state, (data.obs, data.reward, data.done))

        return jax.lax.scan(advance, (ours, theirs), actions)[1]

    ours, theirs = run(keys, actions)
    before = jnp.cumsum(ours.done, axis=0) - ours.done
    return ours, theirs, np.asarray(before == 0)


@pytest.mark.slow
def test_brax_is_stepped_as_it_is(brax):
    """Double pendulum: some episodes fall before the limit of 25 steps, the others are cut off there."""
    name = "brax-inverted-double-pendulum"
    settings = replace(find("task", name).settings, horizon=25)
    task = brax_task(settings, name)
    raw = brax.get_environment("inverted_double_pendulum", backend="spring")
    ours, (obs, reward, done), valid = against(task, raw, 25)
    np.testing.assert_allclose(ours.obs["privileged_state"][valid], obs[valid], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.reward[valid], reward[valid], rtol=1e-4, atol=1e-5)
    noise = (np.asarray(ours.obs["state"]) - obs[..., :5])[valid]  # position, sines and cosines
    assert abs(noise.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * noise.size)

    fell = np.asarray(done).any(0)
    assert 0 < fell.sum() < 16
    np.testing.assert_array_equal(ours.done[:-1][valid[:-1]], done[:-1][valid[:-1]])
    np.testing.assert_array_equal(ours.info["truncation"].sum(0), ~fell)
    assert (ours.info["truncation"][-1] == ~fell).all()


def test_brax_says_nothing_and_takes_the_noise_away(brax, capfd, recwarn):
    task = brax_task(BraxSettings("inverted_pendulum", sigma=0.0, hide_velocity=False))
    state = task.reset(jax.random.key(0))
    np.testing.assert_array_equal(state.obs["state"], state.obs["privileged_state"])
    assert (task.observation_size, task.privileged_size) == (4, 4)
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "Brax" in str(w.message)]


@pytest.mark.parametrize("name", PAPER)
def test_sizes_are_those_of_the_paper(brax, name):
    task = brax_task(find("task", name).settings, name)
    assert (task.privileged_size, task.observation_size) == PAPER[name]
    assert task.sigma == 0.1


@pytest.mark.parametrize("name", ["brax-inverted-double-pendulum", "brax-reacher", "brax-humanoid"])
def test_what_is_hidden_depends_on_velocities_and_nothing_else_does(brax, name):
    """At the same positions with two sets of velocities, in the raw environment, with no action."""
    defaults = find("task", name).settings
    task = brax_task(defaults, name)
    raw = brax.get_environment(defaults.env, backend=defaults.backend)
    action = (jnp.zeros(raw.action_size),) if "humanoid" in name else ()

    @jax.jit
    def observe(q, qd):
        return raw._get_obs(raw.pipeline_init(q, qd), *action)

    keys = jax.random.split(jax.random.key(4), 3)
    q = raw.sys.init_q + 0.1 * jax.random.normal(keys[0], (raw.sys.q_size(),))
    one, other = (np.asarray(observe(q, 0.3 * jax.random.normal(key, (raw.sys.qd_size(),)))) for key in keys[1:])
    np.testing.assert_array_equal(np.flatnonzero(np.abs(one - other) < 1e-4), task.visible)


@pytest.mark.slow
def test_playground_is_stepped_as_it_is():
    """The balancing cart-pole, with the engine and the length that the package says."""
    pytest.importorskip("mujoco_playground")
    from mujoco_playground import registry

    entry = find("task", "playground-cartpole-balance")
    task = entry.build(entry.settings, "playground-cartpole-balance")
    assert task.horizon == registry.get_default_config("CartpoleBalance").episode_length
    assert registry.get_default_config("CartpoleBalance").action_repeat == 1
    raw = registry.load("CartpoleBalance", config_overrides={"impl": "jax"})
    ours, (obs, reward, done), _ = against(task, raw, 12)
    np.testing.assert_allclose(ours.obs["privileged_state"], obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.reward, reward, rtol=1e-4, atol=1e-5)
    assert not np.asarray(ours.done).any()
    assert not np.asarray(done).any()
    noise = np.asarray(ours.obs["state"]) - obs[..., :3]  # cart, cosine and sine
    assert abs(noise.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * noise.size)
