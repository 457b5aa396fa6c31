"""Train a neural policy for a two-link arm by BADMM guided policy search, from nothing, in about a minute.

The guider knows the arm's full state and solves each training target with its own linear-Gaussian controller;
the learner, one neural network for all targets, sees the target and must reach targets that it was never
trained on. Run `python examples/reacher_badmm.py`, then look into the folder that it names at the end.
"""

import argparse
import sys

from gps.experiment import Experiment
from gps.run import RunError, RunFolder
from gps.train import train

TEST_LIMIT, TRAIN_LIMIT, STEP_LIMIT = 0.015, 0.010, 50_000  # metres, metres, simulator steps


def main() -> int:
    parser = argparse.ArgumentParser(description="BADMM guided policy search on the reacher.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder of the run (default: runs/reacher-badmm-seedN)")
    parser.add_argument("--iterations", type=int, default=12, help="fewer make a quick look, not a good policy")
    options = parser.parse_args()

    # The task, the guider and everything about them that is not a default. `gps list --settings` shows the rest.
    experiment = Experiment.resolve(
        {"run": {"task": "reacher", "guider": "badmm", "seed": options.seed, "iterations": options.iterations}}
    )
    try:
        run = RunFolder.create(options.out or f"runs/reacher-badmm-seed{options.seed}", experiment.to_dict())
    except RunError as error:
        print(error, file=sys.stderr)
        return 2

    summary = train(run)

    print(f"figures, an animation, checkpoints and all numbers: {run.path}/")
    # a distance is missing where the simulation of some target diverged
    test, training = (summary[f"{name}_distance_mean"] or float("inf") for name in ("test", "train"))
    print(
        f"fingertip to target: {100 * test:.2f} cm on 200 test targets, {100 * training:.2f} cm on the training "
        f"targets; {summary['env_steps']} simulator steps, {summary['wall_seconds']:.0f} s"
    )
    return 0 if test <= TEST_LIMIT and training <= TRAIN_LIMIT and summary["env_steps"] <= STEP_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
