"""How well masses, dampings and gains of a task's model are identified from some episodes.

Episodes are those of a guider's first controllers, which explore. The model that identification starts from is off:
each parameter's true value is `--error` of the model's more or less, at random. With `--noise` states are measured with
noise of that standard deviation (rad or m; ten times that per second for velocities).

Run: python benchmarks/identify.py [arm-reach] [--episodes 10] [--error 0.3] [--noise 0] [--window 1]
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from typing import Any

import jax
import numpy as np
from timing import machine

from dynamics.engines import make_simulator
from dynamics.identify import identify
from dynamics.parameters import misjudged, select, usual
from gps.experiments.experiment import Experiment


def episodes(name: str, count: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """The task, and states and actions of so many episodes, each of another condition."""
    settings = {"run": {"task": name, "guider": "badmm", "engine": "mujoco"}}
    guider: Any = Experiment.resolve(settings).build()
    state = jax.jit(guider.init)(jax.random.key(0))
    samples = jax.jit(guider.collect)(state, jax.random.key(1))
    xs, us = (np.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:]) for a in map(np.asarray, (samples.xs, samples.us)))
    return guider.task, xs[:count], us[:count]


def main() -> None:
    """Print the table and where it was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="arm-reach")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--error", type=float, default=0.3)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--window", type=int, default=1)
    arguments = parser.parse_args()

    task, xs, us = episodes(arguments.task, arguments.episodes)
    true = task.simulator.model
    names = usual(true)
    nominal = misjudged(true, arguments.error)
    scale = arguments.noise * np.where(np.arange(xs.shape[-1]) < true.nq, 1.0, 10.0)
    xs = xs + scale * np.random.default_rng(0).normal(size=xs.shape)
    start = time.perf_counter()
    found = jax.block_until_ready(
        identify(make_simulator(nominal, task.simulator.substeps, "mujoco"), xs, us, names, arguments.window)
    )
    seconds = time.perf_counter() - start

    print(f"Command: python {' '.join(sys.argv)}  \nDate: {datetime.date.today()}  \n{machine()}\n")
    print("| parameter | true | before | identified | standard error, % | error, % |\n|---|---|---|---|---|---|")
    values, off = select(true, names).nominal, []
    rows = zip(found.names, values, found.nominal, np.asarray(found.factors), found.standard_errors, strict=True)
    for name, value, before, factor, error in rows:
        off.append(100 * abs(before * factor / value - 1.0))
        print(f"| `{name}` | {value:.4g} | {before:.4g} | {before * factor:.4g} | {100 * error:.2g} | {off[-1]:.2g} |")
    print(
        f"\n{len(xs)} episodes of {us.shape[1]} actions; {seconds:.0f} s; largest error {max(off):.2g} %, median",
        end=" ",
    )
    print(f"{np.median(off):.2g} %")
    print("\n".join(line for line in str(found).splitlines() if "residual" in line or line.startswith("not")))


if __name__ == "__main__":
    main()
