"""Local dynamics by regression against the normal-inverse-Wishart posterior written out in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from dynamics.regression import NormalInverseWishart, fit_dynamics, moments, pooled_prior, transitions

T, NX, NU = 4, 3, 2
NW = 2 * NX + NU


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def system(seed=0):
    """A (T nx nx), B (T nx nu), c (T nx) and the noise's covariances, different at each step."""
    problem = oracles.random_problem(seed, T, NX, NU)
    return problem.dynamics


def simulate(samples, seed=1, noise=1.0, dynamics=None):
    """xs (N T+1 nx) and us (N T nu) from random starts and actions."""
    rng = np.random.default_rng(seed)
    A, B, c, cov = dynamics or system()
    xs, us = [rng.normal(size=(samples, NX))], rng.normal(size=(samples, T, NU))
    for t in range(T):
        disturbance = noise * rng.normal(size=(samples, NX)) @ np.linalg.cholesky(cov[t]).T
        xs.append(xs[-1] @ A[t].T + us[:, t] @ B[t].T + c[t] + disturbance)
    return np.stack(xs, axis=1), us


def random_prior(seed=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=NW), oracles.random_covariance(rng, NW), 0.7, 2.5  # mean, scatter, their strengths


def fit(xs, us, weights=None, prior=None, regularization=0.0):
    prior = NormalInverseWishart(*map(jnp.asarray, prior or random_prior()))
    weights = np.ones(len(xs)) if weights is None else weights
    arrays = (jnp.asarray(a) for a in (xs, us, weights))
    return jax.jit(fit_dynamics, static_argnums=4)(*arrays, prior, regularization)


def expected(xs, us, prior, regularization=0.0):
    """The oracle at each step, stacked."""
    steps = [
        oracles.niw_dynamics(np.concatenate([xs[:, t], us[:, t], xs[:, t + 1]], 1), NX, prior, regularization)
        for t in range(T)
    ]
    return [np.stack(parts) for parts in zip(*steps, strict=True)]


def assert_dynamics(ours, theirs, **tolerance):
    for name, right in zip(("A", "B", "c", "cov"), theirs, strict=True):
        np.testing.assert_allclose(getattr(ours, name), right, err_msg=name, **tolerance)


@pytest.mark.parametrize("samples", [2, 5, 40])
@pytest.mark.parametrize("regularization", [0.0, 1e-3])
def test_the_fit_is_the_posterior_written_out(samples, regularization):
    """Two samples are fewer than the five inputs: there the prior must carry the rest."""
    xs, us = simulate(samples)
    ours = fit(xs, us, regularization=regularization)
    assert_dynamics(ours, expected(xs, us, random_prior(), regularization), rtol=1e-7, atol=1e-9)
    assert np.linalg.eigvalsh(ours.cov).min() > 0.0


def test_without_samples_the_prior_is_conditioned():
    xs, us = simulate(3)
    ours = fit(xs, us, weights=np.zeros(3))
    assert_dynamics(ours, expected(xs[:0], us[:0], random_prior()), rtol=1e-7, atol=1e-9)


def test_weights_drop_and_repeat_samples():
    """A sample of weight 0 does not count at all, and one of weight 2 counts as two."""
    xs, us = simulate(6)
    weights = np.array([1.0, 0.0, 2.0, 1.0, 0.0, 1.0])
    absurd = xs.copy(), us.copy()
    for values in absurd:
        values[weights == 0] = 1e4
    ours, repeated = fit(*absurd, weights=weights), [0, 2, 2, 3, 5]
    assert_dynamics(ours, expected(xs[repeated], us[repeated], random_prior()), rtol=1e-7, atol=1e-9)


def test_a_prior_for_each_step():
    xs, us = simulate(5)
    priors = [random_prior(seed) for seed in range(T)]
    ours = fit(xs, us, prior=[np.stack(parts) for parts in zip(*priors, strict=True)])
    for t, prior in enumerate(priors):
        w = np.concatenate([xs[:, t], us[:, t], xs[:, t + 1]], axis=1)
        at = jax.tree.map(lambda a, t=t: a[t], ours)
        assert_dynamics(at, oracles.niw_dynamics(w, NX, prior), rtol=1e-7, atol=1e-9)


def test_a_time_varying_system_is_recovered_from_many_samples():
    xs, us = simulate(20_000)
    ours = fit(xs, us, regularization=1e-6)
    assert_dynamics(ours, system(), atol=0.02)


