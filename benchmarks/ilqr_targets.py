"""The targets of `ilqr.py`: what was measured, what it must be, and what we aim for."""

from __future__ import annotations

import numpy as np
from ilqr_tables import METHODS, Results, name
from timing import row


def judge(what: str, value: float, must: float, aim: float, unit: str = "", larger: bool = False) -> None:
    """Print one target: `value` must not be above `must` (below, where larger is better)."""
    sign = -1.0 if larger else 1.0
    verdict = "missed" if not sign * value <= sign * must else "met" if sign * value > sign * aim else "aim reached"
    bound = "at least" if larger else "at most"
    row(what, f"{value:.3g} {unit}", f"{bound} {must:g} {unit}", f"{aim:g} {unit}", verdict)


def mean(ratios: list[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(ratios))))


def judge_times(results: Results) -> None:
    """Times of single solves, of ilqr."""

    def ratios(peer: str, time: str) -> list[float]:
        both = [(runs[peer], runs[name("ilqr")]) for runs in results.values() if peer in runs]
        return [getattr(theirs, time) / getattr(ours, time) for theirs, ours in both]

    for time in ("wall", "cpu"):
        if speedups := ratios("diffilqrax", time):
            what = f"one solve, {len(speedups)} problems, diffilqrax / ours, {time}"
            judge(what, mean(speedups), 3.0, 8.0, "x", True)
        if speedups := ratios("crocoddyl", time):
            what = f"one solve, {len(speedups)} problems, ours / crocoddyl, {time}"
            judge(what, 1 / mean(speedups), 2.5, 1.0, "x")
    runs = [solvers[name("ilqr", precision)] for solvers in results.values() for precision in ("float64", "float32")]
    judge("compilation, tracing included, slowest problem", max(a.trace + a.compilation for a in runs), 4.0, 2.0, "s")


def judge_costs(results: Results) -> None:
    """Final costs: each method beside the peers, and ddp beside ilqr."""
    for method in METHODS:
        excesses = []
        for solvers in results.values():
            peers = [run.cost for solver, run in solvers.items() if not solver.startswith("ours")]
            excesses += [100 * (solvers[name(method)].cost / min(peers) - 1)] if peers else []
        if excesses:
            judge(f"{method}: final cost above the best peer's, worst problem", max(excesses), 0.1, 0.1, "%")
            lower, what = sum(a < -0.1 for a in excesses), "problems with a cost lower than every peer's by 0.1 %"
            judge(f"{method}: {what}", lower, 0, 2, "", True)
    excesses = [100 * (solvers[name("ddp")].cost / solvers[name("ilqr")].cost - 1) for solvers in results.values()]
    what = f"ddp never worse than ilqr: final cost on {len(excesses)} problems, worst"
    judge(what, max(excesses), 0.1, 1e-4, "%")


def judge_all(
    results: Results,
    speedups: dict[int, list[float]],
    replayed: dict[str, int],
    iterations: list[tuple[str, int, float]],
    sweeps: list[float],
) -> None:
    """All targets; the arguments are what the functions of `ilqr_tables` and `ilqr_parts` return."""
    judge_times(results)
    judge_costs(results)
    for n, ratios in speedups.items():
        if ratios:
            judge(f"batch of {n}, crocoddyl / ours, CPU time per problem", mean(ratios), 1.0, 3.0, "x", True)
    judge("float32 replayed in float64 within 1 %, problems", replayed["ilqr"], len(results), len(results), "", True)
    for solver, feasible, infeasible in iterations:
        judge(f"infeasible start, iterations, {solver}", infeasible, feasible - 1, feasible - 1)
    judge("one Riccati sweep, float64, CPU", sweeps[0], 1.0, 0.6, "ms")
    judge("one Riccati sweep, float32, CPU", sweeps[1], 1.0, 0.6, "ms")
