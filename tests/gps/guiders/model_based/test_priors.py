"""Priors of local dynamics by name: what each one is in a guider, and what hard data leave of it."""

from __future__ import annotations

import copy
import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from support.model_based import small_guider

from dynamics.engines import make_simulator
from dynamics.known_model import jacobians
from dynamics.parameters import misjudged
from gps.errors import UserError
from gps.guiders.model_based import local_model, priors
from gps.guiders.model_based.deviations import Deviations
from gps.guiders.model_based.settings import LocalModelSettings

NAMES = sorted(priors.PRIORS)


@pytest.fixture(scope="module")
def collected(task):
    """Samples of the first iteration, of which one in every condition does not count."""
    guider = small_guider("badmm", task, "sampling.samples=4", "start.std=0.3")
    samples = jax.jit(guider.collect)(guider.init(jax.random.key(0)), jax.random.key(1))
    return dataclasses.replace(samples, weights=samples.weights.at[:, 3].set(0.0))


@pytest.fixture(scope="module")
def fits(task):
    """Of each prior: its state, and fit(samples, state)."""

    def compiled(name):
        settings = LocalModelSettings(prior=name)
        prior = priors.make(task, settings)
        return prior.init(), jax.jit(lambda s, state: local_model.fit(task, s, settings, prior, state))

    return {name: compiled(name) for name in NAMES}


def true_derivatives(task, samples):
    xs, us = (jnp.einsum("mn,mnti->mti", samples.share, a) for a in (samples.xs, samples.us))
    return jax.vmap(lambda x, u: jacobians(task.simulator, x[:-1], u))(xs, us)


def test_the_known_prior_has_the_derivatives_of_the_simulator(task, collected, fits):
    state, fit = fits["known"]
    dynamics = fit(collected, state)[0].models.dynamics
    A, B = true_derivatives(task, collected)
    np.testing.assert_allclose(dynamics.A, A, atol=1e-3)
    np.testing.assert_allclose(dynamics.B, B, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_each_prior_leads_to_the_effects_of_the_actions(task, collected, fits, name):
    """Three samples that count, nx + nu = 6: after two iterations B is right within a quarter by any prior."""
    state, fit = fits[name]
    _, B = true_derivatives(task, collected)
    for _ in range(2):
        fitted, state = fit(collected, state)
    error = np.linalg.norm(fitted.models.dynamics.B - B, axis=(2, 3)) / np.linalg.norm(B, axis=(2, 3))
    assert np.median(error) < 0.25
    assert (fitted.error < 0.3).all()
    allowed = (local_model.CERTAIN,) if name == "known" else local_model.STRENGTHS
    assert np.isin(np.asarray(fitted.strength), np.float32(allowed)).all()


HARD = {
    "one sample": lambda s: dataclasses.replace(s, weights=jnp.zeros_like(s.weights).at[:, 0].set(1.0)),
    "identical samples": lambda s: dataclasses.replace(
        s, xs=jnp.broadcast_to(s.xs[:, :1], s.xs.shape), us=jnp.broadcast_to(s.us[:, :1], s.us.shape)
    ),
    "a dimension that is constant": lambda s: dataclasses.replace(s, xs=s.xs.at[..., 1].set(3.0)),
    "an action that is constant": lambda s: dataclasses.replace(s, us=s.us.at[..., 1].set(0.3)),
    "a dimension of scale 1e6": lambda s: dataclasses.replace(s, xs=s.xs.at[..., 2].multiply(1e6)),
    "a jump in half of the samples": lambda s: dataclasses.replace(s, xs=s.xs.at[:, ::2, 3:, 2:].add(5.0)),
    "a condition without samples": lambda s: dataclasses.replace(s, weights=s.weights.at[0].set(0.0)),
}


@pytest.mark.parametrize("what", HARD)
@pytest.mark.parametrize("name", NAMES)
def test_hard_data_leave_usable_dynamics(collected, fits, name, what):
    """Everything is finite, no noise is negative, and A and B are of the size that the data or the physics have."""
    samples, (state, fit) = HARD[what](collected), fits[name]
    for _ in range(2):
        fitted, state = fit(samples, state)
    dynamics = fitted.models.dynamics
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((dynamics, state)))
    units = jnp.where(jnp.arange(4) == 2, 1e6 if "1e6" in what else 1.0, 1.0)
    assert np.abs(dynamics.A * units / units[:, None]).max() < 100.0
    cov = dynamics.cov / np.outer(units, units)
    scale = np.abs(cov).max((2, 3), keepdims=True) + 1e-30
    assert np.linalg.eigvalsh(cov / scale).min() > -1e-4


