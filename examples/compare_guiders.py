"""Model-based and model-free guiders teach the same learner the same task: who needs fewer simulator steps?

The arm of `reacher_badmm.py`, observed in full and in part. All learners are the same network and are scored by the
same cost on the same test targets; every simulator step of training counts, those of evaluation do not. It takes a few
minutes on two cores, and the same command goes on where it was stopped.
"""

import argparse
import sys

from gps.comparisons.compare import compare
from gps.comparisons.statistics import Goals
from gps.errors import UserError
from gps.guiders.model_free.settings import PpoSettings
from gps.tasks.presets import REACHING

MODEL_BASED, MODEL_FREE = ("badmm", "mdgps"), ("gpo-clip", "ppo")
GOAL = 2.0  # cm from the target, on average over all test targets


def main() -> int:
    parser = argparse.ArgumentParser(description="Model-based and model-free guidance on one task.")
    parser.add_argument("--tasks", nargs="+", default=["reacher", "reacher-pomdp"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500_000, help="simulator steps of each model-free run")
    parser.add_argument("--out", default="runs/compare-guiders")
    options = parser.parse_args()

    # the model-based ones stop by themselves, after some 30 000 steps
    ppo = PpoSettings(**REACHING["guider"]["ppo"])
    length = [f"run.iterations={max(1, options.steps // (ppo.updates * ppo.environments * ppo.unroll))}"]
    try:
        comparison = compare(
            options.tasks,
            (*MODEL_BASED, *MODEL_FREE),
            options.seeds,
            settings_for=dict.fromkeys(MODEL_FREE, length),
            out=options.out,
            goals=Goals(score=GOAL),
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{comparison.text}")
    print("\n".join(str(path) for path in comparison.files))

    missed = list(comparison.failed)
    for task in options.tasks:
        steps = {name: comparison.result(task, name).steps_to_score for name in (*MODEL_BASED, *MODEL_FREE)}
        for name in MODEL_BASED:
            if steps[name].count < options.seeds:
                missed.append(f"{task}: {steps[name].count} of {options.seeds} seeds of {name} came within 2 cm")
        reached = [[name for name in some if steps[name].count == options.seeds] for some in (MODEL_BASED, MODEL_FREE)]
        if all(reached):
            best, other = (min(some, key=lambda name: steps[name].value) for some in reached)
            ratio = steps[other].value / steps[best].value
            print(f"{task}: to come within 2 cm, {other} takes {ratio:.1f} times the steps of {best}")
    for line in missed:
        print(line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
