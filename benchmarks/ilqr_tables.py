"""The tables of `ilqr.py` about whole solves: single ones, batches, float32 and infeasible starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ilqr_peers
import jax
import jax.numpy as jnp
import numpy as np
from ilqr_problems import CASES, Case
from timing import measure, median, row, table

from controllers import ilqr

METHODS = ("ilqr", "ddp")
PRECISIONS = ("float64", "float32")
OPTIONS = {method: ilqr.Options(method=method, max_iterations=500, hessian="exact") for method in METHODS}
PEER_STARTS = 64  # start states of a batch that crocoddyl solves

Results = dict[str, dict[str, "Single"]]  # by problem, then by solver


class Ours:
    """Our solver compiled for one problem: for its start state, or for n of them in one program."""

    def __init__(
        self, case: Case, method: str = "ilqr", precision: str = "float64", n: int = 0, infeasible: bool = False
    ):
        case = CASES[case.name]()  # its functions anew: jax would use what it traced of them in the other precision
        optional = {"limits": case.limits, "xs": case.guess if infeasible else None}
        optional = {name: value for name, value in optional.items() if value is not None}
        settings: dict[str, Any] = {"final_cost": case.final_cost, "options": OPTIONS[method], **optional}

        def solve(x0, us):
            return ilqr.solve(case.dynamics, case.cost, x0, us, **settings)

        with jax.enable_x64(precision == "float64"):
            self.inputs = [jnp.asarray(a, precision) for a in (case.starts(n) if n else case.x0, case.us)]
            function = jax.jit(jax.vmap(solve, (0, None)) if n else solve)
            self.trace, _, traced = measure(function.trace, *self.inputs)
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


def name(method: str, precision: str = "float64") -> str:
    """What the tables call a solver of ours."""
    return f"ours, {method}, {precision}"


OURS = {name(method, precision): (method, precision) for precision in PRECISIONS for method in METHODS}


def single_solves(cases: list[Case], peers: bool, repeats: int) -> Results:
    """Print the table of single solves."""
    table("One solve", "problem", "solver", "cost", "iterations", "trace, s", "compile, s", "wall, ms", "CPU, ms")
    results: Results = {case.name: {} for case in cases}
    for case in cases:
        others = [] if not peers else ["crocoddyl"] if case.limits else ["crocoddyl", "diffilqrax"]
        for solver in (*OURS, *others):
            result = results[case.name][solver] = solve_single(case, solver, repeats)
            compilation = [f"{a:.1f}" if a else "-" for a in (result.trace, result.compilation)]
            times = (1e3 * result.wall, 1e3 * result.cpu)
            row(case.name, solver, f"{result.cost:.6f}", result.iterations, *compilation, *times)
    return results


def solve_single(case: Case, solver: str, repeats: int) -> Single:
    """Measure one solver on one problem; `solver` is one of OURS, "crocoddyl" or "diffilqrax"."""
    if solver == "crocoddyl":
        names = ilqr_peers.METHODS[case.limits is not None]
        solvers = [ilqr_peers.Crocoddyl.like(case, each, OPTIONS["ilqr"]) for each in names]
        wall, cpu, run = min((median(peer.solve, repeats) for peer in solvers), key=lambda run: run[0])
        return Single(run.cost, run.iterations, wall, cpu)
    if solver == "diffilqrax":
        peer = ilqr_peers.Diffilqrax(case, OPTIONS["ilqr"].max_iterations)
        wall, cpu, (cost, iterations) = median(peer, repeats)
        return Single(float(cost), int(iterations), wall, cpu, peer.trace, peer.compilation)
    ours = Ours(case, *OURS[solver])
    wall, cpu, solution = median(ours, repeats)
    return Single(float(solution.cost), int(solution.iterations), wall, cpu, ours.trace, ours.compilation, solution)


def batches(cases: list[Case], sizes: list[int], peers: bool) -> dict[int, list[float]]:
    """Print the table of batches; crocoddyl's CPU time per problem over that of ilqr in float64, by batch size."""
    columns = ("problem", "n", "solver", "compile, s", "wall, ms/problem", "CPU, ms/problem", "iterations")
    table("Batches of start states", *columns, "mean cost", "within 0.1 % of the best")
    speedups: dict[int, list[float]] = {n: [] for n in sizes}
    for case in cases:
        runs = {(n, solver): batch(case, solver, n) for n in sizes for solver in in_batches(n)}
        if peers:
            theirs = ilqr_peers.batch(case, PEER_STARTS, OPTIONS["ilqr"])
            for n in sizes:
                speedups[n].append(theirs.cpu / runs[n, name("ilqr")].cpu)
            runs[PEER_STARTS, "crocoddyl"] = theirs
        shared = min(len(run.costs) for run in runs.values())
        best = np.min([run.costs[:shared] for run in runs.values()], axis=0)
        for (n, solver), run in runs.items():
            costs = run.costs[:shared]
            near = f"{100 * np.mean(costs <= best + 1e-3 * abs(best)):.0f} %"
            compilation = f"{run.compilation:.1f}" if run.compilation else "-"
            times = 1e3 * run.wall, 1e3 * run.cpu, run.iterations
            row(case.name, n, solver, compilation, *times, float(costs.mean()), near)
    return speedups


