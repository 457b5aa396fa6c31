"""The Gaussian mixture against dense numpy, and what it makes of regimes and of hard data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from support import oracles

from dynamics import mixture
from dynamics.mixture import Mixture
from dynamics.prior import conditioned

K = 4
fit = jax.jit(mixture.fit, static_argnames=("turns", "points_each", "tolerance"))


@pytest.fixture
def doubles():
    with jax.enable_x64(True):
        yield


def random_mixture(seed, size):
    """Of K clusters the last is not in use."""
    rng = np.random.default_rng(seed)
    weights = np.append(rng.dirichlet(np.ones(K - 1)), 0.0)
    covs = np.stack([oracles.random_covariance(rng, size) for _ in range(K)])
    return Mixture(*map(jnp.asarray, (weights, rng.normal(size=(K, size)), covs)))


def log_joint(clusters, points):
    return np.stack(
        [
            np.log(clusters.weights[k])
            + scipy.stats.multivariate_normal(clusters.means[k], clusters.covs[k]).logpdf(points)
            for k in range(K - 1)
        ],
        axis=1,
    )


def test_responsibilities_are_the_posterior_of_the_cluster(doubles):
    clusters, points = random_mixture(0, 3), np.random.default_rng(1).normal(size=(20, 3))
    shares, likelihood = mixture.responsibilities(clusters, jnp.asarray(points))
    joint = log_joint(clusters, points)
    np.testing.assert_allclose(likelihood, scipy.special.logsumexp(joint, axis=1), rtol=1e-10)
    np.testing.assert_allclose(shares[:, :-1], scipy.special.softmax(joint, axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(shares[:, -1], 0.0)


def test_points_far_from_all_clusters_still_belong_to_one():
    """In single precision each density would be zero there; logarithms are not."""
    far = jnp.full((1, 3), 1e4)
    shares, likelihood = mixture.responsibilities(jax.tree.map(jnp.float32, random_mixture(0, 3)), far)
    np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-6)
    assert np.isfinite(likelihood).all()


def test_a_turn_is_that_of_weighted_moments(doubles):
    rng = np.random.default_rng(2)
    points, shares = rng.normal(size=(30, 2)), rng.dirichlet(np.ones(K), 30)
    ours = mixture.maximise(jnp.asarray(points), jnp.asarray(shares), jnp.array([2.0, 3.0]), 0.1)
    for k in range(K):
        mean = np.average(points, axis=0, weights=shares[:, k])
        own = sum(share * np.outer(p - mean, p - mean) for share, p in zip(shares[:, k], points, strict=True))
        cov = (own + np.diag([2.0, 3.0])) / (shares[:, k].sum() + 1.0) + 0.1 * np.diag([2.0, 3.0])
        np.testing.assert_allclose(ours.weights[k], shares[:, k].mean(), rtol=1e-10)
        np.testing.assert_allclose(ours.means[k], mean, rtol=1e-10)
        np.testing.assert_allclose(ours.covs[k], cov, rtol=1e-10)


def test_moments_are_those_of_the_mixed_density(doubles):
    clusters, shares = random_mixture(3, 2), np.array([0.5, 0.2, 0.3, 0.0])
    mean, cov = mixture.moments(clusters, jnp.asarray(shares))
    draws = np.concatenate(
        [
            np.random.default_rng(k).multivariate_normal(clusters.means[k], clusters.covs[k], int(400_000 * shares[k]))
            for k in range(3)
        ]
    )
    np.testing.assert_allclose(mean, draws.mean(0), atol=0.01)
    np.testing.assert_allclose(cov, np.cov(draws.T), atol=0.02)


def regimes(count, seed=0):
    """w = (x, u, x' - x) of a mass that moves freely for x < 0 and is held by a spring of 5 where x > 0."""
    rng = np.random.default_rng(seed)
    x, u = rng.uniform(-1.0, 1.0, count), rng.normal(size=count)
    change = 0.1 * u - np.where(x > 0.0, 0.5 * x, 0.0) + 1e-3 * rng.normal(size=count)
    return np.stack([x, u, change], axis=1).astype(np.float32)


def test_regimes_are_told_apart():
    """A cluster on each side has the slope of that side; one Gaussian of all would have their mean, -0.25."""
    w = regimes(600)
    fitted = fit(w, jnp.ones(600), mixture.none_yet(6, 3), jax.random.key(0))
    for x, slope in ((-0.5, 0.0), (0.5, -0.5)):
        shares, _ = mixture.responsibilities(fitted, jnp.array([[x, 0.0, min(0.0, -0.5 * x)]]))
        prior = conditioned(mixture.moments(fitted, shares[0])[1], 1, 1e-5)
        np.testing.assert_allclose(prior.slope[0], [slope, 0.1], atol=0.06)


def test_turns_make_the_data_likelier():
    w, key = regimes(400), jax.random.key(1)
    scores = []
    for turns in (1, 3, 10, 30):
        fitted = fit(w, jnp.ones(400), mixture.none_yet(6, 3), key, turns=turns, tolerance=-1e9)
        scores.append(float(mixture.responsibilities(fitted, w)[1].mean()))
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 0.1


def test_clusters_are_by_the_data_and_a_fit_goes_on_from_the_last_one():
    none = mixture.none_yet(6, 3)
    few = fit(regimes(100), jnp.ones(100), none, jax.random.key(0))
    assert int((few.weights > 0).sum()) == 2
    many = fit(regimes(400), jnp.ones(400), few, jax.random.key(0))
    assert int((many.weights > 0).sum()) == 6
    w = regimes(400)
    again = fit(w, jnp.ones(400), many, jax.random.key(5), turns=1)
    one, afresh = (float(mixture.responsibilities(m, w)[1].mean()) for m in (again, many))
    assert one > afresh - 1e-3


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w[:1].repeat(80, 0),  # identical points
        lambda w: w[:3],  # fewer points than dimensions
        lambda w: w * np.array([1.0, 0.0, 1.0], np.float32),  # a dimension that is constant
        lambda w: w * np.array([1e6, 1.0, 1e-6], np.float32),  # units far apart
    ],
)
def test_hard_data_leave_a_usable_mixture(change):
    w = change(regimes(80))
    fitted = fit(w, jnp.ones(len(w)), mixture.none_yet(6, 3), jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    np.testing.assert_allclose(fitted.weights.sum(), 1.0, rtol=1e-5)
    for cov in fitted.covs[fitted.weights > 0]:
        std = np.sqrt(np.diag(cov) + 1e-30)
        assert np.linalg.eigvalsh(cov / np.outer(std, std) + 1e-6 * np.eye(3)).min() > 0.0


def test_without_data_the_mixture_stays_what_it_was():
    before = fit(regimes(200), jnp.ones(200), mixture.none_yet(6, 3), jax.random.key(0))
    after = fit(regimes(200), jnp.zeros(200), before, jax.random.key(0))
    np.testing.assert_array_equal(after.means, before.means)
