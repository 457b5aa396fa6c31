"""Sizes and speed of the environments: what guider and learner see, compilation, steps per second.

    python benchmarks/tasks.py                       # doors, memory tasks and Brax (those that are installed)
    python benchmarks/tasks.py 'playground-*'        # whatever matches
    python benchmarks/tasks.py gymnasium:CartPole-v1 # and names with a colon

A step is one of `--batch` environments under random actions, all steps in one compiled scan. `unshare -rn python ...`
runs it without a network.
"""

from __future__ import annotations

import argparse
import fnmatch
import time

import jax
import jax.numpy as jnp
from timing import machine, row, table

from gps.experiments.experiment import Experiment
from gps.experiments.lookup import TASKS
from gps.guiders.learner import choose_distribution
from gps.settings import SettingsError


def measure(name: str, batch: int, steps: int) -> tuple[str, ...]:
    """The cells of the table about one task."""
    try:
        task = Experiment.resolve({"run": {"task": name, "guider": "ppo"}}).build_task()
    except SettingsError as error:
        return (str(error),)
    distribution = choose_distribution("auto", task)
    keys = jax.random.split(jax.random.key(0), batch)
    reset = jax.jit(jax.vmap(task.reset))

    @jax.jit
    def run(states, key):
        draws = distribution.noise(key, (steps, batch))

        def step(states, noise):
            action = distribution.environment(distribution.sample(jnp.zeros((batch, distribution.outputs)), noise))
            return jax.vmap(task.step)(states, action), None

        return jax.lax.scan(step, states, draws)[0]

    began = time.perf_counter()
    states = jax.block_until_ready(reset(keys))
    reset_at = time.perf_counter()
    jax.block_until_ready(run(states, jax.random.key(1)))
    ready = time.perf_counter()
    states = jax.block_until_ready(run(states, jax.random.key(2)))
    seconds = time.perf_counter() - ready
    sound = all(bool(jnp.isfinite(obs).all()) for obs in states.obs.values())
    space = task.actions
    return (
        f"{task.privileged_size} -> {task.observation_size}",
        f"{space.size}{' choices' * space.discrete}",
        f"{reset_at - began:.1f} + {ready - reset_at:.1f}",
        f"{batch * steps / seconds / 1000:,.0f} k",
        "yes" if sound else "no",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["tiger-*", "*-easy", "*-medium", "*-hard", "brax-*"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    names = [name for name in TASKS if any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)]
    names += [pattern for pattern in options.patterns if ":" in pattern]
    print(f"{time.strftime('%Y-%m-%d')}. {machine()}, jax {jax.__version__}")
    sizes = "guider sees -> learner sees"
    table(f"Batch {options.batch}", "task", sizes, "actions", "compile, s: reset + steps", "steps per second", "finite")
    for name in names:
        row(f"`{name}`", *measure(name, options.batch, options.steps))


if __name__ == "__main__":
    main()
