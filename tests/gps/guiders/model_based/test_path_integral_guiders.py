"""`pi2`, `pilqr` and `pigps`: their steps against one another and against numpy, and on an arm."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles
from support.model_based import LEARNER, START, acted_otherwise, iterate

from controllers import path_integral
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.mdgps import Mdgps, MdgpsSettings
from gps.guiders.model_based.method import Condition
from gps.guiders.model_based.pi2 import Pi2, Pi2Settings, pi2
from gps.guiders.model_based.pigps import PigpsSettings, pigps
from gps.guiders.model_based.pilqr import Pilqr, PilqrSettings
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import SamplingSettings, TrustRegionSettings
from gps.guiders.model_based.trajectory_step import within_limits
from gps.runs.evaluate import evaluate
from gps.tasks.mujoco.reacher import Reacher, ReacherSettings

N, T, NX, NU = 12, 6, 3, 2
EXACT = TrustRegionSettings(tolerance=1e-6)


def condition(seed, costs=None) -> Any:
    """A linear-quadratic problem, and samples of a controller that its dynamics moved without noise; float64.

    Args:
        costs: (N T+1) in place of those of the problem.
    """
    problem, rng = oracles.random_problem(seed, T, NX, NU), np.random.default_rng(seed)
    K, k, chol = oracles.random_controller(seed, T, NX, NU)
    A, B, c, _ = problem.dynamics
    xs, us = np.zeros((N, T + 1, NX)), np.zeros((N, T, NU))
    for n in range(N):
        xs[n, 0] = 0.1 * rng.normal(size=NX)
        for t in range(T):
            us[n, t] = K[t] @ xs[n, t] + k[t] + chol[t] @ rng.normal(size=NU)
            xs[n, t + 1] = A[t] @ xs[n, t] + B[t] @ us[n, t] + c[t]
    if costs is None:
        to_go = [[oracles.path_cost(problem, xs[n, t:], us[n, t:], first=t) for t in range(T + 1)] for n in range(N)]
        costs = -np.diff(np.append(to_go, np.zeros((N, 1)), axis=1), axis=1)
    parts: Any = LinearDynamics(*problem.dynamics), QuadraticCost(*problem.cost)
    model = LocalModel(jnp.zeros((T + 1, NX)), jnp.zeros((T, NU)), Gaussian(*problem.initial), *parts)
    reference = LinearGaussian(*map(jnp.asarray, (K, k, chol)))
    given: Any = xs, us, xs[:, :-1], costs, np.ones(N)
    samples = jax.tree.map(jnp.asarray, Samples(*given))
    made = Condition(model, samples, reference, reference, jnp.asarray(3.0), jnp.asarray(1.0))
    return jax.tree.map(jnp.asarray, made)


def mistaken(made):
    """The same condition with costs that fall where its model says that they rise."""
    costs = np.asarray(made.samples.costs)
    return dataclasses.replace(made, samples=dataclasses.replace(made.samples, costs=jnp.asarray(-costs)))


def same(one, other, **tolerance):
    for name in ("K", "k", "chol"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), err_msg=name, **tolerance)


def test_pi2_moves_each_step_to_its_cheaper_samples():
    with jax.enable_x64(True):
        made = condition(0)
        step = jax.jit(Pi2(Pi2Settings()).improve)(made, ())
        K, k, chol = (np.asarray(part) for part in (made.reference.K, made.reference.k, made.reference.chol))
        costs, xs, us = (np.asarray(part) for part in (made.samples.costs, made.samples.xs, made.samples.us))
        etas = []
        for t in range(T):
            to_go, away = costs[:, t:].sum(1), us[:, t] - xs[:, t] @ K[t].T - k[t]
            # the temperature by halving, where the weights are 3 / T nats from equal ones
            low, high = 1e-6, 1e6
            for _ in range(200):
                eta = np.sqrt(low * high)
                w = np.exp(-(to_go - to_go.min()) / eta)
                w /= w.sum()
                far = (w[w > 0] @ np.log(N * w[w > 0])) > 3.0 / T
                low, high = (eta, high) if far else (low, eta)
            etas.append(eta)
            np.testing.assert_allclose(step.controller.k[t], k[t] + w @ away - away.mean(0), rtol=1e-6)
            white = np.linalg.solve(chol[t], away.T).T
            weighted, even = (white - v @ white for v in (w, np.full(N, 1 / N)))
            m = (w @ weighted**2).sum() / ((even**2).sum() / (N - 1)) + (w**2).sum()
            np.testing.assert_allclose(step.controller.chol[t], np.sqrt(m) * chol[t], rtol=1e-6)
        np.testing.assert_allclose(step.eta, np.mean(etas), rtol=1e-6)
        np.testing.assert_array_equal(step.controller.K, K)


@pytest.fixture(scope="module")
def both():
    """The steps of PILQR, MDGPS and PI2; compiled."""
    with jax.enable_x64(True):
        methods = Pilqr(PilqrSettings(trust_region=EXACT)), Mdgps(MdgpsSettings(trust_region=EXACT)), Pi2(Pi2Settings())
        return [jax.jit(method.improve) for method in methods]


@pytest.mark.parametrize("seed", [0, 1])
def test_pilqr_is_lqr_where_the_model_is_exact(both, seed):
    with jax.enable_x64(True):
        made = condition(seed)
        ours, lqr = both[0](made, ()), both[1](made, ())
        assert bool(ours.solved)
        same(ours.controller, within_limits(made.model, lqr.controller), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.kl, 3.0, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_pilqr_is_pi2_where_the_model_explains_nothing(both, seed):
    with jax.enable_x64(True):
        made = mistaken(condition(seed))
        ours, sampled = both[0](made, ()), both[2](made, ())
        same(ours.controller, sampled.controller, rtol=1e-9)
        np.testing.assert_allclose(ours.kl, sampled.kl, rtol=1e-9)
        # so it is where the model has no numbers
        blank = dataclasses.replace(made.model.dynamics, A=jnp.full_like(made.model.dynamics.A, jnp.nan))
        spoilt = dataclasses.replace(made, model=dataclasses.replace(made.model, dynamics=blank))
        same(both[0](spoilt, ()).controller, sampled.controller, rtol=1e-9)


def test_pilqr_splits_its_limit_by_what_the_model_explains(both):
    """One step after the other, each written out."""
    with jax.enable_x64(True):
        made = condition(2)
        costs = made.samples.costs + 15.0 * np.random.default_rng(2).normal(size=(N, T + 1))
        made = dataclasses.replace(made, samples=dataclasses.replace(made.samples, costs=costs))
        step = both[0](made, ())
        c, reference = made.samples, made.reference
        noise = path_integral.whitened_noise(reference, c.xs[:, :-1], c.us)
        exact = condition(2).samples.costs
        S, P = (np.asarray(costs)[:, ::-1].cumsum(1)[:, :0:-1] for costs in (c.costs, exact))
        slope = np.array([np.polyfit(P[:, t], S[:, t], 1)[0] for t in range(T)])
        r = np.array([np.corrcoef(P[:, t], S[:, t])[0, 1] for t in range(T)])
        explained = np.clip(1.0 - (1.0 - r**2) * (N - 1) / (N - 2), 0.0, 1.0)
        assert 0.1 < explained.min() < explained.max() < 0.99
        planned = both[1](dataclasses.replace(made, limit=explained.mean() * made.limit), ())
        limited = within_limits(made.model, planned.controller)
        rest = path_integral.improve(limited, noise, S - slope * P, (1.0 - explained) * 3.0 / T, np.full(N, 1 / N))
        same(step.controller, rest.controller, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(step.kl, explained.mean() * 3.0 + rest.kl.sum(), rtol=1e-3)


@pytest.fixture(scope="module")
def arm():
    """A small arm, and three iterations of PIGPS on it."""
    task = Reacher(ReacherSettings(horizon=6, train_targets=3, test_targets=4), "mujoco")
    sampling = SamplingSettings(samples=4, by="learner")
    guider = pigps(task, PigpsSettings(start=START, sampling=sampling, learner=LEARNER))
    return guider, *iterate(guider, 3)


def test_pigps_weighs_samples_of_the_learner_that_it_measures_from(arm):
    guider, states, _, (collect, _) = arm
    prepare = jax.jit(guider.prepare)
    _, first, _ = prepare(states[0], collect(states[0], jax.random.key(1)))
    np.testing.assert_array_equal(first.reference.k, states[0].controllers.k)
    samples = collect(states[2], jax.random.key(2))
    _, later, _ = prepare(states[2], samples)
    np.testing.assert_array_equal(later.reference.k, later.learner.k)
    noise = jax.vmap(path_integral.whitened_noise)(later.reference, samples.xs[:, :, :-1], samples.us)
    assert bool(later.evidence.learner_collected.all())
    np.testing.assert_allclose(noise.mean(), 0.0, atol=0.3)  # of 144
    np.testing.assert_allclose(noise.std(), 1.0, atol=0.3)


def test_a_model_that_contradicts_the_samples_stops_none_of_them(arm):
    """Dynamics that no model reproduces: each condition improves, at a full step."""
    guider, states, _, (collect, _) = arm
    samples = collect(states[1], jax.random.key(8))
    new, prepared, metrics = jax.jit(guider.prepare)(states[1], acted_otherwise(samples, *range(len(samples.costs))))
    assert bool(prepared.evidence.trusted.all())
    assert int(metrics["untrusted_models"]) == 0
    improved, done = jax.jit(guider.improve)(new, prepared, prepared.learner)
    assert (np.abs(improved.controllers.k - prepared.reference.k).max((1, 2)) > 1e-3).all()
    np.testing.assert_allclose(done["kl_limit"], 1.0, rtol=1e-5)


@pytest.mark.slow
def test_pi2_learns_the_arm():
    task = Reacher(ReacherSettings(horizon=20, train_targets=6, test_targets=4), "mujoco")
    training = dataclasses.replace(LEARNER.training, updates=100, batch_size=64)
    guider = pi2(task, Pi2Settings(learner=dataclasses.replace(LEARNER, training=training)))
    states, rows, _ = iterate(guider, 8)
    cost = [float(row["cost"].mean()) for row in rows]
    assert cost[-1] < 0.6 * cost[0]
    value = jax.jit(lambda policy: evaluate(task, policy, task.train_contexts, jax.random.key(9)).score.mean())
    assert value(guider.policy(states[-1])) < 0.6 * value(guider.policy(states[0]))
