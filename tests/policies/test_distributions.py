"""Distributions over actions against scipy, numerical integration and exact sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from policies.distributions import Categorical, Gaussian, TanhGaussian

GAUSSIANS = [Gaussian(2), TanhGaussian(2)]
SCALES = {Gaussian: np.exp, TanhGaussian: lambda s: np.logaddexp(0.0, s) + 1e-3}


def outputs(seed: int, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Network outputs (*shape size): half means and half what makes standard deviations, for a Gaussian of size / 2."""
    return np.random.default_rng(seed).normal(0.0, 0.8, (*shape, size)).astype(np.float32)


def moments(distribution, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, scale = np.split(z.astype(float), 2, axis=-1)
    return mean, SCALES[type(distribution)](scale)


@pytest.mark.parametrize("distribution", GAUSSIANS)
def test_gaussian_log_density_is_that_of_independent_normals(distribution):
    z, u = outputs(0, (3, 5), 4), outputs(1, (3, 5), 2)
    mean, std = moments(distribution, z)
    expected = stats.norm.logpdf(u, mean, std).sum(-1)
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(z), jnp.asarray(u)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distribution", GAUSSIANS)
def test_gaussian_kl_is_the_integral_of_each_dimension(distribution):
    p, q = outputs(2, (3,), 4), outputs(3, (3,), 4)
    kl = np.asarray(distribution.kl(jnp.asarray(p), jnp.asarray(q)))
    (mean_p, std_p), (mean_q, std_q) = moments(distribution, p), moments(distribution, q)
    expected = np.zeros((3, 2))
    for index in np.ndindex(3, 2):
        one, other = stats.norm(mean_p[index], std_p[index]), stats.norm(mean_q[index], std_q[index])
        far = 12 * std_p[index]
        integrand = lambda u, one=one, other=other: one.pdf(u) * (one.logpdf(u) - other.logpdf(u))  # noqa: E731
        expected[index] = integrate.quad(integrand, mean_p[index] - far, mean_p[index] + far)[0]
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - np.asarray(distribution.kl(jnp.asarray(q), jnp.asarray(p)))).min() > 1e-3  # no symmetry


def test_the_entropy_of_a_gaussian_is_that_of_normals():
    z = outputs(4, (6,), 4)
    expected = stats.norm(*moments(Gaussian(2), z)).entropy().sum(-1)
    np.testing.assert_allclose(Gaussian(2).entropy(jnp.asarray(z)), expected, rtol=1e-5)


def test_the_entropy_of_a_tanh_gaussian_is_that_of_the_squashed_action():
    """-int p(a) log p(a) da over the bounded action a = tanh(u); five nodes are exact to a hundredth of a nat."""
    z = np.array([[0.0, 0.5], [0.4, -1.0], [-1.5, 0.5], [0.3, -4.0]], np.float32)  # mean and scale of one action
    mean, std = moments(TanhGaussian(1), z)
    expected = []
    for m, s in zip(mean[:, 0], std[:, 0], strict=True):

        def integrand(a, m=m, s=s):
            log_p = stats.norm.logpdf(np.arctanh(a), m, s) - np.log1p(-(a**2))
            return -np.exp(log_p) * log_p

        ends = np.tanh([m - 8 * s, m + 8 * s]).clip(-1 + 1e-12, 1 - 1e-12)
        middle = np.tanh(np.linspace(m - 4 * s, m + 4 * s, 9))
        expected.append(integrate.quad(integrand, *ends, points=middle, limit=400)[0])
    entropy = TanhGaussian(1).entropy(jnp.asarray(z))
    np.testing.assert_allclose(entropy, expected, atol=0.015)
    # in several dimensions they add up
    both = TanhGaussian(2).entropy(jnp.asarray([[z[0, 0], z[1, 0], z[0, 1], z[1, 1]]]))
    np.testing.assert_allclose(both, entropy[0] + entropy[1], rtol=1e-5)


def test_the_entropy_of_a_saturated_tanh_gaussian_has_a_finite_slope():
    """At a mean of 40 the action is 1 to rounding, and log(1 - tanh(u)^2) would be -inf."""
    z = jnp.asarray([40.0, 0.5])
    std = np.logaddexp(0.0, 0.5) + 1e-3
    expected = stats.norm(0.0, std).entropy() + 2 * np.log(2.0) - 2 * 40.0  # E log slope = log 4 - 2 E u there
    np.testing.assert_allclose(TanhGaussian(1).entropy(z), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(TanhGaussian(1).entropy)(z)[0], -2.0, rtol=1e-5)


