"""One run on several devices, of one process or of several: conditions or environments are shared among them, all else
is everywhere.

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
    """`devices` devices, as many of each process: its first ones.

    Errors:
        SettingsError where there are fewer, and where the guider's batch can not be shared evenly among them.
    """
    processes = jax.process_count()
    if processes > 1:
        _check_processes(guider, devices, processes)
    there = [jax.local_devices(process) for process in range(processes)]
    fewest, own = min(map(len, there)), devices // processes
    if own > fewest:
        many = f" in each of {processes} processes" if processes > 1 else ""
        raise SettingsError(
            f"run.devices = {devices}: there are {fewest}{many} ({there[0][0].platform}); with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={own} a CPU counts as so many"
        )
    batch = getattr(guider, "batch", None)
    if batch is None:
        raise SettingsError(f"run.devices = {devices}: the guider {guider.name} has no `batch` to share among devices")
    if batch % devices:
        raise SettingsError(
            f"run.devices = {devices}: {batch} conditions or environments can not be shared evenly among them"
        )
    chosen = [device for some in there for device in some[:own]]
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def _check_processes(guider: Guider, devices: int, processes: int) -> None:
    """Raise SettingsError for what several processes can not do."""
    if devices % processes:
        raise SettingsError(
            f"run.devices = {devices} can not be shared evenly among {processes} processes: it counts the devices of "
            "all of them"
        )
    if hasattr(guider, "gather"):
        raise SettingsError(f"run.plant.address: a plant answers one process, and there are {processes}")
    if guider.task.calls_host:
        raise SettingsError(
            f"{guider.task.name} is simulated on the host of one process, and there are {processes}: take a task in "
            "JAX, or --engine mjx where it has engines"
        )


def shardings(guider: Guider, mesh: Mesh) -> Any:
    """Where each array of the guider's state lies."""

    def of(leaf: Any) -> NamedSharding:
        shared = leaf.ndim > 0 and leaf.shape[0] == guider.batch
        return NamedSharding(mesh, PartitionSpec(AXIS) if shared else PartitionSpec())

    return jax.tree.map(of, jax.eval_shape(guider.init, jax.eval_shape(jax.random.key, 0)))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Whole, on each device."""
    return NamedSharding(mesh, PartitionSpec())
