"""Images where somebody sees them, and guiders that see none, on a clock that is read from an image."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_free import L, N, guider_of, thrown, updated, viewing
from support.toys import Clock

from gps.guiders.model_free.settings import SittSettings
from gps.guiders.model_free.sight import Sight

SHAPE = (8, 8, 1)
PIXELS = 64


class Pictured:
    """A clock and an image, all of whose pixels are t / 10 and more by the length of its episode."""

    def __init__(self):
        self.name, self.blind = "pictured", Clock(horizon=5, name="pictured")
        self.actions, self.horizon, self.calls_host = self.blind.actions, self.blind.horizon, False
        self.image_shape, self.privileged_size = SHAPE, self.blind.privileged_size
        self.observation_size = self.blind.observation_size + PIXELS

    def look(self, state):
        return jnp.full(SHAPE, state.data["t"] / 10 + state.data["length"] / 100)

    def reset(self, key):
        return self._looking(self.blind.reset(key))

    def step(self, state, action):
        return self._looking(self.blind.step(state, action))

    def _looking(self, state):
        seen = jnp.concatenate([state.obs["state"], self.look(state).reshape(-1)])
        return dataclasses.replace(state, obs={**state.obs, "state": seen})


TASK = Pictured()


def drawn(obs):
    """The image that belongs to what is seen beside it."""
    t, length = np.asarray(obs["state"][..., 0]), np.asarray(obs["privileged_state"][..., 0])
    return np.broadcast_to((t / 10 + length / 100)[..., None], (*t.shape, PIXELS))


@pytest.mark.parametrize(
    ("name", "sitt", "shown", "after"),
    [
        ("sitt", None, N // 2, 0),
        ("sitt", SittSettings(against="learner", paired=0.5, epochs=2, minibatches=1), N, 0),
        ("dagger", None, N, 0),  # its critic is the teacher's
        ("ppo", None, N, N),
    ],
    ids=["sitt", "against the learner", "dagger", "ppo"],
)
def test_images_are_made_of_the_environments_where_they_are_seen(name, sitt, shown, after):
    _, samples, _ = updated(guider_of(name, task=TASK, sitt=sitt), 1)
    for obs, count in ((samples[0][1].obs, shown), (samples[0][1].final, after)):
        images, right = np.asarray(obs["state"][..., 2:]), drawn(obs)
        assert images.shape == (L, N, PIXELS)
        np.testing.assert_allclose(images[:, :count], right[:, :count], atol=1e-6)
        np.testing.assert_array_equal(images[:, count:], 0.0)


def test_environments_that_nobody_looks_at_are_not_cast():
    """By the program: `look` is called for two environments and not for four."""
    asked = []

    class Counting(Pictured):
        def look(self, state):
            asked.append(state.data["t"])
            return super().look(state)

    states = jax.vmap(TASK.blind.reset)(jax.random.split(jax.random.key(0), N))
    jaxpr = jax.make_jaxpr(Sight(Counting(), 2).before_steps)(states)
    assert len(asked) == 1
    shapes = {v.aval.shape for eqn in jaxpr.eqns for v in eqn.outvars}
    assert (2, *SHAPE) in shapes
    assert (N, *SHAPE) not in shapes
    Sight(Counting(), 2, after=False).after_steps(states)
    assert len(asked) == 1


def test_a_task_without_a_blind_twin_is_stepped_as_it_is():
    clock = Clock()
    states = jax.vmap(clock.reset)(jax.random.split(jax.random.key(0), N))
    sight = Sight(clock, 1, after=False)
    assert sight.stepped is clock
    assert sight.before_steps(states) is sight.after_steps(states) is states.obs


@pytest.mark.parametrize(("name", "unseen"), [("sitt", PIXELS), ("bc", PIXELS), ("gpo-clip", 0), ("gpo-naive", 0)])
def test_a_guider_with_a_network_of_its_own_has_no_eyes(name, unseen):
    networks = guider_of(name, task=TASK).networks
    params = networks.start(*jax.random.split(jax.random.key(0)))
    assert networks.unseen == unseen
    assert any("eyes" in layer for layer in params[networks.owner("learner")]["params"])
    assert any("eyes" in layer for layer in params[networks.owner("guider")]["params"]) == (unseen == 0)
    assert networks.start_normalizers()["guider"].mean.size == 4  # privileged, t and a number


def test_what_a_guider_does_and_is_worth_depends_on_no_pixel_and_what_a_learner_does_on_each():
    guider = guider_of("sitt", task=TASK)
    states, samples, _ = updated(guider, 1)
    state, networks = thrown(states[1]), guider.networks
    obs = samples[0][1].obs
    pattern = jnp.asarray(np.random.default_rng(0).uniform(size=PIXELS), jnp.float32)
    changed = {**obs, "state": obs["state"].at[..., 2:].set(pattern)}
    memories, first = networks.start_memories(N), jnp.zeros((L, N), bool)

    @jax.jit
    def outputs(obs):
        seen = networks.normalized(state.normalizers, obs)
        ran = networks.run(state.params, networks.names, memories, seen, first)
        acts = guider.guiding(state).act(jnp.zeros(0), networks_input(obs), jnp.zeros(2))[1]
        return {name: z for name, (_, z) in ran.items()}, acts

    def networks_input(obs):
        return jnp.concatenate([obs["privileged_state"], obs["state"]], axis=-1)[0, 0]

    (one, act), (other, again) = outputs(obs), outputs(changed)
    for name in ("guider", "proxy", "critic"):
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(act, again)
    mean = np.asarray(one["guider"][0, 0, :2])
    np.testing.assert_allclose(act, np.tanh(mean), atol=1e-5)
    assert np.abs(np.asarray(one["learner"]) - np.asarray(other["learner"])).max() > 1e-6
    batch = viewing(guider)(state, samples[0][1])[1]
    assert batch.seen["guider"].shape[-1] == 4
