"""Local dynamics by regression against the normal-inverse-Wishart posterior written out in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from dynamics.prior import Prior, moments, pooled, transitions, window_scatter
from dynamics.regression import fit_dynamics

T, NX, NU = 4, 3, 2
NZ, NW = NX + NU, 2 * NX + NU
STRENGTHS = (0.3, 2.5, 40.0)


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
    """slope, inputs, noise."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(size=(NX, NZ))
    return slope, oracles.random_covariance(rng, NZ), oracles.random_covariance(rng, NX)


def fit(xs, us, weights=None, prior=None, strengths=(2.5,), regularization=0.0, reach=2.0):
    prior = Prior(*map(jnp.asarray, prior or random_prior()))
    weights = np.ones(len(xs)) if weights is None else weights
    arrays = (jnp.asarray(a) for a in (xs, us, weights))
    return jax.jit(fit_dynamics, static_argnums=(4, 5, 6))(*arrays, prior, strengths, regularization, reach)


def rows(xs, us, t):
    return np.concatenate([xs[:, t], us[:, t], xs[:, t + 1] - xs[:, t]], axis=1)


def expected(xs, us, prior, strength=2.5):
    """The oracle at each step, stacked."""
    steps = [oracles.niw_dynamics(rows(xs, us, t), NX, prior, strength) for t in range(T)]
    return [np.stack(parts) for parts in zip(*steps, strict=True)]


def assert_dynamics(ours, theirs, **tolerance):
    for name, right in zip(("A", "B", "c", "cov"), theirs, strict=True):
        np.testing.assert_allclose(getattr(ours, name), right, err_msg=name, **tolerance)


@pytest.mark.parametrize("samples", [2, 5, 40])
@pytest.mark.parametrize("regularization", [0.0, 1e-3])
def test_the_fit_is_the_posterior_written_out(samples, regularization):
    """Two samples are fewer than the five inputs: there the prior must carry the rest."""
    xs, us = simulate(samples)
    ours = fit(xs, us, regularization=regularization).dynamics
    slope, inputs, noise = random_prior()
    regular = slope, inputs + regularization * np.diag(np.diag(inputs)), noise
    assert_dynamics(ours, expected(xs, us, regular), rtol=1e-7, atol=1e-9)
    assert np.linalg.eigvalsh(ours.cov).min() > 0.0


def test_without_samples_the_prior_is_left():
    xs, us = simulate(3)
    ours = fit(xs, us, weights=np.zeros(3))
    assert_dynamics(ours.dynamics, expected(xs[:0], us[:0], random_prior()), rtol=1e-7, atol=1e-9)


def test_samples_of_weight_zero_do_not_count():
    xs, us = simulate(6)
    weights = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    absurd = xs.copy(), us.copy()
    for values in absurd:
        values[weights == 0] = 1e4
    kept = weights > 0
    ours, alone = fit(*absurd, weights=weights, strengths=STRENGTHS), fit(xs[kept], us[kept], strengths=STRENGTHS)
    np.testing.assert_array_equal(ours.strength, alone.strength)
    np.testing.assert_allclose(ours.errors[kept], alone.errors, rtol=1e-7, atol=1e-9)
    assert_dynamics(ours.dynamics, jax.tree.leaves(alone.dynamics), rtol=1e-7, atol=1e-9)


def test_a_prior_for_each_step():
    xs, us = simulate(5)
    priors = [random_prior(seed) for seed in range(T)]
    ours = fit(xs, us, prior=[np.stack(parts) for parts in zip(*priors, strict=True)]).dynamics
    for t, prior in enumerate(priors):
        at = jax.tree.map(lambda a, t=t: a[t], ours)
        assert_dynamics(at, oracles.niw_dynamics(rows(xs, us, t), NX, prior, 2.5), rtol=1e-7, atol=1e-9)


