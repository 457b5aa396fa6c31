"""iLQR on the six problems of `ilqr_problems.py`, beside crocoddyl (C++) and diffilqrax (JAX) in the same run.

Every solver starts from the same actions, has 500 iterations at most and stops where a full step is expected to gain
less than 1e-8 of J (diffilqrax: where |dJ/du| < 1e-4). Times are medians after a first run; CPU time is of all
threads. Crocoddyl runs in one thread, with DDP or FDDP (with limits BoxDDP or BoxFDDP), whichever is faster, and its
solver is built beforehand; diffilqrax tries the full step first, which halves its iterations.

A batch of ours is one program: `lax.map` over the start states, or with `--batch-by vmap` all of them in step, where
each waits for the slowest. Crocoddyl solves the first 64 start states one after the other.

Run: python benchmarks/ilqr.py [--problems car acrobot] [--batches 64 1024] [--repeats 20] [--no-peers] [--quick]
Batches of 1024 take about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see controllers/__init__.py; jax is imported next

import ilqr_peers
import jax
import jax.numpy as jnp
import numpy as np
from ilqr_problems import CASES, Case
from timing import machine, measure, median

from controllers import ilqr, lqr
from controllers.types import LinearDynamics, QuadraticCost

OPTIONS = ilqr.Options(max_iterations=500, hessian="exact")  # the costs are convex, and the peers do the same
PRECISIONS = ("float64", "float32")
PEER_STARTS = 64  # start states of a batch that crocoddyl solves


class Ours:
    """Our solver compiled for one problem: for its start state, or for n of them at once."""

    def __init__(self, case: Case, precision: str = "float64", n: int = 0, by: str = "map", guess: Any = None):
        case = CASES[case.name]()  # its functions anew: jax would use what it traced of them in the other precision
        optional = {"limits": case.limits, "xs": guess}
        optional = {name: value for name, value in optional.items() if value is not None}

        def solve(x0, us):
            return ilqr.solve(case.dynamics, case.cost, x0, us, final_cost=case.final_cost, options=OPTIONS, **optional)

        batched = {
            "map": lambda x0s, us: jax.lax.map(lambda x0: solve(x0, us), x0s),
            "vmap": jax.vmap(solve, (0, None)),
        }
        function = batched[by] if n else solve
        with jax.enable_x64(precision == "float64"):
            self.inputs = [jnp.asarray(a, precision) for a in (case.starts(n) if n else case.x0, case.us)]
            self.trace, _, traced = measure(jax.jit(function).trace, *self.inputs)
            self.compilation, _, self.compiled = measure(lambda: traced.lower().compile())

    def __call__(self) -> ilqr.Solution:
        return self.compiled(*self.inputs)


@dataclass(frozen=True)
class Single:
    """One line of the first table."""

    cost: float
    iterations: int
    wall: float  # s
    cpu: float  # s
    trace: float = 0.0  # s
    compilation: float = 0.0  # s
    solution: Any = None


def table(title: str, *columns: str) -> None:
    """Print the head of a table."""
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(*cells: Any) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(f'{a:.4g}' if isinstance(a, float) else str(a) for a in cells)} |", flush=True)


def solve_single(case: Case, solver: str, repeats: int) -> Single:
    """Measure one solver on one problem; `solver` is "ours, float64", "ours, float32", "crocoddyl" or "diffilqrax"."""
    if solver == "crocoddyl":
        solvers = [
            ilqr_peers.Crocoddyl.like(case, name, OPTIONS) for name in ilqr_peers.METHODS[case.limits is not None]
        ]
        runs = [median(peer.solve, repeats) for peer in solvers]
        wall, cpu, run = min(runs, key=lambda run: run[0])
        return Single(run.cost, run.iterations, wall, cpu)
    if solver == "diffilqrax":
        peer = ilqr_peers.Diffilqrax(case, OPTIONS.max_iterations)
        wall, cpu, (cost, iterations) = median(peer, repeats)
        return Single(float(cost), int(iterations), wall, cpu, peer.trace, peer.compilation)
    ours = Ours(case, solver.split()[-1])
    wall, cpu, solution = median(ours, repeats)
    return Single(float(solution.cost), int(solution.iterations), wall, cpu, ours.trace, ours.compilation, solution)


def single_solves(cases: list[Case], peers: bool, repeats: int) -> dict[str, dict[str, Single]]:
    """Print the table of single solves: results by problem and solver."""
    title = "One solve"
    table(title, "problem", "solver", "cost", "iterations", "trace, s", "compile, s", "wall, ms", "CPU, ms")
    results: dict[str, dict[str, Single]] = {case.name: {} for case in cases}
    for case in cases:
        solvers = [f"ours, {precision}" for precision in PRECISIONS]
        if peers:
            solvers += ["crocoddyl"] if case.limits else ["crocoddyl", "diffilqrax"]
        for solver in solvers:
            result = results[case.name][solver] = solve_single(case, solver, repeats)
            compilation = [f"{a:.1f}" if a else "-" for a in (result.trace, result.compilation)]
            times = (1e3 * result.wall, 1e3 * result.cpu)
            row(case.name, solver, f"{result.cost:.6f}", result.iterations, *compilation, *times)
    return results


def batches(cases: list[Case], sizes: list[int], by: str, peers: bool) -> dict[int, list[float]]:
    """Print the table of batches; crocoddyl's CPU time per problem over ours in float64, by batch size."""
    columns = ("problem", "n", "solver", "compile, s", "wall, ms/problem", "CPU, ms/problem", "iterations")
    table("Batches of start states", *columns, f"mean cost of the first {PEER_STARTS}", "within 0.1 % of the best")
    speedups: dict[int, list[float]] = {n: [] for n in sizes}
    for case in cases:
        runs = {(n, f"ours, {precision}"): batch(case, precision, n, by) for n in sizes for precision in PRECISIONS}
        if peers:
            theirs = ilqr_peers.batch(case, PEER_STARTS, OPTIONS)
            for n in sizes:
                speedups[n].append(theirs.cpu / runs[n, "ours, float64"].cpu)
            runs[PEER_STARTS, "crocoddyl"] = theirs
        shared = min(len(run.costs) for run in runs.values())
        best = np.min([run.costs[:shared] for run in runs.values()], axis=0)
        for (n, solver), run in runs.items():
            near = np.mean(run.costs[:shared] <= best + 1e-3 * abs(best))
            compilation = f"{run.compilation:.1f}" if run.compilation else "-"
            times = 1e3 * run.wall, 1e3 * run.cpu, run.iterations
            row(case.name, n, solver, compilation, *times, float(run.costs.mean()), f"{100 * near:.0f} %")
    return speedups


