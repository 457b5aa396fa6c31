"""How the cost of an iteration grows with conditions, environments and devices.

    python benchmarks/scaling.py conditions --engine mujoco    # badmm on the reacher, the C engine
    python benchmarks/scaling.py conditions --engine mjx
    python benchmarks/scaling.py environments                  # gpo-clip on a memory task, in one update

`--sizes 8 32` takes other numbers of them, `--devices 2` shares them among so many; a CPU counts as so many, and that
makes nothing faster: it shows what sharing costs.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

SIZES = {"conditions": (8, 16, 32, 64, 128), "environments": (256, 512, 1024, 2048, 4096)}
ABOUT = {"conditions": ("reacher", "badmm"), "environments": ("repeat-previous-easy", "gpo-clip")}


def tables(section: str, size: int, engine: str) -> dict[str, Any]:
    """The settings of a run of this size; all others are the defaults."""
    task, guider = ABOUT[section]
    if section == "conditions":
        return {"run": {"task": task, "guider": guider, "engine": engine}, "task": {"train_targets": size}}
    return {"run": {"task": task, "guider": guider}, "guider": {"ppo": {"environments": size, "updates": 1}}}


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
    import gps  # noqa: F401  (it sets what must be set before jax is imported)

    import jax  # isort: skip
    from timing import machine, measure, median, row, table

    from gps.experiments.experiment import Experiment
    from gps.runs.programs import Programs

    print(f"{time.strftime('%Y-%m-%d')}. {jax.devices()[0].platform}. {machine()}, jax {jax.__version__}")
    engine = f", engine {options.engine}" if options.section == "conditions" else ""
    title = f"{' by '.join(ABOUT[options.section])}{engine}, devices: {options.devices}"
    columns = ("first, CPU s", "iteration, s", "iteration, CPU s", "steps", "1000 steps per CPU second")
    table(title, options.section, *columns)
    for size in options.sizes or SIZES[options.section]:
        guider = Experiment.resolve(tables(options.section, size, options.engine)).build()
        programs = Programs(guider, options.devices)
        state = programs.place(jax.jit(guider.init)(jax.random.key(0)))
        _, first, (state, _) = measure(programs.iterate, state, jax.random.key(1))
        wall, cpu, _ = median(programs.iterate, options.repeats, state, jax.random.key(2))
        steps = guider.steps_per_iteration
        row(size, first, wall, cpu, steps, steps / cpu / 1000)


if __name__ == "__main__":
    main()
