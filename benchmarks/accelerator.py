"""What an accelerator is worth: simulation in MJX, and whole iterations of guiders, at growing batches.

    python benchmarks/accelerator.py simulation           # control steps of the arm per second
    python benchmarks/accelerator.py guiders              # iterations: compilation, seconds, steps per second
    python benchmarks/accelerator.py precision            # one trust-region solve here against the same on a CPU

`--quick` takes small sizes, to try it on a CPU. A control step of the arm is five physics steps.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
from badmm_iteration import N, roll_out, synthetic_task
from timing import machine, measure, row, table

from gps.experiments.experiment import Experiment
from gps.guiders.model_based.mdgps import MdgpsSettings, mdgps
from gps.guiders.model_based.settings import SamplingSettings
from gps.runs.programs import Programs

BATCHES = (64, 1024, 8192, 65536)
QUICK = (8, 64)
GUIDERS = {  # task, guider, settings, and the environments of each row
    "badmm": ("reacher", (), (0,)),
    "mdgps": ("reacher", (), (0,)),
    "gpo-clip": ("reacher", (("updates", 4), ("unroll", 50)), (1024, 8192)),
    "ppo": ("reacher", (("updates", 4), ("unroll", 50)), (1024, 8192)),
    "gpo-clip, memory": ("repeat-previous-easy", (("updates", 4),), (1024, 8192)),
}


def simulation(batches: tuple[int, ...]) -> None:
    """Steps per second under random actions, from states of the task."""
    task = Experiment.resolve({"run": {"task": "reacher", "engine": "mjx"}}).build_task()
    table("The arm in MJX", "batch", "compile, s", "100 control steps, ms", "1000 control steps/s", "finite")
    for batch in batches:
        keys = jax.random.split(jax.random.key(0), batch)
        contexts = task.train_contexts[jnp.arange(batch) % len(task.train_contexts)]  # pyright: ignore

        @jax.jit
        def run(keys, key, contexts=contexts, batch=batch):
            start = jax.vmap(task.initial_state)(keys, contexts)  # pyright: ignore
            actions = jax.random.uniform(key, (100, batch, 2), minval=-1.0)
            step = jax.vmap(task.simulator.step)  # pyright: ignore
            return jax.lax.scan(lambda now, us: (step(now, us), None), start, actions)[0]

        first, _, _ = measure(run, keys, jax.random.key(1))
        seconds = min(measure(run, keys, jax.random.key(i))[0] for i in range(2, 5))
        states = run(keys, jax.random.key(5))
        row(batch, first - seconds, 1e3 * seconds, 0.1 * batch / seconds, bool(jnp.isfinite(states).all()))


def guiders(quick: bool) -> None:
    """Compilation and seconds of an iteration."""
    table("Iterations", "guider", "task", "environments", "compile, s", "iteration, s", "1000 steps/s")
    for name, (task, ppo, sizes) in GUIDERS.items():
        for size in sizes[: 1 if quick else None]:
            tables: dict = {"run": {"task": task, "guider": name.split(",")[0]}}
            if task == "reacher":
                tables["run"]["engine"] = "mjx"
            if size:
                tables["guider"] = {"ppo": {**dict(ppo), "environments": 16 if quick else size}}
            experiment = Experiment.resolve(tables)
            guider = experiment.build()
            programs = Programs(guider)
            state = jax.jit(guider.init)(jax.random.key(0))
            first, _, (state, _) = measure(programs.iterate, state, jax.random.key(1))
            times = []
            for i in range(2 if quick else 4):
                seconds, _, (state, _) = measure(programs.iterate, state, jax.random.key(2 + i))
                times.append(seconds)
            best = min(times)
            row(name, task, size or "-", first - best, best, guider.steps_per_iteration / best / 1000)


def precision() -> None:
    """The largest difference of a controller that is solved for on both devices, relative to its largest entry."""
    table("Precision", "size", "products", "K", "k", "chol", "status alike")
    for nx, nu in ((10, 2), (26, 7)):
        task = synthetic_task(nx, nu)
        guider = mdgps(task, MdgpsSettings(sampling=SamplingSettings(samples=N)))
        state = guider.init(jax.random.key(0))
        samples = roll_out(task, state, 0)

        def improved(device, precision, guider=guider, state=state, samples=samples):
            def update(state, samples):
                state, prepared, _ = guider.prepare(state, samples)
                return guider.improve(state, prepared, prepared.reference)

            with jax.default_matmul_precision(precision):
                return jax.jit(update)(*jax.device_put((state, samples), device))

        there, theirs = improved(jax.devices("cpu")[0], "highest")
        for precision in ("default", "highest"):
            here, ours = improved(jax.devices()[0], precision)
            gaps = [
                float(abs(jnp.asarray(jax.device_get(a)) - b).max() / abs(b).max())
                for a, b in zip(*(jax.tree.leaves(jax.device_get(s.controllers)) for s in (here, there)), strict=True)
            ]
            alike = bool((jax.device_get(ours["failed_solves"]) == jax.device_get(theirs["failed_solves"])).all())
            row(f"nx {nx}, nu {nu}", precision, *gaps, alike)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=("simulation", "guiders", "precision"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    device = jax.devices()[0]
    print(f"{time.strftime('%Y-%m-%d')}. {device.device_kind} ({device.platform}). {machine()}, jax {jax.__version__}")
    if options.section == "simulation":
        simulation(QUICK if options.quick else BATCHES)
    elif options.section == "guiders":
        guiders(options.quick)
    else:
        precision()


if __name__ == "__main__":
    main()
