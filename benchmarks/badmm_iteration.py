"""How long the mathematics of one BADMM iteration takes: everything that follows the roll-outs, no simulator.

Four conditions, five samples, T = 100, four rounds, on a synthetic task with smooth dynamics and the usual
cost (quadratic plus the logarithm of a distance); the learner sees the state. "Guider alone" reduces the
learner's supervised step to one update. Times are of the fourth iteration, computed again and again.

Run: python benchmarks/badmm_iteration.py [--repeats 30]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import platform
import statistics
import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine, measure

from controllers import trust_region
from gps.guiders.model_based.badmm import BadmmSettings, badmm
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import SamplingSettings, TaughtLearnerSettings
from gps.guiders.model_based.start import StartSettings
from gps.tasks.control_task import step_costs
from gps.tasks.task import ActionSpace
from policies import regression

SIZES = {"nx 10, nu 2": (10, 2), "nx 26, nu 7": (26, 7)}
REFERENCE = {  # CPU ms
    "iteration, nx 10": 4100,
    "iteration, nx 26": 6600,
    "LQR-with-KL solve, nx 10": 127,
    "LQR-with-KL solve, nx 26": 183,
}
SOURCE = "reference implementation cbfinn/gps in numpy, measured on a machine of this kind"
M, N, T = 4, 5, 100


def synthetic_task(nx: int, nu: int) -> Any:
    """What BADMM needs of a `ControlTask`: its numbers, its cost, and what the learner sees."""
    rng = np.random.default_rng(nx)
    contexts = jnp.asarray(rng.normal(size=(M, 3)), jnp.float32)

    def final_cost(x, context):
        squared = ((x[:3] - context) ** 2).sum()
        return 0.5 * squared + 0.5 * jnp.log(squared + 1e-3) + 0.005 * (x @ x)

    def cost(x, u, t, context):
        return final_cost(x, context) + 0.05 * (u @ u)

    def measure(xs, us, context):
        return jnp.linalg.norm(xs[-1, :3] - context)

    numbers = {"name": "synthetic", "nx": nx, "nu": nu, "horizon": T, "frame_size": nx, "noise_size": 0, "history": 1}
    functions = {"cost": cost, "final_cost": final_cost, "measure": measure, "observe": lambda x, context, noise: x}
    seen = {"observation_size": nx, "privileged_size": 0, "actions": ActionSpace(nu)}
    return SimpleNamespace(**numbers, **functions, **seen, train_contexts=contexts)


def roll_out(task: Any, state: Any, iteration: int) -> Samples:
    """Samples of the controllers in x' = x + 0.05 (W tanh(x) - x / 2 + B u) + noise, computed in numpy."""
    rng = np.random.default_rng(task.nx)
    W = 0.4 * rng.normal(size=(task.nx, task.nx)) / np.sqrt(task.nx)
    B = rng.normal(size=(task.nx, task.nu))
    starts = rng.normal(size=(M, 1, task.nx))
    rng = np.random.default_rng([task.nx, iteration])
    K, k, chol = (np.asarray(a) for a in (state.controllers.K, state.controllers.k, state.controllers.chol))
    xs, us = [starts + 0.02 * rng.normal(size=(M, N, task.nx))], []
    for t in range(T):
        x, noise = xs[-1], rng.normal(size=(M, N, task.nu))
        us.append(np.einsum("mux,mnx->mnu", K[:, t], x) + k[:, None, t] + np.einsum("muv,mnv->mnu", chol[:, t], noise))
        drift = np.tanh(x) @ W.T - 0.5 * x + us[-1] @ B.T
        xs.append(x + 0.05 * drift + 0.002 * rng.normal(size=x.shape))
    xs, us = (jnp.asarray(np.stack(a, axis=2), jnp.float32) for a in (xs, us))
    costs = jax.vmap(jax.vmap(lambda x, u, c: step_costs(task, x, u, c), (0, 0, None)))(xs, us, task.train_contexts)
    return Samples(xs, us, xs[:, :, :-1], costs, jnp.ones((M, N)))


class Row:
    """One line of the table: a function, compiled when the row is made."""

    def __init__(self, title: str, function: Any, *inputs: Any):
        self.title = title
        self.trace, _, traced = measure(jax.jit(function).trace, *inputs)
        self.compilation, _, self.compiled = measure(lambda: traced.lower().compile())

    def print(self, repeats: int, *inputs: Any, note: str = "") -> None:
        """Time calls and print the line."""
        first, _, _ = measure(self.compiled, *inputs)
        runs = [measure(self.compiled, *inputs)[:2] for _ in range(repeats)]
        wall, cpu = (1e3 * statistics.median(times) for times in zip(*runs, strict=True))
        times = f"{self.trace:.1f} | {self.compilation:.1f} | {1e3 * first:.1f} | {wall:.2f} | {cpu:.2f}"
        print(f"| {self.title}{note} | {times} |", flush=True)


def print_rows(name: str, nx: int, nu: int, repeats: int) -> None:
    """All lines for one size."""
    task = synthetic_task(nx, nu)
    settings = BadmmSettings(start=StartSettings("zero"), sampling=SamplingSettings(samples=N), rounds=4)
    short = TaughtLearnerSettings(training=regression.Settings(updates=1))
    guider, alone = badmm(task, settings), badmm(task, dataclasses.replace(settings, learner=short))
    key = jax.random.key(0)
    state = jax.jit(guider.init)(key)
    samples = roll_out(task, state, 0)
    whole = Row(f"{name}: iteration, learner included", guider.update, state, samples, key)
    for iteration in range(1, 4):
        state, _ = whole.compiled(state, samples, key)
        samples = roll_out(task, state, iteration)
    whole.print(repeats, state, samples, key)
    Row(f"{name}: iteration, guider alone", alone.update, state, samples, key).print(repeats, state, samples, key)

    _, prepared, _ = jax.jit(guider.prepare)(state, samples)
    model, old = jax.tree.map(lambda a: a[0], (prepared.models, prepared.reference))
    limit = settings.trust_region.kl_step * T

    def solve(model, old, eta):
        reference = old.recentred(model.xs[:-1], model.us)
        return trust_region.solve(model.dynamics, model.cost, reference, limit, model.initial, eta=eta)

    lqr = Row(f"{name}: one LQR-with-KL solve", solve, model, old, jnp.ones(()))
    near = lqr.compiled(model, old, jnp.ones(())).eta * 1.2
    for start, eta in (("cold", jnp.ones(())), ("warm", near)):
        sweeps = lqr.compiled(model, old, eta).sweeps
        lqr.print(repeats, model, old, eta, note=f", {start}, {sweeps} sweeps")


def main() -> None:
    """Print the table and where it was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="runs that the medians are over")
    repeats = parser.parse_args().repeats
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax", "optax", "numpy"))
    print(f"Command: python {' '.join(sys.argv)}  \nDate: {datetime.date.today()}  \n{machine()}  ")
    print(f"Python {platform.python_version()}, {versions}, backend {jax.default_backend()}\n")
    print("| what | trace, s | compile, s | first run, ms | run, ms | run, CPU ms |\n|---|---|---|---|---|---|")
    for name, (nx, nu) in SIZES.items():
        print_rows(name, nx, nu, repeats)
    for what, times in REFERENCE.items():
        print(f"| reference: {what} | - | - | - | - | {times} |")
    print(f"\nReference: {SOURCE}")


if __name__ == "__main__":
    main()
