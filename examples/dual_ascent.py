"""Two ways to make a policy and trajectories agree, by dual ascent on one Lagrangian: `dgps` and `sgps`.

Both optimise trajectories of a two-link arm and the one policy that is to act like all of them. `dgps` asks that
policy and trajectory take the same action, and has a multiplier for the difference; `sgps` asks that the divergence of
the two be zero, and has a price for it. docs/dual_ascent.md derives both. This prints and draws how far from agreement
they are, and how far from its target the arm ends.

Run `python examples/dual_ascent.py`; it takes about two minutes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.train import train

GUIDERS = {"dgps": "|u - pi(x)|", "sgps": "KL(p || pi), nats"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Deterministic and stochastic guided policy search on the reacher.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--out", default="runs/dual-ascent", help="folder of both runs and the figure")
    options = parser.parse_args()

    figure = Figure(figsize=(6.5, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    far = []
    for guider, constraint in GUIDERS.items():
        settings = {"task": "reacher", "guider": guider, "seed": options.seed, "iterations": options.iterations}
        try:
            run = RunFolder.create(Path(options.out) / guider, Experiment.resolve({"run": settings}))
            train(run)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        rows = run.metrics.rows()
        violation = [float(np.mean(row["violation"])) for row in rows]
        # a score is missing where the simulation of some target diverged
        distance = [float("inf") if row["test_score"] is None else row["test_score"] for row in rows]
        print(f"{guider}: violation {constraint} " + " ".join(f"{value:.3g}" for value in violation))
        print(f"{guider}: fingertip to test targets, cm " + " ".join(f"{value:.2f}" for value in distance))
        iterations = np.arange(len(rows)) + 1
        left.semilogy(iterations, violation, "o-", label=f"{guider}: {constraint}")
        right.semilogy(iterations, distance, "o-", label=guider)
        if not (distance[-1] <= 2.0 and violation[-1] < 0.5 * violation[0]):
            far.append(guider)
    ticks = np.arange(2, options.iterations + 1, 2)
    left.set(xlabel="iteration", ylabel="violation of the constraint", xticks=ticks)
    right.set(xlabel="iteration", ylabel="test distance (cm)", xticks=ticks)
    left.legend(fontsize=7)
    figure.savefig(Path(options.out) / "violation.png", dpi=200)
    print(f"figure: {options.out}/violation.png")
    if far:
        print(f"not within 2 cm, or not half as far from agreement as at first: {', '.join(far)}")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