def batch(case: Case, precision: str, n: int, by: str) -> ilqr_peers.Batch:
    """Measure our solver on n start states."""
    ours = Ours(case, precision, n, by)
    wall, cpu, solution = median(ours, 3, budget=10.0)
    costs, iterations = np.asarray(solution.cost, float)[:PEER_STARTS], float(np.mean(solution.iterations))
    return ilqr_peers.Batch(costs, iterations, wall / n, cpu / n, ours.trace + ours.compilation)


def replays(cases: list[Case], results: dict[str, dict[str, Single]]) -> int:
    """Print what the float32 solutions cost as feedback laws in float64; how many are within 1 % of float64."""
    table("Float32 solutions replayed in float64", "problem", "float64 cost", "replay of float32", "above, %")
    near = 0
    for case in cases:
        cost, replayed = results[case.name]["ours, float64"].cost, replay(case, results[case.name]["ours, float32"])
        row(case.name, f"{cost:.6f}", f"{replayed:.6f}", f"{100 * (replayed / cost - 1):.4f}")
        near += replayed <= 1.01 * cost
    return near


def replay(case: Case, result: Single) -> float:
    """J of u = actions + K (x - states), within the limits, in float64."""
    solution = result.solution
    plan = [np.asarray(a, np.float64) for a in (solution.states[:-1], solution.actions, solution.K)]
    lower, upper = case.limits or (-np.inf, np.inf)

    def step(x, inputs):
        t, state, action, K = inputs
        u = jnp.clip(action + K @ (x - state), lower, upper)
        return case.dynamics(x, u, t), case.cost(x, u, t)

    with jax.enable_x64(True):
        end, costs = jax.lax.scan(step, jnp.asarray(case.x0), (jnp.arange(len(case.us)), *plan))
        return float(costs.sum() + case.final_cost(end))


