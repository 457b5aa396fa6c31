"""The two methods of dual ascent, `dgps` and `sgps`: their Lagrangians, the slopes of these, and where all four end."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_based import made_up, random_controller

from controllers.kl import kl_per_step
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from gps.guiders.model_based.badmm import Badmm, BadmmSettings
from gps.guiders.model_based.dgps import Dgps, DgpsSettings, augmented
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.mdgps import Mdgps, MdgpsSettings
from gps.guiders.model_based.method import Agreement, Condition
from gps.guiders.model_based.penalty import PenaltySettings
from gps.guiders.model_based.sgps import PriceSettings, Sgps, SgpsSettings

RHO = 0.7


@pytest.fixture(scope="module")
def problem(task):
    """A local model, and a controller and a learner in absolute coordinates."""
    _, _, models, absolute = made_up(task, (0, 1))
    model, controller = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (models, absolute))
    return model, controller, random_controller(3, task.horizon, task.nx, task.nu)


def condition(model, learner, reference=None, limit=1e6) -> Any:
    parts: Any = model, None, learner, reference, jnp.asarray(limit), jnp.asarray(1.0)
    return Condition(*parts)


def agreement(model, controller, learner):
    new, taught = model.centred(controller), model.centred(learner)
    return Agreement(new, taught, kl_per_step(new, taught, model.marginals(new)))


def test_dgps_augments_the_cost_by_multipliers_and_penalty(problem, task):
    model, _, learner = problem
    rng = np.random.default_rng(4)
    multipliers = jnp.asarray(rng.normal(size=(task.horizon, task.nu)), jnp.float32)
    dx, du = (0.1 * rng.normal(size=(task.horizon, n)).astype(np.float32) for n in (task.nx, task.nu))
    dz = np.concatenate([dx, du], axis=1)

    def value(cost):
        return 0.5 * np.einsum("ti,tij,tj->t", dz, cost.H, dz) + (np.asarray(cost.g) * dz).sum(1) + cost.c

    difference = model.us + du - learner.means(model.xs[:-1] + dx)
    expected = value(model.cost) + (multipliers * difference).sum(-1) + 0.5 * RHO * (difference**2).sum(-1)
    np.testing.assert_allclose(value(augmented(model, learner, multipliers, RHO)), expected, rtol=2e-3, atol=2e-3)


def test_dgps_teaches_what_minimises_the_lagrangian_and_climbs_its_slope(problem, task):
    """Over the learner's actions, and in the multipliers, by finite differences of a Lagrangian that is written out."""
    model, controller, learner = problem
    method = Dgps(DgpsSettings(penalty=RHO, rate=0.4))
    rng = np.random.default_rng(6)
    duals = jnp.asarray(rng.normal(size=(task.horizon, task.nu)), jnp.float32)
    xs = np.asarray(model.marginals(model.centred(controller)).mean[:-1] + model.xs[:-1])
    us = np.asarray(controller.means(jnp.asarray(xs)))

    def lagrangian(taught, multipliers):
        return (multipliers * (us - taught)).sum() + 0.5 * RHO * ((us - taught) ** 2).sum()

    def slope(function, at, h=1e-3):
        steps = h * np.eye(at.size).reshape(-1, *at.shape)
        return np.array([(function(at + s) - function(at - s)) / (2 * h) for s in steps]).reshape(at.shape)

    given = np.asarray(duals, float)
    actions, precisions, weights = method.targets(controller, duals, jnp.asarray(xs[None], jnp.float32))
    np.testing.assert_allclose(slope(lambda u: lagrangian(u, given), np.asarray(actions[0], float)), 0.0, atol=2e-4)
    np.testing.assert_allclose(precisions, np.broadcast_to(100.0 * np.eye(task.nu), precisions.shape), rtol=1e-5)
    np.testing.assert_array_equal(weights, 1.0)

    taught = np.asarray(learner.means(jnp.asarray(xs, jnp.float32)), float)
    up = slope(lambda multipliers: lagrangian(taught, multipliers), given)
    done = agreement(model, controller, learner)
    new, metrics = method.pull_back(done, condition(model, learner), duals, jnp.asarray(True))
    np.testing.assert_allclose(new, given + 0.4 * RHO * up, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(metrics["violation"], np.sqrt((up**2).sum(-1).mean()), rtol=1e-3)


def test_sgps_climbs_the_slope_of_its_lagrangian_up_to_the_largest_price(problem, task):
    model, controller, learner = problem
    method = Sgps(SgpsSettings(price=PriceSettings(start=0.1, rate=0.01, largest=2.0)))
    duals = jnp.linspace(0.1, 0.5, task.horizon)
    done = agreement(model, controller, learner)

    def lagrangian(prices):
        centred = model.centred(controller)
        kl = kl_per_step(centred, model.centred(learner), model.marginals(centred))
        return model.expected_cost(controller) + (prices * kl).sum()

    new, metrics = method.pull_back(done, condition(model, learner), duals, jnp.asarray(True))
    np.testing.assert_allclose(new, jnp.minimum(duals + 0.01 * jax.grad(lagrangian)(duals), 2.0), rtol=1e-4)
    assert (new > duals).all()
    np.testing.assert_allclose(metrics["violation"], done.kl.mean(), rtol=1e-5)
    actions, precisions, weights = method.targets(controller, duals, model.xs[None, :-1])
    np.testing.assert_allclose(actions[0], controller.means(model.xs[:-1]), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(precisions, controller.precision)
    np.testing.assert_array_equal(weights, duals)


def stationary(T):
    """A linear-quadratic problem whose best controller is the same at all times, and its gains; float64."""
    rng = np.random.default_rng(2)
    A = np.eye(3) + 0.2 * rng.normal(size=(3, 3))
    B = rng.normal(size=(3, 2))
    Q, R = np.diag([1.0, 0.5, 0.2]), np.diag([0.3, 0.6])
    P = Q
    for _ in range(2000):
        K = -np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ A + A.T @ P @ B @ K
    H = np.block([[Q, np.zeros((3, 2))], [np.zeros((2, 3)), R]])

    def along(matrix):
        return jnp.broadcast_to(jnp.asarray(matrix), (T, *np.shape(matrix)))

    dynamics = LinearDynamics(along(A), along(B), jnp.zeros((T, 3)), along(1e-4 * np.eye(3)))
    zero = jnp.zeros(())
    cost = QuadraticCost(along(H), jnp.zeros((T, 5)), jnp.zeros(T), jnp.asarray(P), jnp.zeros(3), zero)
    initial = Gaussian(jnp.array([1.0, -0.5, 0.3]), 0.3 * jnp.eye(3))
    return LocalModel(jnp.zeros((T + 1, 3)), jnp.zeros((T, 2)), initial, dynamics, cost), K


def regressed(xs, actions, precisions, weights):
    """A linear learner, the same at all times, by weighted least squares; its noise does not fall below a floor."""
    T = xs.shape[1]
    seen = np.concatenate([xs, np.ones((*xs.shape[:2], 1))], axis=-1)
    metric = weights[:, None, None] * precisions
    left = np.einsum("ntx,nty,tuv->uxvy", seen, seen, metric).reshape(8, 8)
    right = np.einsum("ntx,tuv,ntv->ux", seen, metric, actions).reshape(8)
    theta = np.linalg.solve(left, right).reshape(2, 4)
    rows = (theta[:, :3], theta[:, 3], 0.3 * np.eye(2))
    return LinearGaussian(*(jnp.broadcast_to(jnp.asarray(a), (T, *a.shape)) for a in rows))


METHODS = {
    "badmm": Badmm(BadmmSettings(penalty=PenaltySettings(start=0.01, rule="fixed"))),
    "mdgps": Mdgps(MdgpsSettings()),
    "dgps": Dgps(DgpsSettings(penalty=1.0, rate=1.0)),
    "sgps": Sgps(SgpsSettings(price=PriceSettings(start=0.1, rate=1e-3, largest=0.2))),
}


@pytest.mark.parametrize(("name", "left"), [("badmm", 2e-5), ("dgps", 1e-6), ("mdgps", 1e-6), ("sgps", 1e-6)])
def test_a_linear_learner_ends_with_the_gains_of_the_lqr(name, left):
    """It can be what the best controllers are: there the constraint costs nothing. `badmm` comes there the slowest."""
    T, method = 12, METHODS[name]
    with jax.enable_x64(True):
        model, K = stationary(T)
        draws = np.random.default_rng(0).normal(size=(20, T, 3))
        learner = LinearGaussian(jnp.zeros((T, 2, 3)), jnp.zeros((T, 2)), jnp.broadcast_to(jnp.eye(2), (T, 2, 2)))
        controller, duals = learner, method.start(learner)
        improve = jax.jit(method.improve)
        for _ in range(60):
            reference = learner if method.learner_leads else controller
            step = improve(condition(model, learner, reference), duals)
            assert bool(step.solved)
            controller = step.controller
            states = model.marginals(controller)
            spread = np.linalg.cholesky(np.asarray(states.cov[:-1]))
            xs = np.asarray(states.mean[:-1]) + np.einsum("txy,nty->ntx", spread, draws)
            learner = regressed(xs, *map(np.asarray, method.targets(controller, duals, jnp.asarray(xs))))
            duals, _ = method.pull_back(
                agreement(model, controller, learner), condition(model, learner), duals, jnp.asarray(True)
            )
        np.testing.assert_allclose(learner.K[0], K, atol=left)
        np.testing.assert_allclose(controller.K, np.broadcast_to(K, (T, 2, 3)), atol=10 * left)
        np.testing.assert_allclose(learner.k[0], 0.0, atol=left)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="penalty must be positive, not 0"):
        DgpsSettings(penalty=0.0)
    with pytest.raises(ValueError, match=r"start must be above 0 and at most largest = 1\.0, not 2\.0"):
        PriceSettings(start=2.0, largest=1.0)
    assert dataclasses.asdict(DgpsSettings())["sampling"]["std_floor"] == 0.1
