"""Train a neural policy for a two-link arm by BADMM guided policy search, from nothing, in about a minute.

The guider knows the arm's full state and solves each training target with its own linear-Gaussian controller;
the learner, one neural network for all targets, sees the target and must reach targets that it was never
trained on. Run `python examples/reacher_badmm.py`, then look into the folder that it names at the end.
"""

import argparse
import sys

import gps
from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.train import train


def main() -> int:
    parser = argparse.ArgumentParser(description="BADMM guided policy search on the reacher.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder of the run (default: runs/reacher-badmm-seedN)")
    parser.add_argument("--iterations", type=int, default=12, help="fewer make a quick look, not a good policy")
    options = parser.parse_args()

    # The task, the guider and everything about them that is not a default. `gps list --settings` shows the rest.
    settings = {"run": {"task": "reacher", "guider": "badmm", "seed": options.seed, "iterations": options.iterations}}
    try:
        experiment = Experiment.resolve(settings)
        run = RunFolder.create(options.out or f"runs/reacher-badmm-seed{options.seed}", experiment)
        summary = train(run, started=gps.STARTED)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2

    print(f"figures, an animation, checkpoints and all numbers: {run.path}/")
    # a score is missing where the simulation of some target diverged
    test, training = (summary[f"{name}_score"] or float("inf") for name in ("test", "train"))
    print(
        f"fingertip to target: {test:.2f} cm on 200 test targets, {training:.2f} cm on the training "
        f"targets; {summary['env_steps']} simulator steps, {summary['wall_seconds']:.0f} s"
    )
    proof = [("test distance", test, 1.5), ("training distance", training, 1.0)]
    proof += [("simulator steps", summary["env_steps"], 50_000), ("wall seconds", summary["wall_seconds"], 120)]
    missed = [f"{name} {value:.4g} is above {limit}" for name, value, limit in proof if not value <= limit]
    for line in missed:
        print(line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
