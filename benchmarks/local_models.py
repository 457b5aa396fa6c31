"""How far fitted dynamics are from the simulator's own derivatives, for each prior.

A guider of default settings, but for its samples, collects with its controllers; each prior is fitted to the same
samples in their order. Errors are those of A - I and B along the mean trajectory of each condition: the norm of the
difference over the norm of the simulator's, median over steps and conditions. "Prediction" is the error that a guider
sees itself (`model_error`). "Strength" is how many samples the prior stands for, by evidence unless a number is given.

Run: python benchmarks/local_models.py cartpole arm-reach peg [--samples 5] [--iterations 4]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine

from dynamics.known_model import jacobians
from dynamics.simulator import joints_size
from gps.experiments.experiment import Experiment
from gps.guiders.model_based import local_model, priors

ROWS = (("pooled", 10.0), *((name, 0.0) for name in priors.PRIORS))  # prior, its strength; 0 is by evidence


def collected(name: str, samples: int, iterations: int) -> tuple[Any, list[Any]]:
    """The guider, and what it collected in each iteration."""
    settings = {"run": {"task": name, "guider": "badmm", "engine": "mujoco"}}
    table = {"sampling": {"samples": samples, "by": "controllers"}, "learner": {"training": {"updates": 50}}}
    guider = Experiment.resolve({**settings, "guider": table}).build()
    key = jax.random.key(0)
    collect, update = jax.jit(guider.collect), jax.jit(guider.update)
    state, batches = jax.jit(guider.init)(key), []
    for i in range(iterations):
        collecting, updating = jax.random.split(jax.random.fold_in(key, i))
        batches.append(collect(state, collecting))
        state, _ = update(state, batches[-1], updating)
    return guider, batches


def true_derivatives(task: Any, samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """A - I and B of the simulator along the mean trajectories."""
    xs, us = (jnp.einsum("mn,mnti->mti", samples.share, a) for a in (samples.xs, samples.us))

    def along(xs, us, context):
        mocap = task.initial_state(jax.random.key(0), context)[joints_size(task.simulator.model) :]
        return jacobians(task.simulator, xs[:-1], us, mocap)

    A, B = jax.jit(jax.vmap(along))(xs, us, task.train_contexts)
    return np.asarray(A) - np.eye(A.shape[-1]), np.asarray(B)


def relative(fitted: np.ndarray, true: np.ndarray) -> float:
    """Median over conditions and steps."""
    return float(np.nanmedian(np.linalg.norm(fitted - true, axis=(-2, -1)) / np.linalg.norm(true, axis=(-2, -1))))


def print_rows(name: str, samples: int, iterations: int, rows: list[tuple[str, float]]) -> None:
    """All priors of one task."""
    guider, batches = collected(name, samples, iterations)
    truths = {i: true_derivatives(guider.task, batches[i]) for i in (0, iterations - 1)}
    for prior_name, strength in rows:
        settings = dataclasses.replace(guider.settings.local_model, prior=prior_name, prior_strength=strength)
        prior = priors.make(guider.task, settings)
        fit = jax.jit(lambda batch, state, p=prior, s=settings: local_model.fit(guider.task, batch, s, p, state))
        state, cells, seconds = prior.init(), [], 0.0
        for i, batch in enumerate(batches):
            start = time.perf_counter()
            fitted, state = jax.block_until_ready(fit(batch, state))
            seconds = time.perf_counter() - start
            if i in truths:
                dynamics, (A, B) = fitted.models.dynamics, truths[i]
                errors = relative(np.asarray(dynamics.A) - np.eye(A.shape[-1]), A), relative(np.asarray(dynamics.B), B)
                seen = float(jnp.median(fitted.error)), float(jnp.median(fitted.strength))
                cells.append(f"{errors[0]:.3f} | {errors[1]:.3f} | {seen[0]:.3f} | {seen[1]:.1f}")
        label = prior_name if strength == 0.0 else f"{prior_name}, {strength:g}"
        print(f"| {name} | {label} | {' | '.join(cells)} | {1e3 * seconds:.0f} |", flush=True)


def main() -> None:
    """Print the table and where it was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="names, or module:ENTRY")
    parser.add_argument("--samples", type=int, default=5, help="per condition and iteration")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--priors", nargs="+", default=list(priors.PRIORS))
    arguments = parser.parse_args()
    print(f"Command: python {' '.join(sys.argv)}  \nDate: {datetime.date.today()}  \n{machine()}\n")
    columns = [f"{what}, {i}" for i in (1, arguments.iterations) for what in ("A - I", "B", "prediction", "strength")]
    print(f"| task | prior | {' | '.join(columns)} | fit, ms |\n|---{'|---' * (len(columns) + 2)}|")
    rows = [row for row in ROWS if row[0] in arguments.priors]
    for name in arguments.tasks:
        print_rows(name, arguments.samples, arguments.iterations, rows)


if __name__ == "__main__":
    main()
