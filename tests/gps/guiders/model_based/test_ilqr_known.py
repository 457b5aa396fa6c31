"""`ilqr-known` on a cart: its models are the simulator's derivatives, from a single sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.carts import Cart
from support.model_based import LEARNER, START

from dynamics.known_model import known_dynamics
from gps.errors import UserError
from gps.guiders.model_based.badmm import BadmmSettings, badmm
from gps.guiders.model_based.ilqr_known import ilqr_known, ilqr_known_settings
from gps.guiders.model_based.settings import LocalModelSettings, SamplingSettings

ONE = SamplingSettings(samples=1)
KNOWN = LocalModelSettings(prior="known")


def settings(**changes):
    return BadmmSettings(rounds=1, start=START, learner=LEARNER, **changes)


def test_its_models_are_exact_from_one_sample():
    task = Cart()
    guider = ilqr_known(task, settings(sampling=ONE, local_model=KNOWN))
    state = jax.jit(guider.init)(jax.random.key(0))
    samples = jax.jit(guider.collect)(state, jax.random.key(1))
    _, prepared, _ = jax.jit(guider.prepare)(state, samples)
    step = known_dynamics(task.simulator)
    x, u, h = np.asarray(samples.xs[1, 0, 2]), np.asarray(samples.us[1, 0, 2]), 1e-2
    A = [(step(x + h * e, u, 0) - step(x - h * e, u, 0)) / (2 * h) for e in np.eye(2, dtype=np.float32)]
    fitted = jax.tree.map(lambda leaf: leaf[1], prepared.models.dynamics)
    np.testing.assert_allclose(fitted.A[2], np.stack(A, axis=1), atol=1e-4)
    np.testing.assert_allclose(fitted.B[2][:, 0], (step(x, u + h, 0) - step(x, u - h, 0)) / (2 * h), atol=1e-4)
    assert bool(jnp.all(prepared.evidence.faithful))


def test_fitted_dynamics_are_refused():
    for task_settings in (settings(sampling=ONE), settings(local_model=LocalModelSettings(prior="pooled"))):
        with pytest.raises(UserError, match=r"prior = '(mixture|pooled)' is not for 'ilqr-known'.*the guider 'badmm'"):
            ilqr_known(Cart(), task_settings)
    assert ilqr_known_settings().local_model.prior == "known"


def test_fitted_dynamics_need_two_samples():
    with pytest.raises(UserError, match=r"guider.sampling.samples = 1: .* at least 2, or .*prior = 'known'"):
        badmm(Cart(), settings(sampling=ONE))
    assert badmm(Cart(), settings(sampling=ONE, local_model=KNOWN)).name == "badmm"