def test_the_error_of_prediction_is_of_samples_that_were_left_out(task, collected):
    """A median of ratios of lengths, in units of each dimension's root mean square change."""
    rng = np.random.default_rng(0)
    errors = jnp.asarray(rng.normal(size=(3, 4, task.horizon, 4)), jnp.float32)
    ours = local_model.prediction_error(errors, collected)
    changes = np.diff(np.asarray(collected.xs), axis=2)[:, :3]
    scale = np.sqrt((changes**2).mean((0, 1, 2)))
    ratios = np.linalg.norm(errors[:, :3] / scale, axis=-1) / np.linalg.norm(changes / scale, axis=-1)
    np.testing.assert_allclose(ours, np.median(ratios.reshape(3, -1), axis=1), rtol=1e-5)


def test_a_known_prior_needs_the_state_of_the_simulator(task):
    class Folded:
        """Controllers that see the angles alone."""

        nx = 2

        def __getattr__(self, name):
            return getattr(task, name)

        def control_state(self, state):
            return task.control_state(state)[:2]

    with pytest.raises(
        UserError, match=r"prior = 'known': .* has another `control_state`: take 'window', 'mixture' or"
    ):
        priors.make(Folded(), LocalModelSettings(prior="known"))


class Misjudged:
    """A task whose known model is off by 30 %."""

    def __init__(self, task):
        self.task = task
        model = misjudged(task.simulator.model, 0.3)
        self.known = make_simulator(model, task.simulator.substeps, "mujoco")

    def __getattr__(self, name):
        return getattr(self.task, name)


def test_parameters_are_identified_where_the_known_model_is_off(task, collected):
    """The known model's derivatives stay off; the identified one's become those of the simulator."""
    off, (A, B) = Misjudged(task), true_derivatives(task, collected)
    true = np.concatenate([A - np.eye(4), B], axis=-1)
    xs, us = (jnp.einsum("mn,mnti->mti", collected.share, a) for a in (collected.xs, collected.us))
    around = Deviations(xs, us, jnp.zeros((*collected.us.shape[:-1], 10)), collected.weights)
    errors = {}
    for name in ("known", "identified"):
        prior = priors.make(off, LocalModelSettings(prior=name))
        state, update = prior.init(), jax.jit(prior.update)
        for _ in range(3):
            state = update(state, collected)
        slope = prior.around(state, collected, around).slope
        errors[name] = np.linalg.norm(slope - true, axis=(2, 3)) / np.linalg.norm(true, axis=(2, 3))
    assert errors["known"].min() > 0.1
    assert errors["identified"].max() < 0.01


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("body_mass:uper",), "prior = 'identified': .*'body_mass:uper'; did you mean 'body_mass:upper'"),
        (("dof_armature:elbow",), "'dof_armature:elbow' is 0 in the model"),
    ],
)
def test_a_parameter_that_the_model_does_not_have_is_refused(task, names, message):
    with pytest.raises(UserError, match=message):
        priors.make(task, LocalModelSettings(prior="identified", identify=names))


@pytest.mark.parametrize("name", ["known", "identified"])
def test_a_model_without_derivatives_is_refused(task, name):
    class Precise:
        """An arm that takes an integrator which MuJoCo does not differentiate."""

        def __init__(self):
            model = copy.deepcopy(task.simulator.model)
            model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
            self.simulator = self.known = make_simulator(model, 2, "mujoco")

        def __getattr__(self, name):
            return getattr(task, name)

    with pytest.raises(UserError, match=f"prior = '{name}': .*RK4: use Euler or implicitfast.* or take 'window'"):
        priors.make(Precise(), LocalModelSettings(prior=name))


def test_a_task_without_a_model_is_refused(task):
    class Plant:
        name, simulator = "plant", object()

    with pytest.raises(UserError, match=r"prior = 'known': task plant has no MuJoCo model.* take 'window'"):
        priors.make(Plant(), LocalModelSettings(prior="known"))


def test_names_go_with_the_identified_prior_alone():
    with pytest.raises(ValueError, match="identify goes with prior = 'identified' and with no other, which is 'known'"):
        LocalModelSettings(prior="known", identify=("body_mass:*",))
