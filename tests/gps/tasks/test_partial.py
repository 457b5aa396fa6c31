"""The partially observed view of an environment: which entries, which noise, and nothing else changed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toys import Watched

from gps.tasks.external.layouts import Layout
from gps.tasks.mujoco.reacher import Reacher, ReacherSettings
from gps.tasks.partial import Partial
from gps.tasks.task import ActionSpace, State

SIGMA = 0.3
VISIBLE = (3, 0)


class Clock:
    """Sees 10 i + t at entry i after t steps, keeps the key that it was given, and knows nothing privileged."""

    name, horizon, calls_host = "clock", 4, False
    actions = ActionSpace(2)
    observation_size, privileged_size = 5, 0

    def reset(self, key):
        return self._state(jnp.int32(0), key, jnp.zeros(()))

    def step(self, state, action):
        return self._state(state.data["t"] + 1, state.data["key"], action.sum())

    def _state(self, t, key, reward):
        done = (t >= self.horizon).astype(jnp.float32)
        obs = {"state": 10.0 * jnp.arange(5) + t}
        return State({"t": t, "key": key}, obs, reward, done, {"t": t}, {"truncation": done})


def episodes(task, key, count, length, actions=None):
    """The moments of `count` episodes, fields (count, length + 1, ...); the actions are ones unless given."""
    actions = jnp.ones((count, length, task.actions.size)) if actions is None else actions

    def one(key, actions):
        def advance(state, action):
            following = task.step(state, action)
            return following, following

        first = task.reset(key)
        _, rest = jax.lax.scan(advance, first, actions)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    return jax.jit(jax.vmap(one))(jax.random.split(key, count), actions)


@pytest.fixture(scope="module")
def clocks():
    """Many episodes of the partially observed clock."""
    return episodes(Partial(Clock(), VISIBLE, SIGMA), jax.random.key(1), 5000, 3)


def test_learner_sees_the_visible_entries_and_fresh_noise(clocks):
    """In the order asked for; noise with the right mean and variance, independent over entries, steps and episodes."""
    clean = np.array([[30, 0]]) + np.arange(4)[:, None]
    noise = (np.asarray(clocks.obs["state"]) - clean).reshape(5000, 8) / SIGMA  # 4 steps x 2 entries
    assert np.abs(noise.mean(0)).max() < 4 / np.sqrt(5000)
    covariance = noise.T @ noise / 5000
    assert np.abs(covariance - np.eye(8)).max() < 4 * np.sqrt(2 / 5000)
    assert abs((noise**4).mean() - 3) < 0.2  # a normal distribution's
    assert abs((noise[1:] * noise[:-1]).mean()) < 4 / np.sqrt(8 * 4999)  # one episode and the next


def test_guider_sees_everything_clean(clocks):
    expected = 10 * np.arange(5) + np.arange(4)[:, None]
    np.testing.assert_array_equal(clocks.obs["privileged_state"], np.broadcast_to(expected, (5000, 4, 5)))


def test_the_rest_is_passed_through(clocks):
    task = Partial(Clock(), VISIBLE, SIGMA)
    assert (task.name, task.horizon, task.calls_host, task.actions) == ("clock", 4, False, ActionSpace(2))
    assert (task.observation_size, task.privileged_size) == (2, 5)
    np.testing.assert_array_equal(clocks.metrics["t"][0], np.arange(4))
    np.testing.assert_array_equal(clocks.reward[0], [0, 2, 2, 2])
    last = episodes(task, jax.random.key(0), 1, 4)
    np.testing.assert_array_equal(last.done[0], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(last.info["truncation"], last.done)


def test_without_noise_the_entries_are_exact():
    seen = episodes(Partial(Clock(), (4, 1), 0.0), jax.random.key(0), 2, 2).obs["state"]
    np.testing.assert_array_equal(seen, np.broadcast_to([[40, 10], [41, 11], [42, 12]], (2, 3, 2)))


def test_an_image_can_not_be_seen_in_part():
    with pytest.raises(ValueError, match="the learner of 'watched' sees images"):
        Partial(Watched(), (0,), 0.0)


def test_no_key_is_used_twice():
    """The environment's key, each moment's noise and what is kept all differ; the same key gives the same episode."""
    task, key = Partial(Clock(), VISIBLE, SIGMA), jax.random.key(5)
    with jax.debug_key_reuse(True):
        first = jax.jit(task.reset)(key)
        second = jax.jit(task.step)(first, jnp.ones(2))
    keys = [key, first.data["whole"].data["key"], first.data["key"], second.data["key"]]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 4
    again = task.step(task.reset(jax.random.key(5)), jnp.ones(2))
    np.testing.assert_array_equal(again.obs["state"], second.obs["state"])
    other = task.reset(jax.random.key(6))
    assert not np.isclose(other.obs["state"], first.obs["state"]).any()


def test_same_tree_from_reset_and_step():
    """A roll-out chooses between the two with `where`."""
    task = Partial(Clock(), VISIBLE, SIGMA)
    first = jax.eval_shape(task.reset, jax.random.key(0))
    assert jax.eval_shape(task.step, first, jnp.ones(2)) == first


def test_control_task_with_hidden_velocities():
    """The reaching arm goes through the same motion, and its own privileged observation stays the guider's."""
    whole = Reacher(ReacherSettings(horizon=6, test_targets=1), "mujoco")
    positions = tuple(range(6))  # the joint velocities are the last two
    task = Partial(whole, positions, 0.1)
    assert (task.observation_size, task.privileged_size, task.calls_host) == (6, 10, True)
    actions = jax.random.uniform(jax.random.key(3), (8, 6, 2), minval=-1)
    key = jax.random.key(2)
    seen = episodes(task, key, 8, 6, actions)

    class SameStart(Reacher):
        """Starts from the key that `Partial` hands on."""

        def reset(self, key):
            return super().reset(jax.random.split(key, 3)[0])

    clean = episodes(SameStart(whole.settings, "mujoco"), key, 8, 6, actions)
    # two programs, each of which may round in its own order
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for name in ("reward", "done", "metrics", "info"):
        jax.tree.map(same, getattr(seen, name), getattr(clean, name))
    same(seen.obs["privileged_state"], clean.obs["privileged_state"])
    noise = np.asarray(seen.obs["state"] - clean.obs["state"][..., :6])
    assert abs(noise.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * noise.size)
    assert seen.done[:, -1].all()
    assert seen.info["truncation"][:, -1].all()


@pytest.mark.parametrize(
    ("visible", "sigma", "message"),
    [
        ((), 0.1, "visible must name at least one of the 5 entries of the observation of 'clock'"),
        ((0, 5, -1), 0.1, r"must be from 0 to 4, not \[5, -1\]"),
        ((2, 0, 2), 0.1, r"once; more than once: \[2\]"),
        ((0,), -0.1, "sigma must be finite and at least 0, not -0.1"),
        ((0,), float("nan"), "sigma must be finite and at least 0, not nan"),
        ((0,), float("inf"), "sigma must be finite and at least 0, not inf"),
    ],
)
def test_refuses_what_cannot_be(visible, sigma, message):
    with pytest.raises(ValueError, match=message):
        Partial(Clock(), visible, sigma)


def test_layout_hides_each_run_of_velocities():
    layout = Layout(7, ((1, 3), (5, 6)))
    assert layout.visible(True) == (0, 3, 4, 6)
    assert layout.visible(False) == tuple(range(7))
