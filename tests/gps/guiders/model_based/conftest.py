"""Guiders that were trained for a few iterations, and their compiled parts."""

import jax
import pytest
from support.model_based import METHODS, SMALL, iterate, small_guider

from gps.tasks.mujoco.reacher import Reacher, ReacherSettings


@pytest.fixture(scope="session")
def task():
    return Reacher(ReacherSettings(**SMALL), "mujoco")


@pytest.fixture(scope="session")
def trained_methods(task):
    """Of each method: the guider, its states, its metrics, the programs (collect, update)."""
    guiders = {name: small_guider(name, task) for name in METHODS}
    return {name: (guider, *iterate(guider, 3)) for name, guider in guiders.items()}


@pytest.fixture(scope="session")
def phases_of_methods(trained_methods):
    """Of each method: prepare, improve."""
    guiders = {name: trained[0] for name, trained in trained_methods.items()}
    return {name: (jax.jit(guider.prepare), jax.jit(guider.improve)) for name, guider in guiders.items()}


@pytest.fixture(params=sorted(METHODS))
def name(request):
    return request.param


@pytest.fixture
def trained(name, trained_methods):
    return trained_methods[name]


@pytest.fixture
def phases(name, phases_of_methods):
    return phases_of_methods[name]
