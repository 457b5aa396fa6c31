"""How long a plant waits for the learner: examples/plant.py as fast as it can, on this machine.

Run: python benchmarks/plant.py [--episodes 100]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timing import machine, row, table

from dynamics.plant import Act, Beginning, Episode
from gps.experiments.experiment import Experiment
from gps.tasks.plant_episodes import LearnerOnPlant

ROOT = Path(__file__).parents[1]
ADDRESS = "tcp://127.0.0.1:5598"


class Timed:
    """A plant, with the times at which it asks for actions and gets them."""

    def __init__(self, plant: Any):
        self.plant, self.frame_size = plant, plant.frame_size
        self.asked: list[float] = []
        self.answered: list[float] = []

    def follow(self, beginning: Beginning, K: np.ndarray, k: np.ndarray) -> Episode:
        """See `Plant.follow`."""
        return self.plant.follow(beginning, K, k)

    def obey(self, beginning: Beginning, horizon: int, act: Act) -> Episode:
        """See `Plant.obey`."""

        def timed(t, x, frame):
            self.asked.append(time.perf_counter())
            u = act(t, x, frame)
            self.answered.append(time.perf_counter())
            return u

        return self.plant.obey(beginning, horizon, timed)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    count = parser.parse_args().episodes
    model = ROOT / "gps/tasks/mujoco/reacher.xml"
    process = subprocess.Popen([sys.executable, ROOT / "examples/plant.py", model, "--address", ADDRESS])
    try:
        settings = {"run": {"task": "reacher", "plant": {"address": ADDRESS, "timeout": 60.0}}}
        guider: Any = Experiment.resolve(settings).build()
        task, plant = guider.task, Timed(guider.plant)
        policy, T = guider.policy(guider.init(jax.random.key(0))), task.horizon
        start = np.asarray(task.control_state(task.initial_state(jax.random.key(0), task.train_contexts[0])))
        beginning = Beginning(start, np.asarray(task.train_contexts[0]))
        learner, noise = LearnerOnPlant(task, plant), {"action": np.zeros((T, task.nu)), "frame": np.zeros((T, 0))}
        learner.run(policy, beginning, noise)
        tables, steps = [], []
        for _ in range(count):
            began = time.perf_counter()
            plant.follow(beginning, np.zeros((T, task.nu, task.nx)), np.zeros((T, task.nu)))
            tables.append(time.perf_counter() - began)
            plant.asked, plant.answered = [], []
            learner.run(policy, beginning, noise)
            asked, answered = np.array(plant.asked), np.array(plant.answered)
            steps += zip(answered[:-1] - asked[:-1], asked[1:] - answered[:-1], strict=True)
        print(machine())
        table(f"{count} episodes of {T} actions", "what", "median, ms", "99 %, ms", "longest, ms")
        thought, way = np.array(steps).T
        for name, seconds in (
            ("an episode by a table", np.array(tables)),
            ("the learner's answer", thought),
            ("both messages and the physics of a step", way),
            ("a step by the learner", thought + way),
        ):
            row(name, *(1000 * float(value) for value in (*np.percentile(seconds, (50, 99)), seconds.max())))
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
