"""A task of your own on a MuJoCo model: a crane brings the load at the end of its pole to a place, and to rest.

The learner sees cart, load and target in the last three steps, and no velocities. All commands work on the `Entry`:

    PYTHONPATH=examples gps train own_task:CRANE --guider mdgps

Run: python examples/own_task.py
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from gps.entry import Entry
from gps.experiments.experiment import Experiment
from gps.runs import train
from gps.runs.folder import RunFolder
from gps.tasks.mujoco_task import MujocoTask, load
from gps.tasks.presets import REACHING
from gps.tasks.task import Score


@dataclass(frozen=True)
class CraneSettings:
    targets: int = 8  # to train on, from -1 m to 1 m; as many between them are tested on


class Crane(MujocoTask):
    score = Score("distance", "cm")
    history, start_noise = 3, 0.02

    def __init__(self, settings, engine, name):
        places = np.linspace(-1.0, 1.0, 2 * settings.targets)[:, None]
        contexts = places[::2], places[1::2]
        super().__init__(load("cartpole.xml", __file__), engine, name, contexts, horizon=60, substeps=5)

    def start(self, context):
        return jnp.array([0.0, jnp.pi]), jnp.zeros(2)  # the pole hangs

    def skeleton(self, x):
        return self.positions(x, "pole", "end")

    def target(self, context):
        return jnp.array([context[0], 0.0, -0.6])

    def observe(self, x, context, noise):
        end = self.position(x, "end")
        return jnp.stack([x[0], end[0] - x[0], context[0] - end[0]])

    def final_cost(self, x, context):
        offset = self.position(x, "end") - self.target(context)
        return 2.0 * (offset @ offset) + 0.1 * (x[2:] @ x[2:])

    def cost(self, x, u, t, context):
        return self.final_cost(x, context) + 0.05 * (u @ u)

    def measure(self, xs, us, context):
        return 100 * jnp.abs(self.position(xs[-1], "end")[0] - context[0])

    def solved(self, xs, us, context):
        return self.measure(xs, us, context) < 5.0


CRANE = Entry(CraneSettings(), Crane, "a crane brings a swinging load to a place", engines=True, model_free=REACHING)

RUNS = {
    "badmm": {"run": {"iterations": 10}},
    "gpo-clip": {"run": {"iterations": 40, "evaluate_every": 10}, "guider": {"ppo": {"minibatches": 16}}},
}


if __name__ == "__main__":
    for guider, settings in RUNS.items():
        settings["run"] |= {"task": "own_task:CRANE", "guider": guider}
        summary = train.train(RunFolder.create(f"runs/own-task-{guider}", Experiment.resolve(settings)))
        best = summary.get("best", summary)  # of the learners that were evaluated, by the training targets
        print(f"{guider}: {best['test_score']:.1f} cm from the test targets")
        if best["test_solved"] < 6:
            raise SystemExit(f"{guider} solved {best['test_solved']} of {best['test_episodes']} test targets")