def test_a_noiseless_system_is_recovered_from_a_few_samples():
    """Thirty samples of noiseless linear dynamics leave the prior next to nothing to say."""
    xs, us = simulate(30, noise=0.0)
    w = np.asarray(transitions(xs, us)).reshape(-1, NW)
    prior = jax.tree.map(np.asarray, pooled_prior(w, np.ones(len(w)), 1e-6))
    ours = fit(xs, us, prior=(prior.mean, prior.scatter, prior.mean_strength, prior.scatter_strength))
    assert_dynamics(ours, (*system()[:3], 0.0), atol=1e-5)


def test_the_pooled_prior_is_the_mean_and_covariance_of_what_counts():
    rng = np.random.default_rng(5)
    w, weights = rng.normal(size=(50, NW)), rng.integers(0, 3, 50)
    prior = pooled_prior(w, weights.astype(float), 4.0)
    np.testing.assert_allclose(prior.mean, np.repeat(w, weights, axis=0).mean(0), rtol=1e-9)
    np.testing.assert_allclose(prior.scatter, np.cov(w.T, fweights=weights, bias=True), rtol=1e-9)
    assert (prior.mean_strength, prior.scatter_strength) == (4.0, 4.0)


def test_the_moments_of_nothing_are_zero():
    mean, cov = moments(jnp.ones((4, 2)), jnp.zeros(4))
    np.testing.assert_array_equal(mean, np.zeros(2))
    np.testing.assert_array_equal(cov, np.zeros((2, 2)))


def centred(samples, unit_x, unit_u, scale=1.0):
    """Deviations from the samples' mean in given units, and the prior that is pooled from them, in that order."""
    xs, us = simulate(samples, noise=0.3)
    xs, us = (scale * unit * (a - a.mean(0)) for a, unit in ((xs, unit_x), (us, unit_u)))
    return xs, us


@jax.jit
def pooled_fit(xs, us):
    w = transitions(xs, us)
    prior = pooled_prior(w.reshape(-1, w.shape[-1]), jnp.ones(w.shape[0] * T), 1.0)
    return fit_dynamics(xs, us, jnp.ones(len(xs)), prior)


def test_units_do_not_matter():
    """Metres in millimetres and torques in kilonewton metres: A and B change their units and nothing else.

    What is left is the part of the regularisation that belongs to the largest variance, a billionth of it: these
    units, 30 times apart, move slopes of up to 1.7 by 6e-5.
    """
    unit_x, unit_u = np.array([10.0, 1.0, 0.3]), np.array([0.1, 3.0])
    ours, scaled = pooled_fit(*centred(4, 1.0, 1.0)), pooled_fit(*centred(4, unit_x, unit_u))
    np.testing.assert_allclose(scaled.A * unit_x / unit_x[:, None], ours.A, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled.B * unit_u / unit_x[:, None], ours.B, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled.c / unit_x, ours.c, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled.cov / np.outer(unit_x, unit_x), ours.cov, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_single_precision_is_close_to_double(scale):
    """Deviations of 1e-4 have variances of 1e-8: far below where single precision would lose them to a constant."""
    xs, us = centred(5, 1.0, 1.0, scale)
    double = pooled_fit(xs, us)
    with jax.enable_x64(False):
        single = pooled_fit(xs.astype(np.float32), us.astype(np.float32))
        assert single.A.dtype == jnp.float32
    unscaled = pooled_fit(*centred(5, 1.0, 1.0))
    np.testing.assert_allclose(double.A, unscaled.A, atol=1e-5)
    np.testing.assert_allclose(double.B, unscaled.B, atol=1e-5)
    np.testing.assert_allclose(single.A, double.A, atol=5e-5)
    np.testing.assert_allclose(single.B, double.B, atol=5e-5)
    np.testing.assert_allclose(single.c / scale, double.c / scale, atol=1e-6)
    np.testing.assert_allclose(single.cov / scale**2, double.cov / scale**2, atol=1e-5)


def test_a_variable_that_never_changes_is_harmless():
    """No input can be told from it, and nothing becomes infinite: the rest is fitted as if it were not there."""
    A, B, c, cov = (np.array(a) for a in system())
    A[:, 2], B[:, 2], c[:, 2], cov[:, 2], cov[:, :, 2] = 0.0, 0.0, 0.0, 0.0, 0.0
    cov[:, 2, 2] = 1e-30
    xs, us = simulate(8, dynamics=(A, B, c, cov))
    xs[:, 0, 2] = 0.0
    full = pooled_fit(xs - xs.mean(0), us - us.mean(0))
    np.testing.assert_allclose(full.A[:, :, 2], 0.0, atol=1e-6)
    np.testing.assert_allclose(full.A[:, 2], 0.0, atol=1e-6)
    rest = pooled_fit(xs[..., :2] - xs[..., :2].mean(0), us - us.mean(0))
    np.testing.assert_allclose(full.A[:, :2, :2], rest.A, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(full.B[:, :2], rest.B, rtol=1e-4, atol=1e-5)
