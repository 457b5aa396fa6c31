"""Small model-based guiders, a loop around them, and made-up problems as numpy and as guiders have them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from gps.guiders.learner import NetworkSettings
from gps.guiders.model_based.badmm import BadmmSettings, badmm
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.mdgps import MdgpsSettings, mdgps
from gps.guiders.model_based.settings import SamplingSettings, TaughtLearnerSettings
from gps.guiders.model_based.start import StartSettings
from gps.settings import from_dict as settings_from
from gps.settings import override, to_dict
from policies import regression
from support import oracles

SMALL: dict[str, Any] = {"horizon": 6, "train_targets": 3, "test_targets": 4}  # of the arm
NETWORK = NetworkSettings(hidden=(8,))
LEARNER = TaughtLearnerSettings(NETWORK, regression.Settings(updates=6, batch_size=16))
START = StartSettings(controller="zero")
METHODS = {
    "badmm": (badmm, BadmmSettings(rounds=2, start=START, sampling=SamplingSettings(samples=3), learner=LEARNER)),
    "mdgps": (mdgps, MdgpsSettings(start=START, sampling=SamplingSettings(samples=3, by="learner"), learner=LEARNER)),
}


def small_guider(name, task, *changes):
    """A guider of few samples and a small learner, with settings such as "sampling.by=learner" changed."""
    make, settings = METHODS[name]
    return make(task, settings_from(type(settings), override(to_dict(settings), changes), "guider"))


def iterate(guider, count, seed=0):
    """Run a guider for some iterations; the states, the metrics and the two compiled programs."""
    key = jax.random.key(seed)
    collect, step = jax.jit(guider.collect), jax.jit(guider.update)
    states, rows = [jax.jit(guider.init)(jax.random.fold_in(key, 1000))], []
    for i in range(count):
        collecting, updating = jax.random.split(jax.random.fold_in(key, i))
        state, metrics = step(states[-1], collect(states[-1], collecting), updating)
        states.append(state)
        rows.append(metrics)
    return states, rows, (collect, step)


def changed(state, **values):
    """`dataclasses.replace` by arrays of the types that are there: for others a program would be compiled anew."""

    def alike(old, new):
        return jnp.asarray(np.asarray(new, old.dtype))

    values = {name: jax.tree.map(alike, getattr(state, name), value) for name, value in values.items()}
    return dataclasses.replace(state, **values)


def acted_otherwise(samples, *conditions):
    """The samples, but with actions that neither controller nor learner took: no model of them fits these two."""
    us = np.array(samples.us)
    us[list(conditions)] += 10.0
    return changed(samples, us=us)


def all_finite(tree) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def random_controller(seed, T, nx, nu):
    return LinearGaussian(*(jnp.asarray(a, jnp.float32) for a in oracles.random_controller(seed, T, nx, nu)))


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, jnp.float32) for leaf in leaves]), *trees)


def made_up(task, seeds):
    """Linear-quadratic problems and controllers as numpy has them, and both as a guider has them."""
    problems = [oracles.random_problem(seed, task.horizon, task.nx, task.nu) for seed in seeds]
    controllers = [oracles.random_controller(seed, task.horizon, task.nx, task.nu) for seed in seeds]
    models, absolute = [], []
    for seed, problem, (K, k, chol) in zip(seeds, problems, controllers, strict=True):
        rng = np.random.default_rng(seed)
        xs, us = rng.normal(size=(task.horizon + 1, task.nx)), rng.normal(size=(task.horizon, task.nu))
        parts: Any = Gaussian(*problem.initial), LinearDynamics(*problem.dynamics), QuadraticCost(*problem.cost)
        centre: Any = xs, us
        models.append(LocalModel(*centre, *parts))
        controller: Any = K, k + us - np.einsum("tux,tx->tu", K, xs[:-1]), chol
        absolute.append(LinearGaussian(*controller))
    return problems, controllers, stack(models), stack(absolute)


def in_deviations(model, controller):
    """K, k, chol of one condition in the deviations that `made_up` states its problems in."""
    xs, us, K, k, chol = (
        np.asarray(leaf, np.float64) for leaf in (model.xs, model.us, controller.K, controller.k, controller.chol)
    )
    return K, k + np.einsum("tux,tx->tu", K, xs[:-1]) - us, chol
