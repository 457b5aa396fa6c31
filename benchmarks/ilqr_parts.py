"""The tables of `ilqr.py` about parts of the solver: its Riccati sweep, one step of MPC, and how XLA compiles loops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ilqr_problems import CASES
from ilqr_tables import OPTIONS, PRECISIONS, Ours
from timing import measure, median, row, table

from controllers import lqr, lqr_parallel, mpc
from controllers.types import LinearDynamics, QuadraticCost

SIZES = ((4, 1), (26, 7))  # nx, nu
HORIZONS = (32, 128, 512, 2048)
XLA_DEFAULT = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1024"


def linear_quadratic(nx: int, nu: int, T: int, precision: str) -> tuple[LinearDynamics, QuadraticCost]:
    """A random problem that is stable and convex."""
    rng = np.random.default_rng(0)
    A = 0.98 * np.linalg.qr(rng.normal(size=(T, nx, nx)))[0]
    root = rng.normal(size=(T, nx + nu, nx + nu)) / np.sqrt(nx + nu)
    H = root @ root.mT + 0.1 * np.eye(nx + nu)
    B, c = 0.2 * rng.normal(size=(T, nx, nu)), 0.1 * rng.normal(size=(T, nx))
    g, g_final = rng.normal(size=(T, nx + nu)), rng.normal(size=nx)
    arrays = (A, B, c, np.zeros((T, nx, nx)), H, g, np.zeros(T), np.eye(nx), g_final, np.zeros(()))
    cast = [jnp.asarray(a, precision) for a in arrays]
    return LinearDynamics(*cast[:4]), QuadraticCost(*cast[4:])


def riccati_sweeps(repeats: int, nx: int = 26, nu: int = 7, T: int = 100) -> list[float]:
    """Print the time of one `lqr.backward_pass`; CPU ms in float64 and float32."""
    table(f"One Riccati sweep, nx {nx}, nu {nu}, T {T}", "precision", "wall, ms", "CPU, ms")
    times = []
    for precision in PRECISIONS:
        with jax.enable_x64(precision == "float64"):
            inputs = linear_quadratic(nx, nu, T, precision)
            compiled = jax.jit(lqr.backward_pass).lower(*inputs).compile()
        wall, cpu, _ = median(compiled, 10 * repeats, *inputs)
        row(precision, 1e3 * wall, 1e3 * cpu)
        times.append(1e3 * cpu)
    return times


def parallel_in_time(repeats: int) -> None:
    """Print the time of one sweep by `lqr_parallel` beside `lqr`, in float32, and where it pays."""
    device = f"{jax.devices()[0].platform} ({jax.devices()[0].device_kind})"
    columns = ("lqr, ms", "parallel, ms", "lqr / parallel", "lqr: compile, s", "parallel: compile, s")
    table(f"Parallel in time, float32, on {device}", "nx", "nu", "T", *columns, "largest difference of K")
    verdicts = []
    for nx, nu in SIZES:
        ratios = {T: parallel_sweep(nx, nu, T, repeats) for T in HORIZONS}
        pays = [T for T in HORIZONS if all(ratios[longer] > 1.0 for longer in HORIZONS if longer >= T)]
        verdict = f"pays from T = {pays[0]}" if pays else f"does not pay up to T = {HORIZONS[-1]}"
        verdicts.append(f"With nx {nx}, nu {nu} it {verdict} on this device.")
    print("\n" + "  \n".join(verdicts))


def parallel_sweep(nx: int, nu: int, T: int, repeats: int) -> float:
    """Print one line of the table; how many times faster the parallel sweep is."""
    walls, compilations, gains = [], [], []
    with jax.enable_x64(False):
        inputs = linear_quadratic(nx, nu, T, "float32")
        for backward_pass in (lqr.backward_pass, lqr_parallel.backward_pass):
            lowered = jax.jit(backward_pass).lower(*inputs)
            compilation, _, compiled = measure(lowered.compile)
            wall, _, solution = median(compiled, 3 * repeats, *inputs, budget=5.0)
            walls.append(1e3 * wall)
            compilations.append(compilation)
            gains.append(np.asarray(solution.controller.K))
    row(nx, nu, T, *walls, walls[0] / walls[1], *compilations, float(abs(gains[0] - gains[1]).max()))
    return walls[0] / walls[1]


def mpc_steps(horizon: int = 50, iterations: int = 2, steps: int = 200) -> None:
    """Print how long a step of MPC takes on the cart-pole, swung up from hanging and held.

    A force of up to 0.5 N that the plan does not know moves the cart as well: without it every step after the swing-up
    would find the plan optimal, and end at once.
    """
    title = f"One step of MPC, cart-pole, horizon {horizon}, {iterations} iterations a step, {steps} steps"
    columns = ("p50, ms", "p90, ms", "p99, ms", "max, ms", "largest angle from upright in the second half, rad")
    table(title, "precision", "compile, s", *columns)
    for precision in PRECISIONS:
        with jax.enable_x64(precision == "float64"):
            case = CASES["cartpole"]()
            functions = case.dynamics, case.cost, case.final_cost
            problem = mpc.Problem(*functions, iterations=iterations, options=OPTIONS["ilqr"])
            plan = mpc.start(problem, jnp.asarray(case.x0, precision), jnp.asarray(case.us[:horizon], precision))
            compilation, _, _ = measure(mpc.step, problem, plan, plan.xs[0])
            plant = jax.jit(lambda x, u, t, dynamics=case.dynamics: dynamics(x, u + 0.5 * jnp.sin(0.3 * t), t))
            states, _, seconds = mpc.simulate(problem, plan, plant, steps)
        angles = np.asarray(states)[steps // 2 :, 1]
        row(precision, compilation, *mpc.latency(seconds).values(), float(np.abs(angles - np.pi).max()))


def loops_as_one(repeats: int) -> None:
    """Print what the XLA option that `controllers` sets does for a solve of the cart-pole, each in a new process."""
    columns = ("as controllers sets it: CPU, ms", "XLA's default: CPU, ms", "default / set")
    table("XLA's limit for loops compiled as one piece, one solve of the cart-pole", *columns)
    times = [1e3 * in_new_process(flags, repeats) for flags in (os.environ["XLA_FLAGS"], XLA_DEFAULT)]
    row(*times, times[1] / times[0])


def in_new_process(flags: str, repeats: int) -> float:
    """CPU seconds of the solve where XLA is told `flags`."""
    code = f"import ilqr_parts; print(ilqr_parts.cartpole_seconds({repeats}))"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    folder = Path(__file__).parent
    return float(subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=folder))


def cartpole_seconds(repeats: int) -> float:
    """Median CPU time of a solve of the cart-pole in this process."""
    return median(Ours(CASES["cartpole"]()), repeats)[1]
