"""Pytrees, compilation and batches of iLQR; in float64."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers import ilqr
from controllers.ilqr import Constraints, LeastSquares, Options


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


# --- pytrees -----------------------------------------------------------------------------------------------

LOW, HIGH = np.array([-1.0, -0.2]), np.array([0.6, 1.0])


def point(x, u, t, p):
    """Position and velocity in a plane; a push against friction, and a pull to the first axis."""
    force = u - p[0] * jnp.tanh(x[2:]) - jnp.stack([0.0, p[1]["pull"] * x[1]])
    return x + 0.2 * jnp.concatenate([x[2:], force])


def point_cost(x, u, t, p):
    return 0.1 * (u**2).sum() + 0.2 * ((x[:2] - jnp.array([1.0, -0.4])) ** 2).sum()


def tree_state(x):
    """With leaves of one and two axes, and a time axis before them where there is one."""
    return {"at": x[..., :2], "rate": (x[..., 2:3, None], x[..., 3:])}


def flat_state(x):
    return jnp.concatenate([x["at"], x["rate"][0][..., 0], x["rate"][1]], axis=-1)


def tree_action(u):
    return [u[..., 0], u[..., 1:]]


def flat_action(u):
    return jnp.concatenate([u[0][..., None], u[1]], axis=-1)


def tree_point(x, u, t, p):
    return tree_state(point(flat_state(x), flat_action(u), t, p))


def tree_point_cost(x, u, t, p):
    return point_cost(flat_state(x), flat_action(u), t, p)


def test_pytrees_give_the_solution_of_flat_arrays_in_their_structure():
    """x0, us, limits and params are trees, with leaves of several ranks."""
    x0, us, params = np.array([0.0, 0.5, -0.5, 0.3]), np.zeros((10, 2)), (np.array(0.3), {"pull": 0.4})
    flat = ilqr.solve(point, point_cost, x0, us, params=params, limits=(LOW, HIGH))
    tree = ilqr.solve(
        tree_point,
        tree_point_cost,
        tree_state(x0),
        tree_action(us),
        params=params,
        limits=(tree_action(LOW), tree_action(HIGH)),
    )
    assert ((flat.actions == LOW) | (flat.actions == HIGH)).any()
    for ours, theirs in ((tree.states, tree_state(flat.states)), (tree.actions, tree_action(flat.actions))):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_allclose(tree.K, flat.K, atol=1e-10)
    np.testing.assert_allclose(tree.k, flat.k, atol=1e-10)
    controller, x = tree.controller(), flat.states[3] + 0.1
    np.testing.assert_allclose(
        controller.act(3, x), flat.actions[3] + flat.K[3] @ (x - flat.states[3]), rtol=1e-9, atol=1e-10
    )


# --- compilation and batches --------------------------------------------------------------------------------

TRACED = []


def seen_residual(x, u, t):
    TRACED.append("cost")
    return jnp.concatenate([jnp.sin(x) + 0.2, u])


def seen_inequality(x, u, t):
    TRACED.append("inequality")
    return u - 0.5


def test_equal_functions_and_options_are_compiled_once():
    def solve(x0, us, **changed):
        constraints, options = Constraints(inequality=seen_inequality), Options(polish=0, **changed)
        return ilqr.solve(lean, LeastSquares(seen_residual), x0, us, constraints=constraints, options=options)

    first = solve(np.array([1.0]), np.zeros((3, 1)))
    count = len(TRACED)
    assert {"cost", "inequality"} == set(TRACED)
    second = solve(np.array([0.5]), np.ones((3, 1)))
    solve(jnp.array([0.5]), jnp.ones((3, 1)), penalty=1.0)  # the default
    assert len(TRACED) == count
    assert first.cost != second.cost


def lean(x, u, t):
    return 0.9 * x + u


def cosh(x, u, t):
    return jnp.cosh(x - 1.0).sum() + (u**2).sum()


@pytest.mark.parametrize("batching", ["sequential", "lockstep"])
def test_batch_is_the_same_as_one_by_one(batching):
    starts = np.array([[0.0], [3.0], [-8.0]])

    def solve(x0):
        return ilqr.solve(lean, cosh, x0, np.zeros((3, 1)), options=Options(batching=batching))

    together = jax.jit(jax.vmap(solve))(starts)
    for i, x0 in enumerate(starts):
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(solve(x0)), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-9, atol=1e-12)
    assert len(set(together.iterations.tolist())) > 1


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from controllers import ilqr
jax.config.update("jax_enable_x64", True)
assert len(jax.devices()) == 2
mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
options = ilqr.Options(batching="lockstep")
def solve(x0):
    cost = lambda x, u, t: jnp.cosh(x - 1.0).sum() + (u**2).sum()
    return ilqr.solve(lambda x, u, t: 0.9 * x + u, cost, x0, np.zeros((3, 1)), options=options)
starts = np.linspace(-3.0, 3.0, 4)[:, None]
together = jax.jit(jax.vmap(solve))(jax.device_put(starts, sharding))
assert len(together.actions.sharding.device_set) == 2
assert {s.data.shape for s in together.actions.addressable_shards} == {(2, 3, 1)}
alone = jax.jit(jax.vmap(solve))(starts)
np.testing.assert_allclose(together.actions, alone.actions, atol=1e-12)
np.testing.assert_allclose(together.K, alone.K, atol=1e-12)
"""


@pytest.mark.slow
def test_batch_may_be_spread_over_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env={**os.environ, **flags}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
