"""Marginals, expected costs and KL divergences against dense joint Gaussians over whole trajectories."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from support import oracles

from controllers import kl, marginals
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost

T, NX, NU = 6, 3, 2
NZ = NX + NU
propagate = jax.jit(marginals.propagate)
kl_per_step = jax.jit(kl.kl_per_step)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[0, 1], name="problem")
def _problem(request):
    return oracles.random_problem(request.param)


def controller_of(parts):
    return LinearGaussian(*map(jnp.asarray, parts))


def states_of(problem, parts):
    return propagate(
        LinearDynamics(*map(jnp.asarray, problem.dynamics)),
        controller_of(parts),
        Gaussian(*map(jnp.asarray, problem.initial)),
    )


def test_state_marginals_are_blocks_of_the_joint(problem):
    parts = oracles.random_controller(0)
    states = states_of(problem, parts)
    mean, cov = oracles.trajectory_gaussian(problem, parts)
    assert states.mean.shape == (T + 1, NX)
    for t in range(T + 1):
        x = slice(t * NZ, t * NZ + NX)
        np.testing.assert_allclose(states.mean[t], mean[x], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(states.cov[t], cov[x, x], rtol=1e-10, atol=1e-12)


def test_state_action_marginals_are_blocks_of_the_joint(problem):
    parts = oracles.random_controller(1)
    both = marginals.state_action(states_of(problem, parts), controller_of(parts))
    mean, cov = oracles.trajectory_gaussian(problem, parts)
    assert both.mean.shape == (T, NZ)
    for t in range(T):
        z = slice(t * NZ, (t + 1) * NZ)
        np.testing.assert_allclose(both.mean[t], mean[z], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(both.cov[t], cov[z, z], rtol=1e-10, atol=1e-12)


def test_expected_cost_is_that_of_the_joint(problem):
    parts = oracles.random_controller(2)
    cost = QuadraticCost(*map(jnp.asarray, problem.cost))
    value = marginals.expected_cost(cost, states_of(problem, parts), controller_of(parts))
    np.testing.assert_allclose(value, oracles.expected_path_cost(problem, parts), rtol=1e-11)


def test_without_any_noise_the_marginals_are_one_rollout(problem):
    K, k, chol = oracles.random_controller(3)
    A, B, c, cov = problem.dynamics
    still = problem._replace(dynamics=(A, B, c, 0.0 * cov), initial=(problem.initial[0], np.zeros((NX, NX))))
    states = states_of(still, (K, k, 0.0 * chol))
    xs, us = oracles.follow(problem, K, k, problem.initial[0])
    np.testing.assert_allclose(states.mean, xs, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(states.cov, 0.0)
    cost = QuadraticCost(*map(jnp.asarray, problem.cost))
    value = marginals.expected_cost(cost, states, controller_of((K, k, 0.0 * chol)))
    np.testing.assert_allclose(value, oracles.path_cost(problem, xs, us), rtol=1e-11)


def test_covariances_stay_positive_in_float32_over_a_long_horizon():
    """100 steps whose closed loop squeezes one direction by 1e-3 and lets another grow."""
    problem = oracles.random_problem(3, T=100)
    _, B, c, cov = problem.dynamics
    squeeze = np.diag([1.02, 0.9, 1e-3])
    problem = problem._replace(dynamics=(np.tile(squeeze, (100, 1, 1)), 0.1 * B, c, 1e-6 * cov))
    parts = oracles.random_controller(4, T=100)
    exact = states_of(problem, parts)
    with jax.enable_x64(False):
        single = states_of(problem, parts)
    assert single.cov.dtype == jnp.float32
    np.testing.assert_array_equal(single.cov, single.cov.mT)
    np.testing.assert_allclose(single.mean, exact.mean, rtol=1e-4, atol=1e-4)
    scale = np.sqrt(np.einsum("tii->ti", exact.cov))
    scale = scale[:, :, None] * scale[:, None, :]
    np.testing.assert_allclose(single.cov / scale, exact.cov / scale, atol=1e-4)
    correlation = np.asarray(single.cov, np.float64) / scale
    assert (np.linalg.eigvalsh(correlation)[:, 0] > -1e-5).all()


def test_kl_is_that_of_the_trajectory_distributions(problem):
    p, q = oracles.random_controller(5), oracles.random_controller(6)
    steps = kl_per_step(controller_of(p), controller_of(q), states_of(problem, p))
    np.testing.assert_allclose(steps.sum(), oracles.trajectory_kl(problem, p, q), rtol=1e-9)


def test_kl_of_each_step_follows_from_the_chain_rule(problem):
    """The joint of (x[0] .. u[t]) differs by one action's KL more than the joint of (x[0] .. x[t])."""
    p, q = oracles.random_controller(7), oracles.random_controller(8)
    steps = kl_per_step(controller_of(p), controller_of(q), states_of(problem, p))
    (mean_p, cov_p), (mean_q, cov_q) = (oracles.trajectory_gaussian(problem, c) for c in (p, q))

    def upto(n):
        return oracles.gaussian_kl(mean_p[:n], cov_p[:n, :n], mean_q[:n], cov_q[:n, :n])

    expected = [upto((t + 1) * NZ) - upto(t * NZ + NX) for t in range(T)]
    np.testing.assert_allclose(steps, expected, rtol=1e-7, atol=1e-9)


