"""Running input statistics against numpy's of everything at once, and a policy that keeps its function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.policies import gaussian_policy, means, stds, with_random_weights

from policies.normalize import Normalizer

NO = 4
update = jax.jit(Normalizer.update)


def batches(seed=0):
    """Four batches of different size, mean and spread, with their weights; some points do not count."""
    rng = np.random.default_rng(seed)
    made = []
    for count in (30, 1, 50, 20):
        o = rng.normal(size=NO) + rng.uniform(0.1, 3.0, NO) * rng.normal(size=(count, NO))
        made.append((o, rng.choice([0.0, 1.0, 1.0, 2.5], count) if count > 1 else np.ones(1)))
    return made


def updated(normalizer, made):
    for o, weights in made:
        normalizer = update(normalizer, jnp.asarray(o, jnp.float32), jnp.asarray(weights, jnp.float32))
    return normalizer


def test_before_anything_was_seen_inputs_stay_as_they_are():
    o = jnp.array([1.0, -2.0, 3.0, 1e4])
    np.testing.assert_array_equal(Normalizer.start(NO)(o), o)


def test_updates_one_after_another_are_the_weighted_statistics_of_all():
    made, normalizer = batches(), Normalizer.start(NO)
    for i in range(len(made)):
        normalizer = updated(normalizer, made[i : i + 1])
        o = np.concatenate([part for part, _ in made[: i + 1]])
        weights = np.concatenate([part for _, part in made[: i + 1]])
        mean = np.average(o, axis=0, weights=weights)
        deviation = np.sqrt(np.average((o - mean) ** 2, axis=0, weights=weights))
        np.testing.assert_allclose(normalizer.count, weights.sum(), rtol=1e-6)
        np.testing.assert_allclose(normalizer.mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(normalizer.scale, deviation, rtol=1e-5)
        np.testing.assert_allclose(normalizer(o.astype(np.float32)), (o - mean) / deviation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [0.1, 1.0, 30.0])
def test_any_weight_counts_in_proportion(weight):
    """Also where all weights of an update together are less than one observation."""
    o = jnp.array([[1.0, 0.0, -2.0, 5.0], [3.0, 1.0, -2.5, 4.0]])
    normalizer = Normalizer.start(NO).update(o, jnp.array([weight, weight]))
    np.testing.assert_allclose(normalizer.mean, [2.0, 0.5, -2.25, 4.5], rtol=1e-6)


def test_points_without_weight_change_nothing():
    normalizer = updated(Normalizer.start(NO), batches())
    again = normalizer.update(jnp.full((5, NO), 1e5), jnp.zeros(5))
    for before, after in zip(jax.tree.leaves(normalizer), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1234.5])
def test_an_input_that_never_changed_is_centred_and_not_scaled(constant):
    """0.1 has no exact value in binary, and its mean over many updates may be off by rounding."""
    made = batches()
    for o, _ in made:
        o[:, 1] = constant
    normalizer = updated(Normalizer.start(NO), made * 10)
    assert normalizer.scale[1] == 1.0
    o = jnp.array([0.0, constant, 0.0, 0.0])
    np.testing.assert_allclose(normalizer(o)[1], 0.0, atol=1e-6 * (1 + abs(constant)))
    np.testing.assert_allclose(normalizer(o.at[1].add(3.0))[1], 3.0, rtol=1e-3)


def test_a_large_mean_does_not_drown_a_small_deviation():
    """A position of 100 m that varies by 0.1 m, in single precision over 40 updates."""
    rng = np.random.default_rng(1)
    normalizer, seen = Normalizer.start(1), []
    for _ in range(40):
        o = (100.0 + 0.1 * rng.normal(size=(50, 1))).astype(np.float32)
        normalizer = update(normalizer, jnp.asarray(o), jnp.ones(50))
        seen.append(o)
    np.testing.assert_allclose(normalizer.scale, np.concatenate(seen).astype(float).std(0), rtol=1e-2)


def constant_at(index, made):
    for o, _ in made:
        o[:, index] = 0.7
    return made


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], batches(1)),
        (batches(1), batches(2)),
        (constant_at(2, batches(1)), batches(2)),
        (constant_at(2, batches(1)), constant_at(2, batches(2))),
    ],
    ids=["from nothing", "both varied", "constant, then varied", "always constant"],
)
def test_a_renormalized_policy_is_the_same_function(before, after):
    """What it did to observations, seen and unseen, stays to rounding; its normaliser is the new one."""
    policy = gaussian_policy(jax.random.key(0), NO, 2, (16, 8), 0.5)
    policy = with_random_weights(policy.renormalized(updated(policy.normalizer, before)))
    normalizer = updated(policy.normalizer, after)
    new = policy.renormalized(normalizer)
    o = jnp.asarray(3.0 * np.random.default_rng(3).normal(size=(200, NO)), jnp.float32)
    assert np.abs(means(policy, o)).max() > 0.3
    np.testing.assert_allclose(means(new, o), means(policy, o), atol=2e-5)
    for ours, theirs in zip(jax.tree.leaves(new.normalizer), jax.tree.leaves(normalizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(stds(new, o), stds(policy, o))
