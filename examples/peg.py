"""A seven-joint arm learns by BADMM to put a peg into holes that it was never trained on: 405 episodes in all.

Nine holes are trained, each by its own linear-Gaussian controller. Contact makes their models poor, and 5 mm beside
the hole's axis the peg stays on top; the learner, one neural network for all holes, has to do what all nine do.

Run `python examples/peg.py`. The folder that it names at the end has an animation of the peg going in, learning curves
and everything else about the run.
"""

import argparse
import sys

import gps
from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.train import train

SHARE = 0.8  # of the test holes in which the peg has to end, within 1 cm of the bottom


def main() -> int:
    parser = argparse.ArgumentParser(description="Guided policy search puts a peg into a hole.")
    parser.add_argument("--guider", default="badmm", choices=("badmm", "mdgps"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=9, help="of 45 episodes: 5 for each hole")
    parser.add_argument("--out", help="folder of the run (default: runs/peg-GUIDER-seedN)")
    options = parser.parse_args()

    name = f"peg-{options.guider}-seed{options.seed}"
    settings = {"task": "peg", "guider": options.guider, "seed": options.seed, "iterations": options.iterations}
    try:
        experiment = Experiment.resolve({"run": settings})
        run = RunFolder.create(options.out or f"runs/{name}", experiment)
        summary = train(run, started=gps.STARTED)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2

    best = summary.get("best", summary)  # by the training holes; the test holes have no say
    episodes = summary["env_steps"] // experiment.task.horizon
    print(f"animation: {run.path}/figures/animation.gif")
    for label, scores in (("the last learner", summary), ("the best by training holes", best)):
        print(
            f"{label}: {scores['train_solved']} of {scores['train_episodes']} training and "
            f"{scores['test_solved']} of {scores['test_episodes']} test holes, {scores['test_score']:.2f} cm from the "
            f"bottom; {episodes} episodes, {summary['wall_seconds']:.0f} s"
        )
    solved = max(summary["test_solved"], best["test_solved"])  # nine training holes tell two good learners apart poorly
    return 0 if solved >= SHARE * summary["test_episodes"] else 1


if __name__ == "__main__":
    sys.exit(main())