def test_errors_are_those_of_refits_without_the_sample():
    xs, us = simulate(5)
    ours = fit(xs, us).errors
    for i in range(5):
        A, B, c, _ = expected(np.delete(xs, i, 0), np.delete(us, i, 0), random_prior())
        for t in range(T):
            predicted = A[t] @ xs[i, t] + B[t] @ us[i, t] + c[t]
            np.testing.assert_allclose(ours[i, t], xs[i, t + 1] - predicted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("samples", [2, 4, 30])
@pytest.mark.parametrize("narrow", [1.0, 0.01])
def test_the_strength_is_the_likeliest_by_leaving_out_and_refitting(samples, narrow):
    """`reach` near zero: each step chooses for itself. A prior that is too narrow is soon contradicted."""
    slope, inputs, noise = random_prior()
    prior = slope, inputs, narrow * noise
    xs, us = simulate(samples)
    ours = fit(xs, us, prior=prior, strengths=STRENGTHS, reach=1e-3)
    cov = oracles.niw_covariance(*prior)
    scores = np.array([[oracles.niw_left_out(rows(xs, us, t), NZ, cov, n) for n in STRENGTHS] for t in range(T)])
    np.testing.assert_allclose(ours.strength, np.array(STRENGTHS)[scores.argmax(1)])
    together = fit(xs, us, prior=prior, strengths=STRENGTHS, reach=1e3)
    np.testing.assert_allclose(together.strength, STRENGTHS[scores.sum(0).argmax()])


def test_a_good_prior_is_heard_and_a_wrong_one_is_not():
    """The true slope with the true noise, against one whose effects have the wrong sign and little noise."""
    dynamics = tuple(np.repeat(a[:1], T, axis=0) for a in system())
    A, B, _, cov = (a[0] for a in dynamics)
    xs, us = simulate(6, dynamics=dynamics)
    true = np.concatenate([A - np.eye(NX), B], axis=1)
    right = fit(xs, us, prior=(true, np.eye(NZ), cov), strengths=(0.3, 10.0, 300.0), reach=10.0)
    wrong = fit(xs, us, prior=(-true, np.eye(NZ), 0.1 * cov), strengths=(0.3, 10.0, 300.0), reach=10.0)
    assert (right.strength >= 10.0).all()
    assert (wrong.strength == 0.3).all()
    error = np.abs(wrong.dynamics.A - A).mean(), np.abs(right.dynamics.A - A).mean()
    assert error[1] < 0.3 * error[0]


def test_a_time_varying_system_is_recovered_from_many_samples():
    xs, us = simulate(20_000)
    assert_dynamics(fit(xs, us, regularization=1e-6).dynamics, system(), atol=0.02)


def pooled_prior(xs, us):
    w = transitions(xs, us).reshape(-1, 2 * xs.shape[-1] + us.shape[-1])
    return pooled(w, jnp.ones(len(w)), xs.shape[-1])


def test_a_noiseless_system_is_recovered_from_a_few_samples():
    """Thirty samples of noiseless linear dynamics leave the prior next to nothing to say."""
    xs, us = simulate(30, noise=0.0)
    ours = fit_dynamics(xs, us, jnp.ones(30), pooled_prior(xs, us), (1e-6,)).dynamics
    assert_dynamics(ours, (*system()[:3], 0.0), atol=1e-5)


def test_the_pooled_prior_is_the_regression_on_everything_that_counts():
    rng = np.random.default_rng(5)
    w, weights = rng.normal(size=(50, NW)), rng.integers(0, 3, 50)
    prior = pooled(w, weights.astype(float), NX, 0.0)
    repeated = np.repeat(w, weights, axis=0)
    centred = repeated - repeated.mean(0)
    slope, *_ = np.linalg.lstsq(centred[:, :NZ], centred[:, NZ:], rcond=None)
    left = centred[:, NZ:] - centred[:, :NZ] @ slope
    np.testing.assert_allclose(prior.slope, slope.T, rtol=1e-7)
    np.testing.assert_allclose(prior.inputs, np.cov(centred[:, :NZ].T, bias=True), rtol=1e-9)
    np.testing.assert_allclose(prior.noise, left.T @ left / len(left), rtol=1e-7, atol=1e-12)


def test_a_window_is_the_weighted_covariance_of_its_neighbours():
    rng = np.random.default_rng(6)
    w, weights, pool = rng.normal(size=(5, T, NW)), np.array([1.0, 1.0, 0.0, 1.0, 1.0]), np.eye(NW)
    ours = window_scatter(jnp.asarray(w), jnp.asarray(weights), jnp.asarray(pool), 1.5, 2.0)
    for t in range(T):
        near = np.exp(-0.5 * ((np.arange(T) - t) / 1.5) ** 2) * (np.arange(T) != t)
        scatter = sum(near[s] * sum(weights[n] * np.outer(w[n, s], w[n, s]) for n in range(5)) for s in range(T))
        np.testing.assert_allclose(ours[t], (scatter + 2.0 * pool) / (near.sum() * 3.0 + 2.0), rtol=1e-9)


def test_the_moments_of_nothing_are_zero():
    mean, cov = moments(jnp.ones((4, 2)), jnp.zeros(4))
    np.testing.assert_array_equal(mean, np.zeros(2))
    np.testing.assert_array_equal(cov, np.zeros((2, 2)))


def centred(samples, unit_x, unit_u, scale=1.0):
    """Deviations from the samples' mean in given units."""
    xs, us = simulate(samples, noise=0.3)
    return tuple(scale * unit * (a - a.mean(0)) for a, unit in ((xs, unit_x), (us, unit_u)))


@jax.jit
def pooled_fit(xs, us):
    return fit_dynamics(xs, us, jnp.ones(len(xs)), pooled_prior(xs, us), (0.3, 1.0, 10.0))


def test_units_do_not_matter():
    """Metres in megametres and torques in millinewton metres: A and B change their units and nothing else."""
    unit_x, unit_u = np.array([10.0, 1e6, 0.3]), np.array([1e-3, 3.0])
    ours, scaled = pooled_fit(*centred(4, 1.0, 1.0)), pooled_fit(*centred(4, unit_x, unit_u))
    np.testing.assert_array_equal(ours.strength, scaled.strength)
    ours, scaled = ours.dynamics, scaled.dynamics
    np.testing.assert_allclose(scaled.A * unit_x / unit_x[:, None], ours.A, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaled.B * unit_u / unit_x[:, None], ours.B, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaled.c / unit_x, ours.c, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaled.cov / np.outer(unit_x, unit_x), ours.cov, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_single_precision_is_close_to_double(scale):
    """Deviations of 1e-4 have variances of 1e-8: far below where single precision would lose them to a constant."""
    xs, us = centred(5, 1.0, 1.0, scale)
    double = pooled_fit(xs, us)
    with jax.enable_x64(False):
        single = pooled_fit(xs.astype(np.float32), us.astype(np.float32))
        assert single.dynamics.A.dtype == jnp.float32
    np.testing.assert_allclose(single.strength, double.strength, rtol=1e-6)
    single, double = single.dynamics, double.dynamics
    np.testing.assert_allclose(single.A, double.A, atol=2e-4)
    np.testing.assert_allclose(single.B, double.B, atol=2e-4)
    np.testing.assert_allclose(single.c / scale, double.c / scale, atol=1e-6)
    np.testing.assert_allclose(single.cov / scale**2, double.cov / scale**2, atol=1e-5)


def test_a_variable_that_never_changes_is_harmless():
    """No input can be told from it, and nothing becomes infinite: the rest is fitted as if it were not there."""
    A, B, c, cov = (np.array(a) for a in system())
    A[:, 2], B[:, 2], c[:, 2], cov[:, 2], cov[:, :, 2] = 0.0, 0.0, 0.0, 0.0, 0.0
    A[:, 2, 2] = 1.0
    cov[:, 2, 2] = 1e-30
    xs, us = simulate(8, dynamics=(A, B, c, cov))
    xs[:, :, 2] = 0.0
    full = pooled_fit(xs - xs.mean(0), us - us.mean(0)).dynamics
    np.testing.assert_allclose(full.A[:, :2, 2], 0.0, atol=1e-9)
    np.testing.assert_allclose(full.A[:, 2], np.broadcast_to([0.0, 0.0, 1.0], (T, 3)), atol=1e-9)
    np.testing.assert_allclose(full.B[:, 2], 0.0, atol=1e-9)
    rest = pooled_fit(xs[..., :2] - xs[..., :2].mean(0), us - us.mean(0)).dynamics
    np.testing.assert_allclose(full.A[:, :2, :2], rest.A, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(full.B[:, :2], rest.B, rtol=1e-6, atol=1e-8)
