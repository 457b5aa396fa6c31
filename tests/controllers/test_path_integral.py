"""Path-integral updates against a numerical minimiser, loops in numpy, and the answer for infinitely many samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from support import oracles

from controllers import path_integral
from controllers.types import LinearDynamics, LinearGaussian, QuadraticCost

N, T, NX, NU = 12, 6, 3, 2
temperature = jax.jit(jax.vmap(path_integral.temperature, (1, 0, None)))
improve = jax.jit(path_integral.improve)
split = jax.jit(path_integral.split)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def some_share(lost=()):
    share = np.ones(N)
    share[list(lost)] = 0.0
    return share / share.sum()


def dual(eta, costs, limit, share):
    """eta limit + eta log mean exp(-costs / eta)"""
    least = costs[share > 0].min()
    return eta * limit - least + eta * np.log(share @ np.exp(-np.maximum(costs - least, 0.0) / eta))


def controller_of(seed):
    return LinearGaussian(*map(jnp.asarray, oracles.random_controller(seed, T, NX, NU)))


@pytest.mark.parametrize("lost", [(), (0, 7)])
def test_the_temperature_minimises_the_dual(lost):
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(N, T)) * 10.0 ** np.arange(-3, 3) + 1e3
    costs[list(lost)] -= 50.0  # what does not count is not the cheapest either
    limits, share = 10.0 ** rng.uniform(-3, 0, T), some_share(lost)
    found = temperature(costs, limits, share)
    for t, eta in enumerate(np.asarray(found)):
        best = scipy.optimize.minimize_scalar(
            lambda log_eta: dual(np.exp(log_eta), costs[:, t], limits[t], share),  # noqa: B023
            bounds=np.log([1e-2 * eta, 1e2 * eta]),
            method="bounded",
            options={"xatol": 1e-10},
        )
        np.testing.assert_allclose(eta, np.exp(best.x), rtol=1e-4)


def test_the_coldest_temperature_where_the_limit_does_not_bind():
    """No reweighting of N samples is farther than log N from equal weights."""
    costs = np.random.default_rng(1).normal(size=(N, 2))
    eta = temperature(costs, np.array([np.log(N) + 0.1, 1.0]), some_share())
    np.testing.assert_allclose(eta[0], path_integral.COLDEST * np.ptp(costs[:, 0]))
    assert eta[1] > 10 * path_integral.COLDEST * np.ptp(costs[:, 1])


def test_the_temperature_in_float32():
    with jax.enable_x64(False):
        costs = np.float32(1e4 + np.random.default_rng(2).normal(size=(N, T)))
        limits = np.geomspace(1e-3, 2.0, T, dtype=np.float32)
        eta = np.asarray(temperature(costs, limits, np.float32(some_share())))
    with jax.enable_x64(True):
        np.testing.assert_allclose(eta, temperature(costs.astype(float), limits.astype(float), some_share()), rtol=1e-3)


@pytest.mark.parametrize("lost", [(), (3, 4, 9)])
def test_the_update_against_loops(lost):
    rng, controller, share = np.random.default_rng(3), controller_of(3), some_share(lost)
    xs, us = rng.normal(size=(N, T, NX)), rng.normal(size=(N, T, NU))
    costs, limit = rng.exponential(size=(N, T + 1)), np.linspace(0.1, 1.0, T)
    noise = path_integral.whitened_noise(controller, xs, us)
    step = improve(controller, noise, path_integral.costs_to_go(costs), limit, share)
    K, k, chol = map(np.asarray, (controller.K, controller.k, controller.chol))
    for t in range(T):
        to_go = np.array([costs[n, t:].sum() for n in range(N)])
        weights = share * np.exp(-(to_go - to_go.min()) / step.eta[t])
        weights /= weights.sum()
        away = np.stack([us[n, t] - K[t] @ xs[n, t] - k[t] for n in range(N)])
        shift = sum((weights[n] - share[n]) * away[n] for n in range(N))
        inverse = np.linalg.inv(chol[t] @ chol[t].T)

        def variance(weights, away=away, inverse=inverse):
            d = away - weights @ away
            return sum(w * row @ inverse @ row for w, row in zip(weights, d, strict=True)) / NU

        m = variance(weights) / (variance(share) / (1.0 - (share**2).sum())) + (weights**2).sum()
        np.testing.assert_allclose(step.weights[:, t], weights, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(weights[share > 0] @ np.log(weights[share > 0] / share.max()), limit[t], rtol=1e-6)
        np.testing.assert_allclose(step.controller.k[t], k[t] + shift, rtol=1e-8)
        cov = step.controller.chol[t] @ step.controller.chol[t].T
        np.testing.assert_allclose(cov, m * chol[t] @ chol[t].T, rtol=1e-8)
        kl = oracles.gaussian_kl(k[t] + shift, m * chol[t] @ chol[t].T, k[t], chol[t] @ chol[t].T)
        np.testing.assert_allclose(step.kl[t], kl, rtol=1e-8)
    np.testing.assert_array_equal(step.controller.K, K)


def test_many_samples_find_the_gaussian_that_the_limit_allows():
    """N(k, C) exp(-cost / eta) is a Gaussian where the cost is quadratic."""
    rng, controller = np.random.default_rng(4), controller_of(4)
    k, chol = np.asarray(controller.k), np.asarray(controller.chol)
    noise = rng.normal(size=(40_000, T, NU))
    us = k + np.einsum("tuv,ntv->ntu", chol, noise)
    H = np.stack([oracles.random_covariance(rng, NU) for _ in range(T)])
    aim = rng.normal(size=(T, NU))
    costs = 0.5 * np.einsum("ntu,tuv,ntv->nt", us - aim, H, us - aim)
    step = improve(controller, noise, costs, np.full(T, 0.3), np.full(len(noise), 1.0 / len(noise)))
    for t in range(T):
        precision = np.linalg.inv(chol[t] @ chol[t].T)
        wanted = precision + H[t] / step.eta[t]
        mean = np.linalg.solve(wanted, precision @ k[t] + H[t] @ aim[t] / step.eta[t])
        m = np.trace(np.linalg.solve(wanted, precision)) / NU
        np.testing.assert_allclose(step.controller.k[t], mean, atol=0.03)
        np.testing.assert_allclose(step.controller.chol[t], np.sqrt(m) * chol[t], rtol=0.03)
        cov = np.linalg.inv(wanted)
        np.testing.assert_allclose(oracles.gaussian_kl(mean, cov, k[t], chol[t] @ chol[t].T), 0.3, rtol=0.05)


def test_equal_costs_and_a_limit_of_zero_leave_the_controller():
    rng, controller = np.random.default_rng(5), controller_of(5)
    noise = rng.normal(size=(N, T, NU))
    for costs, limit in ((np.full((N, T), 7.0), 1.0), (rng.normal(size=(N, T)), 0.0)):
        step = improve(controller, noise, costs, np.full(T, limit), some_share((2,)))
        np.testing.assert_allclose(step.controller.k, controller.k, atol=1e-14)
        np.testing.assert_allclose(step.controller.chol, controller.chol, rtol=1e-14)
        np.testing.assert_allclose(step.kl, 0.0, atol=1e-14)


def test_the_exploration_neither_grows_nor_shrinks_by_chance():
    """Over many draws of costs that have nothing to do with the noise."""
    rng, controller = np.random.default_rng(6), controller_of(6)
    noise, costs = rng.normal(size=(400, N, T, NU)), rng.normal(size=(400, N, T))
    step = jax.vmap(improve, (None, 0, 0, None, None))(controller, noise, costs, np.full(T, 0.5), some_share())
    m = (step.controller.chol[..., 0, 0] / controller.chol[:, 0, 0]) ** 2
    np.testing.assert_allclose(m.mean(), 1.0, atol=4 * m.std() / np.sqrt(m.size))
    assert m.std() / np.sqrt(m.size) < 0.02


def test_predicted_costs_are_those_of_the_model_along_each_sample():
    problem, controller = oracles.random_problem(7, T, NX, NU), controller_of(7)
    rng = np.random.default_rng(7)
    starts, noise = rng.normal(size=(N, NX)), rng.normal(size=(N, T, NU))
    dynamics, cost = LinearDynamics(*map(jnp.asarray, problem.dynamics)), QuadraticCost(*map(jnp.asarray, problem.cost))
    predicted = path_integral.predicted_costs(dynamics, cost, controller, starts, noise)
    to_go = path_integral.costs_to_go(predicted)
    A, B, c, _ = problem.dynamics
    for n in range(N):
        xs, us = [starts[n]], []
        for t in range(T):
            us.append(controller.K[t] @ xs[-1] + controller.k[t] + controller.chol[t] @ noise[n, t])
            xs.append(A[t] @ xs[-1] + B[t] @ us[-1] + c[t])
        for t in range(T):
            np.testing.assert_allclose(to_go[n, t], oracles.path_cost(problem, xs[t:], us[t:], first=t), rtol=1e-9)


def test_a_split_is_least_squares_and_its_share_the_adjusted_r_squared():
    rng, share = np.random.default_rng(8), some_share((5,))
    counts = share > 0
    predicted = rng.normal(size=(N, T)) * 10.0 ** np.arange(T) + 5.0
    costs = 3.0 + np.linspace(0.5, 2.0, T) * predicted + 0.3 * rng.normal(size=(N, T)) * 10.0 ** np.arange(T)
    done = split(costs, predicted, share)
    for t in range(T):
        x, y = predicted[counts, t], costs[counts, t]
        slope = np.polyfit(x, y, 1)[0]
        r, n = np.corrcoef(x, y)[0, 1], counts.sum()
        np.testing.assert_allclose(done.beta[t], slope, rtol=1e-9)
        np.testing.assert_allclose(np.diff(done.residual[counts, t]), np.diff(y - slope * x), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(done.explained[t], 1.0 - (1.0 - r**2) * (n - 1) / (n - 2), rtol=1e-9)


def test_a_model_that_is_exact_explains_all_and_a_bad_one_nothing():
    rng, share = np.random.default_rng(9), some_share()
    costs = rng.normal(size=(N, T))
    exact = split(costs, costs - 4.0, share)
    np.testing.assert_allclose(exact.explained, 1.0)
    np.testing.assert_allclose(exact.beta, 1.0)
    np.testing.assert_allclose(exact.residual - exact.residual[0], 0.0, atol=1e-12)
    spoilt = np.where(np.arange(T) % 2, 1e300, np.nan) * np.sign(costs)
    for bad in (-costs, np.zeros((N, T)), np.full((N, T), np.nan), np.where(np.isnan(spoilt), spoilt, -spoilt)):
        done = split(costs, bad, share)
        np.testing.assert_array_equal(done.explained, 0.0)
        np.testing.assert_allclose(done.residual - done.residual[0], costs - costs[0], atol=1e-12)
