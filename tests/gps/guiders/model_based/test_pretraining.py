"""Eyes that were trained to find a place tell it, in images that they have not seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gps.experiments.experiment import Experiment
from gps.guiders.model_based.pretraining import pretrained


def guider(task: str = "reacher-vision", encoder: str = "points", **pretraining):
    network = {"hidden": [8], "vision": {"channels": [6, 6], "encoder": encoder}}
    settings = {"learner": {"network": network, "pretraining": pretraining}, "sampling": {"samples": 2}}
    seen = {"camera": {"height": 16, "width": 16}} if task == "reacher-vision" else {}
    return Experiment.resolve({"run": {"task": task, "engine": "mujoco"}, "task": seen, "guider": settings}).build()


def error(policy, images, places):
    """Share of the variance of new places that no linear function of the features tells, fitted to half of them."""
    network = policy.network
    features = network.eyes.apply({"params": policy.params["params"]["eyes"]}, policy.normalizer(images))
    features = np.column_stack([np.asarray(features), np.ones(len(features))])
    half = len(features) // 2
    weights = np.linalg.lstsq(features[:half], places[:half], rcond=1e-6)[0]
    missed = features[half:] @ weights - places[half:]
    return (missed**2).sum() / ((places[half:] - places[half:].mean(0)) ** 2).sum()


def test_eyes_learn_places_and_the_rest_of_the_learner_stays():
    trained = guider(updates=400, images=600)
    state = trained.init(jax.random.key(0))
    samples = jax.jit(trained.collect)(state, jax.random.key(1))
    before = trained.teaching.normalized(state.learner, samples).policy
    task, settings = trained.task, trained.settings.learner.pretraining
    after = jax.jit(lambda policy: pretrained(policy, task, samples, settings, jax.random.key(2)))(before)

    angles = np.random.default_rng(3).uniform(-2.0, 2.0, (400, 2))
    xs = jnp.asarray(np.column_stack([angles, np.zeros((400, 2))]), jnp.float32)
    contexts = task.test_contexts[np.arange(400) % len(task.test_contexts)]
    images = jax.jit(jax.vmap(lambda x, c: task.observe(x, c, jnp.zeros(0))))(xs, contexts)
    places = np.asarray(jax.vmap(task.sight)(xs, contexts))[:, :2]
    assert error(after, images, places) < 0.3 * error(before, images, places)
    for layer in ("input", "head", "free"):
        jax.tree.map(np.testing.assert_array_equal, after.params["params"][layer], before.params["params"][layer])

    introduce = jax.jit(lambda i: trained.teaching.introduced(state.learner, samples, i, jax.random.key(4))[0])
    first, later = introduce(0), introduce(1)
    jax.tree.map(np.testing.assert_array_equal, later.policy, state.learner.policy)
    eyes = [jax.tree.leaves(learner.policy.params["params"]["eyes"]) for learner in (first, later)]
    assert all((np.asarray(a) != np.asarray(b)).any() for a, b in zip(*eyes, strict=True))


def test_eyes_that_are_not_there_can_not_be_trained():
    with pytest.raises(ValueError, match=r"guider.learner.pretraining.updates = 5: reacher shows nothing that is"):
        guider("reacher", updates=5)
    with pytest.raises(ValueError, match=r"updates = 5: nothing trains the encoder 'some:function'; set it to 0"):
        guider(encoder="some:function", updates=5)