def in_batches(n: int) -> list[str]:
    """Our solvers that are run on n start states: ddp in float64, and not on so many that it would take minutes."""
    return [name("ilqr"), name("ilqr", "float32")] + [name("ddp")] * (n <= PEER_STARTS)


def batch(case: Case, solver: str, n: int) -> ilqr_peers.Batch:
    """Measure our solver on n start states; costs of the first that crocoddyl solves as well."""
    ours = Ours(case, *OURS[solver], n)
    wall, cpu, solution = median(ours, 3, budget=10.0)
    costs, iterations = np.asarray(solution.cost, float)[:PEER_STARTS], float(np.mean(solution.iterations))
    return ilqr_peers.Batch(costs, iterations, wall / n, cpu / n, ours.trace + ours.compilation)


def replays(cases: list[Case], results: Results) -> dict[str, int]:
    """Print what the float32 solutions cost as feedback laws in float64; how many are within 1 %, by method."""
    table("Float32 solutions replayed in float64", "problem", "method", "float64 cost", "replay of float32", "above, %")
    near: dict[str, int] = dict.fromkeys(METHODS, 0)
    for case in cases:
        for method in METHODS:
            cost = results[case.name][name(method)].cost
            replayed = replay(case, results[case.name][name(method, "float32")])
            row(case.name, method, f"{cost:.6f}", f"{replayed:.6f}", f"{100 * (replayed / cost - 1):.4f}")
            near[method] += replayed <= 1.01 * cost
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


def infeasible_starts(cases: list[Case], peers: bool, results: Results) -> list[tuple[str, int, float]]:
    """Print iterations from states that the dynamics do not connect; by method from a feasible start, and from those.

    NaN where the infeasible start led to a cost that is more than 0.1 % higher.
    """
    columns = ("feasible start: cost", "iterations", "infeasible: cost", "iterations")
    table("Infeasible start", "problem", "solver", *columns)
    iterations = []
    for case in (case for case in cases if case.guess is not None):
        pairs: dict[str, tuple[Any, Any]] = {
            name(method): (results[case.name][name(method)], Ours(case, method, infeasible=True)())
            for method in METHODS
        }
        for solver, (feasible, infeasible) in pairs.items():
            as_good = float(infeasible.cost) <= 1.001 * feasible.cost
            iterations.append((solver, feasible.iterations, float(infeasible.iterations) if as_good else float("nan")))
        if peers:
            peer = ilqr_peers.Crocoddyl.like(case, "FDDP", OPTIONS["ilqr"])
            pairs["crocoddyl"] = results[case.name]["crocoddyl"], peer.solve(xs=case.guess)
        for solver, runs in pairs.items():
            row(case.name, solver, *(cell for run in runs for cell in (f"{run.cost:.6f}", int(run.iterations))))
    return iterations
