"""How the learner is seen from the controllers, and what becomes of a lesson that fails."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_based import LEARNER, SMALL, all_finite, small_guider
from support.policies import means

from gps.guiders.learner import NetworkSettings
from gps.guiders.model_based.teaching import Teaching
from gps.tasks.mujoco.reacher import PARTIAL, Reacher
from policies import regression


@pytest.fixture(scope="module")
def samples(task, trained_methods):
    """Of controllers that differ from sample to sample; one sample does not count."""
    _, states, _, (collect, _) = trained_methods["badmm"]
    collected = collect(states[0], jax.random.key(11))
    return dataclasses.replace(collected, weights=collected.weights.at[0, 1].set(0.0))


@pytest.mark.parametrize("distribution", ["gaussian", "tanh-gaussian"])
@pytest.mark.parametrize("how", ["differentiation", "regression"])
def test_the_linearised_learner_passes_through_its_mean_action(how, distribution, task, samples):
    """By whichever way, and behind a tanh too: over the samples that count, at every time step."""
    network = NetworkSettings(hidden=(8,), distribution=distribution)
    teaching = Teaching(task, dataclasses.replace(LEARNER, linearization=how, network=network))
    learner = teaching.normalized(teaching.start(jax.random.key(0)), samples)
    controller = jax.jit(teaching.linearized)(learner.policy, samples)
    actions = means(learner.policy, samples.observations)
    counts = np.asarray(samples.weights)[:, :, None, None]
    x, u = (np.asarray(a * counts).sum(1) / counts.sum(1) for a in (samples.xs[:, :, :-1], actions))
    at_mean = np.einsum("mtux,mtx->mtu", controller.K, x) + controller.k
    np.testing.assert_allclose(at_mean, u, atol=2e-4)
    std = learner.policy.distribution.action_moments(learner.policy.along(samples.observations[:1, :1]))[1]
    spread = np.diagonal(controller.chol[0] @ controller.chol[0].mT, axis1=-2, axis2=-1)
    assert (spread >= 0.9 * np.asarray(std[0, 0]) ** 2).all()


def test_a_new_normaliser_leaves_what_the_learner_does(task, samples):
    teaching = Teaching(task, LEARNER)
    learner = teaching.start(jax.random.key(0))
    seen = teaching.normalized(learner, samples)
    assert np.abs(seen.policy.normalizer.mean).max() > 0
    before, after = (means(one.policy, samples.observations) for one in (learner, seen))
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_a_lesson_that_fails_leaves_the_learner_what_it_was(task, samples):
    teaching = Teaching(task, LEARNER)
    learner = teaching.start(jax.random.key(0))
    actions = samples.us
    precisions = jnp.broadcast_to(jnp.eye(2), (*actions.shape, 2))
    weights = jnp.broadcast_to(samples.weights[..., None], actions.shape[:-1])
    imitate = jax.jit(teaching.imitate)
    taught, metrics = imitate(learner, samples.observations, actions, precisions, weights, jax.random.key(1))
    assert int(metrics["failed_fits"]) == 0
    assert not np.array_equal(means(taught.policy, samples.observations), means(learner.policy, samples.observations))
    broken = actions.at[0, 0].set(jnp.nan)
    kept, metrics = imitate(learner, samples.observations, broken, precisions, weights, jax.random.key(1))
    assert int(metrics["failed_fits"]) == 1
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(learner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lessons_around_the_samples_differ_from_them_as_samples_do(task, samples):
    """At each time step as far as the samples of one condition lie apart; and they are seen as they are."""
    plain = Teaching(task, LEARNER).lessons(samples, jax.random.key(3))
    np.testing.assert_array_equal(plain.xs, samples.xs[:, :, :-1])
    settings = dataclasses.replace(LEARNER, sobolev=0.5, sobolev_spread=2.0)
    draw = jax.jit(Teaching(task, settings).lessons)
    many = [draw(samples, key) for key in jax.random.split(jax.random.key(4), 400)]
    N = samples.weights.shape[1]
    np.testing.assert_array_equal(many[0].weights, jnp.concatenate([samples.weights, 0.5 * samples.weights], 1))
    np.testing.assert_array_equal(many[0].xs[:, :N], samples.xs[:, :, :-1])
    np.testing.assert_array_equal(many[0].observations[:, :N], samples.observations)
    counts = np.asarray(samples.weights)[:, :, None, None]
    xs = np.asarray(samples.xs[:, :, :-1])
    apart = (xs - (counts * xs).sum(1, keepdims=True) / counts.sum(1, keepdims=True)) * counts
    std = np.sqrt((apart**2).sum((0, 1)) / (counts.sum() - len(xs)))
    drawn = np.std([lesson.xs[:, N:] - xs for lesson in many], axis=(0, 1, 2))
    np.testing.assert_allclose(drawn, 2.0 * std, rtol=0.1, atol=1e-6)
    seen = task.observe(many[0].xs[1, N, 2], task.train_contexts[1], jnp.zeros(0))
    np.testing.assert_allclose(many[0].observations[1, N, 2], seen, rtol=1e-6)


def test_lessons_around_the_samples_teach_gains(task, samples):
    """Samples of a tenth of their distance say what to do, and little of what to do beside them."""
    near = samples.xs.mean(1, keepdims=True)
    xs = near + 0.1 * (samples.xs - near)
    observations = jax.vmap(jax.vmap(jax.vmap(task.observe, (0, None, None)), (0, None, None)), (0, 0, None))(
        xs[:, :, :-1], task.train_contexts, jnp.zeros(0)
    )
    samples = dataclasses.replace(samples, xs=xs, observations=observations)
    gains = jnp.array([[0.0, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, -0.1]])
    training = regression.Settings(updates=1000, batch_size=64, learning_rate=1e-2)

    def error(sobolev):
        network = NetworkSettings(hidden=(16,))
        settings = dataclasses.replace(
            LEARNER, network=network, training=training, sobolev=sobolev, sobolev_spread=10.0
        )
        teaching = Teaching(task, settings)
        learner = teaching.normalized(teaching.start(jax.random.key(0)), samples)
        for key in jax.random.split(jax.random.key(1), 4):
            drawing, fitting = jax.random.split(key)
            lessons = teaching.lessons(samples, drawing)
            actions = lessons.xs @ gains.T
            weights = jnp.broadcast_to(lessons.weights[..., None], actions.shape[:-1])
            precisions = jnp.broadcast_to(jnp.eye(2), (*actions.shape, 2))
            learner, _ = jax.jit(teaching.imitate)(learner, lessons.observations, actions, precisions, weights, fitting)
        return float(jnp.abs(teaching.linearized(learner.policy, samples).K - gains).max())

    assert error(1.0) < 0.5 * error(0.0)


def test_lessons_around_the_samples_need_a_learner_that_sees_the_state():
    partial = Reacher(dataclasses.replace(PARTIAL, **SMALL), "mujoco")
    with pytest.raises(ValueError, match=r"guider\.learner\.sobolev = 1\.0 needs .* stacks 6 frames .* set it to 0"):
        Teaching(partial, dataclasses.replace(LEARNER, sobolev=1.0))


@pytest.mark.parametrize("distribution", ["gaussian", "tanh-gaussian"])
def test_a_learner_is_taught_and_seen_in_the_environments_actions(distribution):
    """Actions beyond the limits are taught as the limits, whether or not the learner could go beyond them."""
    partial = Reacher(dataclasses.replace(PARTIAL, **SMALL), "mujoco")
    updates = "learner.training.updates=400", "learner.training.learning_rate=0.03"
    guider = small_guider("badmm", partial, f"learner.network.distribution={distribution}", *updates)
    state = jax.jit(guider.init)(jax.random.key(0))
    samples = jax.jit(guider.collect)(state, jax.random.key(1))
    far = dataclasses.replace(state.controllers, k=state.controllers.k + 3.0)
    taught, metrics = jax.jit(guider.teach)(
        dataclasses.replace(state, controllers=far),
        jax.jit(guider.prepare)(state, samples)[1],
        jax.random.key(2),
    )
    assert all_finite(taught.learner)
    assert float(metrics["learner_error"]) < 0.1  # from the corner (1, 1), where (3, 3) was asked for
    actions = means(taught.learner.policy, samples.observations)
    np.testing.assert_allclose(actions, np.ones_like(actions), atol=0.2)
