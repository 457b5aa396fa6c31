"""Our iLQR and DDP on six problems, beside crocoddyl (C++) and diffilqrax (JAX) in the same run; and parts of ours.

Every solver starts from the same actions, has 500 iterations at most and stops where a full step is expected to gain
less than 1e-8 of J (diffilqrax: where |dJ/du| < 1e-4). Times are medians after a first run; CPU time is of all
threads. Crocoddyl runs in one thread, with DDP or FDDP (with limits BoxDDP or BoxFDDP), whichever is faster, and its
solver is built beforehand; diffilqrax tries the full step first, which halves its iterations, and is compiled with the
XLA option that `controllers` sets.

"ours, ilqr" and "ours, ddp" differ in Options.method alone: ddp adds the second derivatives of the dynamics, once the
cost falls slowly, and goes on without them where that finds no step. All costs here are convex, so that there is
nothing for hessian="clip" to clip: both run with "exact", as the peers do. Targets are judged on ilqr in float64, the
default method, except where they name ddp or float32.

A batch of ours is jax.jit(jax.vmap(...)), which on a CPU runs one problem after the other; ddp solves batches of 64 at
most. Crocoddyl solves the first 64 start states of every batch, in a loop, with FDDP or BoxFDDP. Mean costs are over
the start states that all have solved.

Run: python benchmarks/ilqr.py [--problems car acrobot] [--batches 64 1024] [--repeats 20] [--no-peers] [--quick]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from importlib.metadata import version

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see controllers/__init__.py; jax is imported next

import ilqr_parts
import ilqr_peers
import ilqr_tables
import jax
from ilqr_problems import CASES
from ilqr_targets import judge_all
from timing import machine, table


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--problems", nargs="+", choices=CASES, help="all six if not given")
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 1024], help="numbers of start states")
    parser.add_argument("--parallel-in-time", action=switch, default=True, help="compare both Riccati sweeps")
    parser.add_argument("--repeats", type=int, default=20, help="runs that the medians are over")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="under a minute: one problem, one repeat, ours alone")
    given = parser.parse_args()
    if given.quick:
        given.batches, given.repeats, given.no_peers, given.parallel_in_time = [], 1, True, False
    given.problems = given.problems or (["quadrotor"] if given.quick else list(CASES))
    return given


def head(peers: bool, missing: list[str]) -> None:
    """Print where and with what the tables are made."""
    versions = [f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy", *(ilqr_peers.PACKAGES * peers))]
    print(f"Command: python {' '.join(sys.argv)}  \nDate: {datetime.date.today()}  \n{machine()}  ")
    print(f"Python {platform.python_version()}, {', '.join(versions)}, backend {jax.default_backend()}  ")
    if missing:
        print(f"No peers: {', '.join(missing)} not found; pip install {' '.join(ilqr_peers.PACKAGES)}, and gcc and g++")


def main() -> None:
    """Print all tables."""
    given = arguments()
    jax.config.update("jax_enable_compilation_cache", False)
    missing = [] if given.no_peers else ilqr_peers.missing()
    peers = not (given.no_peers or missing)
    head(peers, missing)

    cases = [CASES[name]() for name in given.problems]
    results = ilqr_tables.single_solves(cases, peers, given.repeats)
    speedups = ilqr_tables.batches(cases, given.batches, peers) if given.batches else {}
    replayed = ilqr_tables.replays(cases, results)
    iterations = ilqr_tables.infeasible_starts(cases, peers, results)
    sweeps = ilqr_parts.riccati_sweeps(given.repeats)
    if given.parallel_in_time:
        ilqr_parts.parallel_in_time(given.repeats)
    ilqr_parts.mpc_steps()
    if not given.quick and jax.default_backend() == "cpu":
        ilqr_parts.loops_as_one(given.repeats)
    table("Targets", "what", "measured", "must", "aim", "verdict")
    judge_all(results, speedups, replayed, iterations, sweeps)


if __name__ == "__main__":
    main()