def infeasible_starts(
    cases: Iterable[Case], peers: bool, results: dict[str, dict[str, Single]]
) -> list[tuple[int, float]]:
    """Print iterations from states that the dynamics do not connect; ours from a feasible start, and from those."""
    table(
        "Infeasible start", "problem", "solver", "feasible start: cost", "iterations", "infeasible: cost", "iterations"
    )
    iterations = []
    for case in (case for case in cases if case.guess is not None):
        feasible, infeasible = results[case.name]["ours, float64"], Ours(case, guess=case.guess)()
        pairs: list[tuple[str, Any, Any]] = [("ours", feasible, infeasible)]
        as_good = float(infeasible.cost) <= 1.001 * feasible.cost  # a worse end does not count
        iterations.append((feasible.iterations, float(infeasible.iterations) if as_good else float("nan")))
        if peers:
            peer = ilqr_peers.Crocoddyl.like(case, "FDDP", OPTIONS)
            pairs.append(("crocoddyl", results[case.name]["crocoddyl"], peer.solve(xs=case.guess)))
        for solver, *runs in pairs:
            row(case.name, solver, *(cell for run in runs for cell in (f"{run.cost:.6f}", int(run.iterations))))
    return iterations


def riccati_sweeps(repeats: int, nx: int = 26, nu: int = 7, T: int = 100) -> list[float]:
    """Print the time of one `lqr.backward_pass`; CPU ms in float64 and float32."""
    table(f"One Riccati sweep, nx {nx}, nu {nu}, T {T}", "precision", "wall, ms", "CPU, ms")
    rng, times = np.random.default_rng(0), []
    A = 0.98 * np.linalg.qr(rng.normal(size=(T, nx, nx)))[0]
    root = rng.normal(size=(T, nx + nu, nx + nu)) / np.sqrt(nx + nu)
    H = root @ root.mT + 0.1 * np.eye(nx + nu)
    B, c = 0.2 * rng.normal(size=(T, nx, nu)), 0.1 * rng.normal(size=(T, nx))
    g, g_final = rng.normal(size=(T, nx + nu)), rng.normal(size=nx)
    arrays = (A, B, c, np.zeros((T, nx, nx)), H, g, np.zeros(T), np.eye(nx), g_final, np.zeros(()))
    for precision in PRECISIONS:
        with jax.enable_x64(precision == "float64"):
            cast = [jnp.asarray(a, precision) for a in arrays]
            inputs = LinearDynamics(*cast[:4]), QuadraticCost(*cast[4:])
            compiled = jax.jit(lqr.backward_pass).lower(*inputs).compile()
        wall, cpu, _ = median(compiled, 10 * repeats, *inputs)
        row(precision, 1e3 * wall, 1e3 * cpu)
        times.append(1e3 * cpu)
    return times


def judge(what: str, value: float, must: float, aim: float, unit: str = "", larger: bool = False) -> None:
    """Print one target: `value` must not be above `must` (below, where larger is better)."""
    sign = -1.0 if larger else 1.0
    verdict = "missed" if not sign * value <= sign * must else "met" if sign * value > sign * aim else "aim reached"
    bound = "at least" if larger else "at most"
    row(what, f"{value:.3g} {unit}", f"{bound} {must:g} {unit}", f"{aim:g} {unit}", verdict)


