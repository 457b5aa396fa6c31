"""BADMM's formulas against direct evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_based import made_up, random_controller

from gps.guiders.model_based.badmm import Badmm, BadmmSettings, Duals, augmented
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.method import Agreement, Condition
from gps.guiders.model_based.penalty import MultiplierSettings, PenaltySettings

RATE, BOUND = 0.3, 2.0


@pytest.fixture(scope="module")
def method():
    multipliers = MultiplierSettings(rate=RATE, gain_rate=0.1, bound=BOUND)
    return Badmm(BadmmSettings(multipliers=multipliers, penalty=PenaltySettings(rule="fixed")))


@pytest.fixture(scope="module")
def problem(task):
    """A local model, and duals, a controller and a learner in absolute coordinates."""
    _, _, models, absolute = made_up(task, (0, 1))
    model, controller = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (models, absolute))
    rng = np.random.default_rng(4)
    draw = 0.1 * rng.normal(size=(task.horizon, task.nu, task.nx)), rng.normal(size=(task.horizon, task.nu))
    duals = Duals(*(jnp.asarray(a, jnp.float32) for a in (*draw, rng.uniform(0.1, 0.4, task.horizon))))
    return model, duals, controller, random_controller(3, task.horizon, task.nx, task.nu)


def test_augmented_cost_is_cost_minus_multipliers_plus_penalty(problem, task):
    model, duals, _, learner = problem
    rng = np.random.default_rng(4)
    dx, du = (0.1 * rng.normal(size=(task.horizon, n)).astype(np.float32) for n in (task.nx, task.nu))
    dz = np.concatenate([dx, du], axis=1)

    def value(cost):
        return 0.5 * np.einsum("ti,tij,tj->t", dz, cost.H, dz) + (np.asarray(cost.g) * dz).sum(1)

    def rest(xs, us):
        push = np.einsum("tux,tx->tu", duals.gain, xs) + duals.offset
        return -np.einsum("tu,tu->t", us, push) - duals.rho * learner.log_prob(jnp.asarray(xs), jnp.asarray(us))

    expected = value(model.cost) + rest(model.xs[:-1] + dx, model.us + du) - rest(model.xs[:-1], model.us)
    np.testing.assert_allclose(value(augmented(model, learner, duals)), expected, rtol=2e-3, atol=2e-3)


def test_learner_targets_minimise_the_lagrangian(problem, method, task):
    _, duals, controller, _ = problem
    xs = jnp.asarray(np.random.default_rng(5).normal(size=(3, task.horizon, task.nx)), jnp.float32)
    actions, precisions, weights = method.targets(controller, duals, xs)
    np.testing.assert_array_equal(weights, duals.rho)

    def lagrangian(u, t, x):
        """What the learner's mean action u costs: 1/2 rho (u - Kx - k)' C^-1 (u - Kx - k) + u' lambda(x)."""
        white = jnp.linalg.solve(controller.chol[t], u - controller.act(t, x))
        return 0.5 * duals.rho[t] * (white @ white) + u @ (duals.gain[t] @ x + duals.offset[t])

    for n, t in ((0, 0), (2, 3), (1, 5)):
        gradient = jax.grad(lagrangian)(actions[n, t], t, xs[n, t])
        elsewhere = jax.grad(lagrangian)(actions[n, t] + 0.1, t, xs[n, t])
        assert jnp.linalg.norm(gradient) < 1e-3 * jnp.linalg.norm(elsewhere)
        hessian = jax.hessian(lagrangian)(actions[n, t], t, xs[n, t])
        np.testing.assert_allclose(hessian / duals.rho[t], precisions[t], rtol=1e-3, atol=1e-2)


def pulled_back(method, problem, scale):
    """Duals after one step where the learner's action differs by `scale` times a random one, from controller - 0.

    Both in absolute coordinates, with the state and action that the model is centred on at zero.
    """
    model, _, controller, learner = problem
    centred = jax.tree.map(jnp.zeros_like, (model.xs, model.us))
    model = dataclasses.replace(model, xs=centred[0], us=centred[1])
    other = dataclasses.replace(learner, k=controller.k - scale * learner.k, K=controller.K - scale * learner.K)
    T = len(controller.k)
    start = Duals(jnp.zeros_like(controller.K), jnp.full_like(controller.k, 0.01), jnp.linspace(0.1, 0.5, T))
    agreement = Agreement(controller, other, jnp.full(T, 0.2))
    condition = Condition(model, None, other, None, None, None)  # pyright: ignore[reportArgumentType]
    duals, metrics = method.pull_back(agreement, condition, start, jnp.asarray(True))
    return start, duals, metrics, learner


def test_multipliers_step_by_the_formula_until_they_meet_their_bound(method, problem):
    chol = np.asarray(problem[2].chol, float)
    precision = np.linalg.inv(chol @ chol.swapaxes(-1, -2))
    start, duals, metrics, difference = pulled_back(method, problem, 0.1)
    weight = np.asarray(start.rho, float)
    offset = start.offset - RATE * weight[:, None] * np.einsum("tuv,tv->tu", precision, 0.1 * difference.k)
    gain = -0.1 * weight[:, None, None] * precision @ (0.1 * np.asarray(difference.K))
    np.testing.assert_allclose(duals.offset, offset, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(duals.gain, gain, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(duals.rho, start.rho)
    np.testing.assert_allclose(metrics["lambda_norm"], np.sqrt((offset**2).sum(-1).mean()), rtol=1e-3)

    _, far, _, _ = pulled_back(method, problem, 1e6)
    whitened = np.einsum("tvu,tv->tu", chol, far.offset) / weight[:, None]
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=-1), BOUND, rtol=1e-3)


def test_multipliers_and_penalties_that_are_switched_off_stay_what_they_are(problem, task):
    off = Badmm(BadmmSettings(multipliers=MultiplierSettings(rate=0.0, gain_rate=0.0)))
    start, duals, _, _ = pulled_back(off, problem, 0.1)
    np.testing.assert_array_equal(duals.gain, start.gain)
    np.testing.assert_array_equal(duals.offset, start.offset)
    # the "ratio" rule: the KL of 0.2 nats is twice the target, and the weights settle only where they may
    np.testing.assert_allclose(duals.rho, start.rho * np.sqrt(2.0), rtol=1e-5)


def test_the_improvement_is_the_augmented_cost_within_the_limit(method, problem, task):
    """A huge limit gives the minimiser of the augmented cost with entropy: no other controller does better."""
    model, duals, reference, learner = problem
    condition = Condition(model, None, learner, reference, jnp.asarray(1e3), jnp.asarray(1.0))  # pyright: ignore
    step = jax.jit(method.improve)(condition, duals)
    assert bool(step.solved)
    cost = dataclasses.replace(model, cost=augmented(model, learner, duals))

    def lagrangian(controller):
        entropy = jnp.log(jnp.diagonal(controller.chol, axis1=-2, axis2=-1)).sum(-1)
        return LocalModel.expected_cost(cost, controller) - duals.rho @ entropy

    found = float(lagrangian(step.controller))
    rng = np.random.default_rng(0)
    for size in (1e-2, -1e-2):
        k = step.controller.k + size * jnp.asarray(rng.normal(size=step.controller.k.shape), jnp.float32)
        K = step.controller.K + size * jnp.asarray(rng.normal(size=step.controller.K.shape), jnp.float32)
        for changed in ({"k": k}, {"K": K}, {"chol": (1 + size) * step.controller.chol}):
            assert float(lagrangian(dataclasses.replace(step.controller, **changed))) > found - 1e-4 * abs(found)