def test_kl_agrees_with_sampled_trajectories():
    problem = oracles.random_problem(9)
    p, q = oracles.random_controller(9), oracles.random_controller(10)
    mean, cov = oracles.trajectory_gaussian(problem, p)
    ys = np.random.default_rng(0).multivariate_normal(mean, cov, size=20_000)
    zs = ys[:, : T * NZ].reshape(-1, T, NZ)
    gain = jax.vmap(lambda z: controller_of(p).log_prob(z[:, :NX], z[:, NX:]))(zs)
    loss = jax.vmap(lambda z: controller_of(q).log_prob(z[:, :NX], z[:, NX:]))(zs)
    ratio = np.asarray(gain - loss).sum(1)
    exact = kl_per_step(controller_of(p), controller_of(q), states_of(problem, p)).sum()
    assert abs(ratio.mean() - exact) < 4.0 * ratio.std() / np.sqrt(len(ratio))


def test_kl_is_zero_only_for_the_same_controller():
    problem = oracles.random_problem(2)
    K, k, chol = oracles.random_controller(11)
    q = controller_of((K, k, chol))
    states = states_of(problem, (K, k, chol))
    np.testing.assert_allclose(kl_per_step(q, q, states), 0.0, atol=1e-14)
    for other in ((1.1 * K, k, chol), (K, k + 0.1, chol), (K, k, 1.1 * chol)):
        assert (kl_per_step(controller_of(other), q, states) > 1e-4).all()


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_small_kl_is_sound_in_float32(size):
    """A limit of 1e-6 nats has to be met to a per cent in float32, where the terms of the KL nearly cancel."""
    problem = oracles.random_problem(2)
    K, k, chol = oracles.random_controller(12)
    bumps = oracles.random_controller(13)
    p = [np.float32(a + size * b).astype(np.float64) for a, b in zip((K, k, chol), bumps, strict=True)]
    q = [np.float32(a).astype(np.float64) for a in (K, k, chol)]
    exact = oracles.trajectory_kl(problem, p, q)
    with jax.enable_x64(False):
        single = kl_per_step(controller_of(p), controller_of(q), states_of(problem, p)).sum()
    assert 50.0 * size**2 < exact < 200.0 * size**2
    np.testing.assert_allclose(single, exact, rtol=5e-3)


def test_surprise_is_the_negative_log_density():
    K, k, chol = oracles.random_controller(14)
    cost = kl.negative_log_prob(controller_of((K, k, chol)))
    for t, z in enumerate(np.random.default_rng(0).normal(size=(T, NZ))):
        x, u = z[:NX], z[NX:]
        expected = -multivariate_normal(K[t] @ x + k[t], chol[t] @ chol[t].T).logpdf(u)
        value = 0.5 * z @ cost.H[t] @ z + cost.g[t] @ z + cost.c[t]
        np.testing.assert_allclose(value, expected, rtol=1e-10)
    for final in (cost.H_final, cost.g_final, cost.c_final):
        np.testing.assert_array_equal(final, 0.0)


def test_weighted_sum_weighs_each_step():
    problem = oracles.random_problem(4)
    cost = QuadraticCost(*map(jnp.asarray, problem.cost))
    other = kl.negative_log_prob(controller_of(oracles.random_controller(15)))
    weight = np.linspace(0.5, 3.0, T)
    total = kl.add_weighted(cost, jnp.asarray(weight), other)
    rng = np.random.default_rng(0)
    xs, us = rng.normal(size=(T + 1, NX)), rng.normal(size=(T, NU))

    def value(quadratic):
        parts = tuple(np.asarray(getattr(quadratic, f.name)) for f in dataclasses.fields(quadratic))
        return oracles.path_cost(problem._replace(cost=parts), xs, us)

    K, k, chol = oracles.random_controller(15)
    surprise = [-multivariate_normal(K[t] @ xs[t] + k[t], chol[t] @ chol[t].T).logpdf(us[t]) for t in range(T)]
    np.testing.assert_allclose(value(total), value(cost) + weight @ surprise, rtol=1e-10)


def test_controller_density_entropy_and_samples():
    K, k, chol = oracles.random_controller(16)
    controller = controller_of((K, k, chol))
    rng = np.random.default_rng(0)
    xs, us = rng.normal(size=(T, NX)), rng.normal(size=(T, NU))
    normals = [multivariate_normal(K[t] @ xs[t] + k[t], chol[t] @ chol[t].T) for t in range(T)]
    np.testing.assert_allclose(controller.means(xs), [n.mean for n in normals], rtol=1e-12)
    np.testing.assert_allclose(controller.log_prob(xs, us), [n.logpdf(u) for n, u in zip(normals, us, strict=True)])
    np.testing.assert_allclose(controller.entropy(), [n.entropy() for n in normals], rtol=1e-12)
    samples = jax.vmap(lambda e: controller.sample(2, xs[2], e))(rng.normal(size=(40_000, NU)))
    np.testing.assert_allclose(np.mean(samples, 0), normals[2].mean, atol=0.02)
    np.testing.assert_allclose(np.cov(samples.T), normals[2].cov, atol=0.02)


def test_recentred_controller_is_the_same_in_deviations():
    controller = controller_of(oracles.random_controller(17))
    rng = np.random.default_rng(0)
    xs, us, dx = rng.normal(size=(T, NX)), rng.normal(size=(T, NU)), rng.normal(size=(T, NX))
    moved = controller.recentred(xs, us)
    np.testing.assert_allclose(us + moved.means(dx), controller.means(xs + dx), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(moved.chol, controller.chol)
    np.testing.assert_allclose(moved.recentred(-xs, -us).k, controller.k, atol=1e-12)
