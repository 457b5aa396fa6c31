"""A batch of problems on several devices, along an explicit axis of a mesh: each device solves its own."""

from __future__ import annotations

import sys

import pytest
from support.processes import finished

CODE = """
import jax, jax.numpy as jnp, numpy as np
from controllers import ilqr

def dynamics(x, u, t, params):
    velocity = x[1] + 0.05 * (params[0] * jnp.sin(x[0]) + u[0])
    return jnp.array([x[0] + 0.05 * velocity, velocity])

def one(x0, limits, params):
    solution = ilqr.solve(dynamics, lambda x, u, t, params: 0.01 * u @ u + 0.1 * (x @ x), x0, jnp.zeros((15, 1)),
                          final_cost=lambda x, params: 10.0 * (x @ x), limits=limits, params=params,
                          options=ilqr.Options(batching=BATCHING))
    return solution.actions, solution.cost

starts = jnp.stack([jnp.array([3.0 - 0.2 * i, 0.0]) for i in range(8)])
limits, gravity = (jnp.array([-8.0]), jnp.array([8.0])), jnp.array([9.81])
solve = jax.jit(jax.vmap(one, in_axes=(0, None, None)))
slope = jax.jit(jax.vmap(jax.grad(lambda x, l, p: one(x, l, p)[1], argnums=2), in_axes=(0, None, None)))
wanted, slopes = solve(starts, limits, gravity), slope(starts, limits, gravity)
mesh = jax.make_mesh((4,), ("batch",))
with jax.set_mesh(mesh):
    shared = jax.device_put(starts, jax.NamedSharding(mesh, jax.P("batch")))
    actions, cost = solve(shared, limits, gravity)
    own = (jax.P("batch"), jax.P(), jax.P())
    derivative = jax.shard_map(slope, in_specs=own, out_specs=jax.P("batch"), check_vma=False)(shared, limits, gravity)
print(actions.sharding.spec[0], actions.addressable_shards[0].data.shape[0])
np.testing.assert_allclose(actions, wanted[0], atol=1e-5)
np.testing.assert_allclose(cost, wanted[1], rtol=1e-5)
np.testing.assert_allclose(derivative, slopes, rtol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["sequential", "lockstep"])
def test_each_device_solves_its_part_of_a_batch(batching):
    flags = "--xla_force_host_platform_device_count=4"
    done = finished(sys.executable, "-c", CODE.replace("BATCHING", repr(batching)), XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["batch", "2"]
