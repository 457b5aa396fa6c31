"""Local models of samples against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from support import oracles
from support.model_based import made_up

from controllers.expand import LeastSquares
from gps.guiders.model_based import local_model, priors
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.settings import LocalModelSettings


def fit(task, samples, settings):
    """The local models of the first iteration."""
    prior = priors.make(task, settings)
    fitted, _ = jax.jit(lambda s: local_model.fit(task, s, settings, prior, prior.init()))(samples)
    return fitted.models


def test_the_expected_cost_of_a_controller(task):
    problems, references, models, absolute = made_up(task, (0, 1))
    expected = [oracles.expected_path_cost(p, c) for p, c in zip(problems, references, strict=True)]
    np.testing.assert_allclose(jax.vmap(LocalModel.expected_cost)(models, absolute), expected, rtol=1e-4)


def test_the_dynamics_of_a_linear_system_are_found_and_centred_on_the_samples(task, trained_methods):
    """x' = A x + B u + c without noise, many samples: the prior's share vanishes."""
    states = trained_methods["badmm"][1]
    rng = np.random.default_rng(0)
    N, T, nx, nu = 60, task.horizon, task.nx, task.nu
    A, B, c = 0.9 * np.eye(nx) + 0.1 * rng.normal(size=(nx, nx)), rng.normal(size=(nx, nu)), rng.normal(size=nx)
    xs, us = [rng.normal(size=(3, N, nx))], rng.normal(size=(3, N, T, nu))
    for t in range(T):
        xs.append(xs[-1] @ A.T + us[:, :, t] @ B.T + c)
    template = jax.tree.map(lambda a: jnp.zeros((3, N, *a.shape[2:]), a.dtype), states[1].samples)
    samples = dataclasses.replace(
        template,
        xs=jnp.asarray(np.stack(xs, 2), jnp.float32),
        us=jnp.asarray(us, jnp.float32),
        weights=jnp.ones((3, N)).at[:, 0].set(0.0),
    )
    model = fit(task, samples, LocalModelSettings())
    np.testing.assert_allclose(model.dynamics.A, np.broadcast_to(A, model.dynamics.A.shape), atol=0.02)
    np.testing.assert_allclose(model.dynamics.B, np.broadcast_to(B, model.dynamics.B.shape), atol=0.02)
    np.testing.assert_allclose(model.xs, np.stack(xs, 2)[:, 1:].mean(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.dynamics.c, 0.0, atol=0.05)  # in deviations


def test_the_cost_is_the_mean_expansion_and_least_squares_are_expanded_by_gauss_and_newton(task, trained_methods):
    """For a residual r(x, u) with curvature, H = mean of J'J over the samples, and never indefinite."""
    _, _, _, (collect, _) = trained_methods["badmm"]
    samples = collect(trained_methods["badmm"][1][0], jax.random.key(12))

    def residual(x, u, t, context):
        return jnp.stack([x[0] ** 2 - 4.0, u[0] * x[1], context[0] + u[1]])

    cost, final = LeastSquares(residual), LeastSquares(lambda x, context: x[:2] ** 2)
    squares = Costed(task, cost, final)
    plain = Costed(task, lambda *args: cost(*args), lambda *args: final(*args))
    settings = LocalModelSettings(hessian="exact")
    model, exact = (fit(t, samples, settings) for t in (squares, plain))

    m, t = 1, 3
    zs = np.concatenate([samples.xs[m, :, t], samples.us[m, :, t]], axis=1)
    J = [
        np.array([[2 * z[0], 0, 0, 0, 0, 0], [0, z[4], 0, 0, z[1], 0], [0, 0, 0, 0, 0, 1.0]])
        for z in np.asarray(zs, float)
    ]
    np.testing.assert_allclose(model.cost.H[m, t], np.mean([j.T @ j for j in J], axis=0), atol=1e-4)
    assert np.linalg.eigvalsh(model.cost.H).min() > -1e-4
    assert np.linalg.eigvalsh(exact.cost.H).min() < -1.0  # r'' r is negative where x0^2 < 4


class Costed:
    """A task with another cost."""

    def __init__(self, task, cost, final_cost):
        self._task, self.cost, self.final_cost = task, cost, final_cost

    def __getattr__(self, name):
        return getattr(self._task, name)
