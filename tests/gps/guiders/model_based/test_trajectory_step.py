"""Limits of the actions in a step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from support.model_based import made_up

from gps.guiders.model_based.trajectory_step import within_limits


def test_mean_actions_are_inside_the_limits_along_the_trajectory_that_they_lead_to(task):
    """Against a loop in numpy; feedback and noise stay, and a controller inside its limits stays as it is."""
    models, controllers = made_up(task, [3])[2:]
    model, controller = (jax.tree.map(lambda a: a[0], tree) for tree in (models, controllers))
    kept = within_limits(model, controller)
    dx, cut, d = np.asarray(model.initial.mean), 0, model.dynamics
    for t, u in enumerate(model.us):
        x = np.asarray(model.xs[t]) + dx
        wanted = np.asarray(controller.K[t] @ x + controller.k[t])
        applied = np.clip(wanted, -1.0, 1.0)
        cut += int((wanted != applied).any())
        np.testing.assert_allclose(kept.K[t] @ x + kept.k[t], applied, rtol=1e-4, atol=1e-4)
        dx = np.asarray(d.A[t] @ dx + d.B[t] @ (applied - np.asarray(u)) + d.c[t])
    assert 0 < cut < len(model.us)
    np.testing.assert_array_equal(kept.K, controller.K)
    np.testing.assert_array_equal(kept.chol, controller.chol)
    calm = dataclasses.replace(controller, K=0.0 * controller.K, k=0.5 * jnp.ones_like(controller.k))
    np.testing.assert_array_equal(within_limits(model, calm).k, calm.k)
