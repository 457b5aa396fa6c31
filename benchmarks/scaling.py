"""How the cost of an iteration grows with conditions, environments and devices, and whether seeds share a program.

    python benchmarks/scaling.py conditions --engine mujoco    # badmm on the reacher, the C engine
    python benchmarks/scaling.py conditions --engine mjx
    python benchmarks/scaling.py environments                  # gpo-clip on tiger-door, one update an iteration
    python benchmarks/scaling.py seeds                         # the same, default settings: in turn, and vmapped

`--sizes 8 32` takes other numbers of them, `--devices 2` shares them among so many; a CPU counts as so many, and that
makes nothing faster: it shows what sharing costs. CPU seconds are of all threads, and say most on a machine that does
other work too.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from typing import Any

SIZES = {"conditions": (8, 16, 32, 64, 128), "environments": (256, 512, 1024, 2048, 4096), "seeds": (8,)}
DOOR = {"run": {"task": "tiger-door", "guider": "gpo-clip"}}


def tables(section: str, size: int, engine: str) -> dict[str, Any]:
    """The settings of a run of this size; all others are the defaults."""
    if section == "seeds":
        return DOOR
    if section == "environments":
        return DOOR | {"guider": {"ppo": {"environments": size, "updates": 1}}}
    return {"run": {"task": "reacher", "guider": "badmm", "engine": engine}, "task": {"train_targets": size}}


def growth(options: argparse.Namespace) -> None:
    """Iterations at growing batches."""
    import jax
    from timing import measure, median, row, table

    from gps.experiments.experiment import Experiment
    from gps.runs.programs import Programs

    engine = f", engine {options.engine}" if options.section == "conditions" else ""
    columns = ("first, CPU s", "iteration, s", "iteration, CPU s", "steps", "1000 steps per CPU second")
    table(f"{options.section}{engine}, devices: {options.devices}", options.section, *columns)
    for size in options.sizes or SIZES[options.section]:
        guider = Experiment.resolve(tables(options.section, size, options.engine)).build()
        programs = Programs(guider, options.devices)
        state = programs.place(jax.jit(guider.init)(jax.random.key(0)))
        _, first, (state, _) = measure(programs.iterate, state, jax.random.key(1))
        wall, cpu, _ = median(programs.iterate, options.repeats, state, jax.random.key(2))
        steps = guider.steps_per_iteration
        row(size, first, wall, cpu, steps, steps / cpu / 1000)


def seeds(options: argparse.Namespace) -> None:
    """An iteration of each seed, by one program in turn and by one program for all."""
    import jax
    import jax.numpy as jnp
    from timing import measure, median, row, table

    from gps.experiments.experiment import Experiment
    from gps.guiders.guider import iterate

    guider = Experiment.resolve(tables("seeds", 0, "")).build()
    once = functools.partial(iterate, guider)
    one, many = jax.jit(once), jax.jit(jax.vmap(once))

    def in_turn(states, keys):
        return [one(state, key) for state, key in zip(states, keys, strict=True)]

    table("seeds", "seeds", "first in turn, CPU s", "first of all, CPU s", "in turn, CPU s", "all, CPU s", "ratio")
    for count in options.sizes or SIZES["seeds"]:
        keys = jax.random.split(jax.random.key(0), count)
        states = [jax.jit(guider.init)(key) for key in keys]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        _, first, _ = measure(in_turn, states, keys)
        _, first_of_all, _ = measure(many, stacked, keys)
        turns = median(in_turn, options.repeats, states, keys)[1]
        together = median(many, options.repeats, stacked, keys)[1]
        row(count, first, first_of_all, turns, together, turns / together)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=tuple(SIZES))
    parser.add_argument("--engine", default="mujoco", choices=("mujoco", "mjx"))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")  # before jax is imported
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={options.devices}"
    from timing import machine

    print(f"{time.strftime('%Y-%m-%d')}. {machine()}")
    seeds(options) if options.section == "seeds" else growth(options)


if __name__ == "__main__":
    main()
