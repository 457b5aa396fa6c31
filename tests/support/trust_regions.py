"""Calls of the trust-region step, compiled once for all of its tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from controllers import trust_region
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost


def parts_of(problem, reference):
    """Dynamics, cost, initial state and reference as the classes under test."""
    kinds = (LinearDynamics, QuadraticCost, Gaussian, LinearGaussian)
    return tuple(
        kind(*(jnp.asarray(np.asarray(a)) for a in fields))
        for kind, fields in zip(kinds, (*problem, reference), strict=True)
    )


@functools.partial(jax.jit, static_argnames="options")
def compiled(parts, limit, entropy_weight, eta, options=None):
    dynamics, cost, initial, reference = parts
    settings = {"entropy_weight": entropy_weight, "eta": eta, "options": options}
    return trust_region.solve(dynamics, cost, reference, limit, initial, **settings)


solve_all = jax.jit(jax.vmap(compiled))


def solve(parts, limit, entropy_weight=0.0, eta=1.0, options=None):
    """One problem; arrays alone are passed on, so that no two calls compile the same thing."""
    as_given = (jnp.asarray(a, parts[3].k.dtype) for a in (limit, entropy_weight, eta))
    return compiled(parts, *as_given, options=options)


def stack(members):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def numbers(controller, index=...):
    """K, k, chol in double precision."""
    return [np.asarray(a[index], np.float64) for a in (controller.K, controller.k, controller.chol)]


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