def test_the_noise_of_gaussians_is_scaled_and_its_absence_is_the_mode():
    z, noise = outputs(5, (4,), 4), outputs(6, (4,), 2)
    for distribution in GAUSSIANS:
        mean, std = moments(distribution, z)
        drawn = distribution.sample(jnp.asarray(z), jnp.asarray(noise))
        np.testing.assert_allclose(drawn, mean + std * noise, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(distribution.sample(jnp.asarray(z), jnp.zeros((4, 2))), mean, rtol=1e-6)
    u = jnp.asarray([-3.0, 0.3, 1.2])
    np.testing.assert_allclose(Gaussian(3).environment(u), [-1.0, 0.3, 1.0])
    np.testing.assert_allclose(TanhGaussian(3).environment(u), np.tanh(u), rtol=1e-6)
    draws = np.asarray(Gaussian(2).noise(jax.random.key(0), (20_000,)))
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


def test_squashing_changes_no_ratio_and_no_divergence_between_two_policies():
    """Both, with the densities of the squashed action a: each has the same Jacobian."""
    p, q = outputs(7, (5,), 2), outputs(8, (5,), 2)
    u = outputs(9, (5,), 1)
    distribution = TanhGaussian(1)
    log_ratio = distribution.log_prob(jnp.asarray(p), jnp.asarray(u)) - distribution.log_prob(
        jnp.asarray(q), jnp.asarray(u)
    )
    a = np.tanh(u.astype(float))

    def squashed(z, a):
        mean, std = moments(distribution, z)
        return stats.norm.logpdf(np.arctanh(a), mean, std)[..., 0] - np.log1p(-(a**2))[..., 0]

    np.testing.assert_allclose(log_ratio, squashed(p, a) - squashed(q, a), rtol=1e-4, atol=1e-5)

    def integrand(a):
        a = np.array([[a]])
        log_p, log_q = squashed(p[:1], a)[0], squashed(q[:1], a)[0]
        return np.exp(log_p) * (log_p - log_q)

    kl = integrate.quad(integrand, -1 + 1e-9, 1 - 1e-9, limit=400)[0]
    np.testing.assert_allclose(distribution.kl(jnp.asarray(p[0]), jnp.asarray(q[0]))[0], kl, rtol=1e-3)


def test_the_deviation_of_a_gaussian_has_bounds():
    z = jnp.asarray([0.0, 0.0, -50.0, 50.0])
    np.testing.assert_allclose(Gaussian(2).moments(z)[1], np.exp([-5.0, 2.0]), rtol=1e-6)
    np.testing.assert_allclose(TanhGaussian(1).moments(jnp.asarray([0.0, -200.0]))[1], [1e-3], rtol=1e-6)


def test_a_choice_by_exact_sums():
    z, other = outputs(10, (4,), 3), outputs(11, (4,), 3)
    p, q = special.softmax(z.astype(float), -1), special.softmax(other.astype(float), -1)
    choice = Categorical(3)
    for action in range(3):
        log_p = choice.log_prob(jnp.asarray(z), jnp.full(4, action, jnp.int32))
        np.testing.assert_allclose(log_p, np.log(p[:, action]), rtol=1e-5)
    np.testing.assert_allclose(choice.entropy(jnp.asarray(z)), stats.entropy(p, axis=-1), rtol=1e-5)
    kl = choice.kl(jnp.asarray(z), jnp.asarray(other))
    np.testing.assert_allclose(kl, stats.entropy(p, q, axis=-1)[:, None], rtol=1e-4)  # one number for the whole choice
    np.testing.assert_allclose(choice.entropy(jnp.asarray(z + 100.0)), stats.entropy(p, axis=-1), rtol=1e-4)


def test_the_gradient_of_a_choice_is_that_of_softmax():
    z = jnp.asarray([0.3, -1.0, 2.0])
    gradient = jax.grad(Categorical(3).log_prob)(z, jnp.asarray(1, jnp.int32))
    np.testing.assert_allclose(gradient, np.array([0, 1, 0]) - special.softmax(z), rtol=1e-5)


def test_drawn_choices_follow_their_probabilities_and_the_mode_is_the_likeliest():
    choice, z = Categorical(3), jnp.asarray([0.5, 1.5, -0.5])
    draws = choice.sample(z, choice.noise(jax.random.key(1), (20_000,)))
    assert draws.dtype == jnp.int32
    expected = 20_000 * special.softmax(np.asarray(z, float))
    assert stats.chisquare(np.bincount(draws, minlength=3), expected).pvalue > 0.01
    assert int(choice.sample(z, jnp.zeros(3))) == 1
    assert int(choice.environment(draws[0])) == int(draws[0])


@pytest.mark.parametrize("distribution", GAUSSIANS)
def test_the_moments_of_an_action_are_exact_to_first_order_in_the_noise(distribution):
    """Against moments of the environment's action, of draws with a hundredth of the noise."""
    z = outputs(12, (5,), 4)
    z[:, :2] *= 0.3  # far from where a Gaussian's actions are clipped
    noise = 0.01 * np.linspace(-1.0, 1.0, 41)[:, None, None] * np.ones((1, 5, 2), np.float32)
    actions = distribution.environment(distribution.sample(jnp.asarray(z), jnp.asarray(noise, jnp.float32)))
    mean, std = distribution.action_moments(jnp.asarray(z))
    np.testing.assert_allclose(actions[20], mean, atol=1e-6)
    np.testing.assert_allclose((actions[-1] - actions[0]) / 0.02, std, rtol=1e-3)
