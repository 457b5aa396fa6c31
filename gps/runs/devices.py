"""One run on several devices of a machine: conditions or environments are shared among them, all else is everywhere.

The partitioner of XLA carries the sharing through an iteration: an array of the guider's state whose first axis is as
long as its batch is split along it, and each device simulates, fits and improves its part. Sums over the batch, such as
the learner's gradients, are made across devices.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gps.guiders.guider import Guider
from gps.settings import SettingsError

AXIS = "batch"


def mesh_of(guider: Guider, devices: int) -> Mesh:
    """The first `devices` devices.

    Errors:
        SettingsError where there are fewer, and where the guider's batch can not be shared evenly among them.
    """
    there = jax.devices()
    if devices > len(there):
        raise SettingsError(
            f"run.devices = {devices}: there are {len(there)} ({there[0].platform}); with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={devices} a CPU counts as so many"
        )
    batch = getattr(guider, "batch", None)
    if batch is None:
        raise SettingsError(f"run.devices = {devices}: the guider {guider.name} has no `batch` to share among devices")
    if batch % devices:
        raise SettingsError(
            f"run.devices = {devices}: {batch} conditions or environments can not be shared evenly among them"
        )
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:devices])


def shardings(guider: Guider, mesh: Mesh) -> Any:
    """Where each array of the guider's state lies."""

    def of(leaf: Any) -> NamedSharding:
        shared = leaf.ndim > 0 and leaf.shape[0] == guider.batch
        return NamedSharding(mesh, PartitionSpec(AXIS) if shared else PartitionSpec())

    return jax.tree.map(of, jax.eval_shape(guider.init, jax.eval_shape(jax.random.key, 0)))
