"""Linearised policies against finite differences and against least squares in numpy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles
from support.policies import gaussian_policy, with_random_weights

from policies.linearize import by_differentiation, by_regression

N, T, NX, NU = 6, 7, 4, 3
STD = np.array([0.3, 1.0, 0.05])


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def curved(x):
    """A policy that is not linear, of numpy and jax arrays alike."""
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=(5, NX)), rng.normal(size=(NU, 5))
    module = jnp if isinstance(x, jax.Array) else np
    return outer @ module.tanh(inner @ x) + 0.1 * x[:NU] ** 2


def states(samples=N, seed=1):
    return np.random.default_rng(seed).normal(size=(samples, T, NX))


def test_differentiation_is_the_mean_of_finite_differences():
    xs, h = states(), 1e-6
    ours = by_differentiation(curved, jnp.asarray(xs), jnp.ones(N), jnp.asarray(STD))
    for t in range(T):
        slopes = [
            np.stack([(curved(x + h * e) - curved(x - h * e)) / (2 * h) for e in np.eye(NX)], axis=1) for x in xs[:, t]
        ]
        K = np.mean(slopes, axis=0)
        np.testing.assert_allclose(ours.K[t], K, atol=1e-8)
        centre = np.mean([curved(x) for x in xs[:, t]], axis=0)
        np.testing.assert_allclose(ours.K[t] @ xs[:, t].mean(0) + ours.k[t], centre, atol=1e-8)
        np.testing.assert_allclose(ours.chol[t], np.diag(STD))


def test_differentiation_of_a_network():
    """Through a normaliser and layers, in single precision as it is trained."""
    with jax.enable_x64(False):
        policy = with_random_weights(gaussian_policy(jax.random.key(0), NX, NU, (16,)), 1.0)
        seen = policy.normalizer.update(jnp.asarray(5.0 + 3.0 * states()[0], jnp.float32), jnp.ones(T))
        policy = dataclasses.replace(policy, normalizer=seen)
        x = jnp.array([4.0, 6.0, 5.0, 3.0])
        ours = by_differentiation(policy.mean, x[None, None], jnp.ones(1), jnp.asarray(STD))
        h = 1e-2
        slopes = [(policy.mean(x + h * e) - policy.mean(x - h * e)) / (2 * h) for e in jnp.eye(NX)]
    np.testing.assert_allclose(ours.K[0], np.stack(slopes, axis=1), atol=2e-3)
    np.testing.assert_allclose(ours.K[0] @ x + ours.k[0], policy.mean(x), atol=1e-5)


def test_samples_without_weight_do_not_count_in_differentiation():
    xs = states()
    weights = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    absurd = np.where(weights[:, None, None] == 0, 1e3, xs)
    ours = by_differentiation(curved, jnp.asarray(absurd), jnp.asarray(weights), jnp.asarray(STD))
    kept = xs[weights > 0]
    alone = by_differentiation(curved, jnp.asarray(kept), jnp.ones(len(kept)), jnp.asarray(STD))
    np.testing.assert_allclose(ours.K, alone.K, rtol=1e-10)
    np.testing.assert_allclose(ours.k, alone.k, rtol=1e-10, atol=1e-12)


def regress(xs, us, weights=None, **settings):
    weights = np.ones(len(xs)) if weights is None else weights
    return by_regression(*(jnp.asarray(a) for a in (xs, us, weights, STD)), **settings)


def assert_regression(ours, theirs):
    K, k, cov = theirs
    np.testing.assert_allclose(ours.K, K, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.k, k, rtol=1e-7, atol=1e-9)
    # the code keeps the factor of a covariance with a millionth more on its diagonal
    np.testing.assert_allclose(ours.chol @ ours.chol.mT, cov, rtol=1e-5, atol=1e-5 * np.abs(cov).max())


@pytest.mark.parametrize(("window", "strength"), [(0, 1.0), (2, 1.0), (2, 1e-3), (10, 5.0)])
@pytest.mark.parametrize("samples", [2, N])
def test_regression_is_least_squares_with_made_up_data(window, strength, samples):
    """A window of 10 steps is longer than the horizon; two samples are fewer than the states."""
    xs, us = states(samples), np.random.default_rng(2).normal(size=(samples, T, NU))
    ours = regress(xs, us, window=window, strength=strength)
    assert_regression(ours, oracles.windowed_regression(xs, us, STD, window, strength))


def test_samples_without_weight_do_not_count_in_regression():
    xs, us = states(), np.random.default_rng(2).normal(size=(N, T, NU))
    weights = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    absurd = (np.where(weights[:, None, None] == 0, 1e3, a) for a in (xs, us))
    kept = weights > 0
    assert_regression(regress(*absurd, weights), oracles.windowed_regression(xs[kept], us[kept], STD, 2, 1.0))


def test_a_linear_policy_is_recovered():
    """Exactly but for the floor under the prior's variances, a ten-thousandth of them."""
    rng = np.random.default_rng(3)
    K, k, xs = rng.normal(size=(NU, NX)), rng.normal(size=NU), states(20)
    ours = regress(xs, xs @ K.T + k)
    np.testing.assert_allclose(ours.K, np.broadcast_to(K, ours.K.shape), atol=1e-4)
    np.testing.assert_allclose(ours.k, np.broadcast_to(k, ours.k.shape), atol=1e-4)
    np.testing.assert_allclose(ours.chol @ ours.chol.mT, np.broadcast_to(np.diag(STD**2), (T, NU, NU)), atol=1e-5)


def test_what_the_regression_does_not_explain_is_added_to_the_covariance():
    rng = np.random.default_rng(4)
    K, xs = rng.normal(size=(NU, NX)), states(4000)
    noise = oracles.random_covariance(rng, NU)
    us = xs @ K.T + rng.normal(size=(4000, T, NU)) @ np.linalg.cholesky(noise).T
    ours = regress(xs, us)
    np.testing.assert_allclose(ours.K, np.broadcast_to(K, ours.K.shape), atol=0.05)
    total = np.broadcast_to(noise + np.diag(STD**2), (T, NU, NU))
    np.testing.assert_allclose(ours.chol @ ours.chol.mT, total, rtol=0.05, atol=0.1)


def test_regression_in_single_precision_with_states_of_different_size():
    """Millimetres beside radians per second: deviations of 1e-3 and of 1e1."""
    units = np.array([1e-3, 1.0, 10.0, 0.1])
    xs = states(8)
    K = np.random.default_rng(5).normal(size=(NU, NX))
    us = np.sin(xs @ K.T)
    double = regress(xs * units, us)
    with jax.enable_x64(False):
        arrays = (jnp.asarray(a, jnp.float32) for a in (xs * units, us, np.ones(8), STD))
        single = by_regression(*arrays)
        assert single.K.dtype == jnp.float32
    np.testing.assert_allclose(single.K * units, double.K * units, atol=1e-3)
    np.testing.assert_allclose(single.chol, double.chol, atol=1e-3)