def judge_singles(results: dict[str, dict[str, Single]]) -> None:
    """Targets of the table of single solves."""

    def ratios(peer: str, time: str) -> list[float]:
        both = [(runs[peer], runs["ours, float64"]) for runs in results.values() if peer in runs]
        return [getattr(theirs, time) / getattr(ours, time) for theirs, ours in both]

    for time in ("wall", "cpu"):
        if speedups := ratios("diffilqrax", time):
            judge(
                f"one solve, {len(speedups)} problems, diffilqrax / ours, {time}", mean(speedups), 3.0, 8.0, "x", True
            )
        if speedups := ratios("crocoddyl", time):
            judge(f"one solve, {len(speedups)} problems, ours / crocoddyl, {time}", 1 / mean(speedups), 2.5, 1.0, "x")
    runs = [run for solvers in results.values() for name, run in solvers.items() if name.startswith("ours")]
    judge("compilation, tracing included, slowest problem", max(a.trace + a.compilation for a in runs), 4.0, 2.0, "s")
    excesses = []
    for solvers in results.values():
        peers = [run.cost for name, run in solvers.items() if not name.startswith("ours")]
        excesses += [100 * (solvers["ours, float64"].cost / min(peers) - 1)] if peers else []
    if excesses:
        judge("final cost above the best peer's, worst problem", max(excesses), 0.1, 0.1, "%")
        judge("problems with a cost lower than every peer's by 0.1 %", sum(a < -0.1 for a in excesses), 0, 2, "", True)


def mean(ratios: list[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(ratios))))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=CASES, help="all six if not given")
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 1024], help="numbers of start states")
    parser.add_argument("--batch-by", choices=("map", "vmap"), default="map", help="how our batches run")
    parser.add_argument("--repeats", type=int, default=20, help="runs that the medians are over")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="two problems, one repeat, no batches, no peers")
    given = parser.parse_args()
    if given.quick:
        given.batches, given.repeats, given.no_peers = [], 1, True
    given.problems = given.problems or (["car", "quadrotor"] if given.quick else list(CASES))
    return given


def main() -> None:
    """Print all tables and where they were made."""
    given = arguments()
    jax.config.update("jax_enable_compilation_cache", False)
    missing = [] if given.no_peers else ilqr_peers.missing()
    peers = not (given.no_peers or missing)
    versions = [f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy", *(ilqr_peers.PACKAGES * peers))]
    print(f"Command: python {' '.join(sys.argv)}  \nDate: {datetime.date.today()}  \n{machine()}  ")
    print(f"Python {platform.python_version()}, {', '.join(versions)}, backend {jax.default_backend()}  ")
    if missing:
        print(f"No peers: {', '.join(missing)} not found; pip install -e '.[bench]' (crocoddyl's models need gcc, g++)")

    cases = [CASES[name]() for name in given.problems]
    results = single_solves(cases, peers, given.repeats)
    speedups = batches(cases, given.batches, given.batch_by, peers) if given.batches else {}
    replayed = replays(cases, results)
    iterations = infeasible_starts(cases, peers, results)
    sweeps = riccati_sweeps(given.repeats)

    table("Targets", "what", "measured", "must", "aim", "verdict")
    judge_singles(results)
    for n, ratios in speedups.items():
        if ratios:
            judge(f"batch of {n}, crocoddyl / ours, CPU time per problem", mean(ratios), 1.0, 3.0, "x", True)
    judge("float32 replayed in float64 within 1 %, problems", replayed, len(cases), len(cases), "", True)
    for feasible, infeasible in iterations:
        judge("infeasible start, iterations", infeasible, feasible - 1, feasible - 1)
    judge("one Riccati sweep, float64, CPU", sweeps[0], 1.0, 0.6, "ms")
    judge("one Riccati sweep, float32, CPU", sweeps[1], 1.0, 0.6, "ms")


if __name__ == "__main__":
    main()
