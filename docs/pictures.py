"""The pictures of docs/images/tasks: each MuJoCo task of the catalogue at a test context.

Run: python docs/pictures.py [TASK ...]    (needs OpenGL; without a display, MUJOCO_GL=egl)
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import matplotlib.image
import numpy as np

from gps.experiments.lookup import find
from gps.figures.render import render

TASKS = ("pendulum", "cartpole", "acrobot", "point-mass", "arm-reach", "peg", "pusher", "door", "drawer", "walker")
FOLDER = Path(__file__).parent / "images" / "tasks"
SIZE = 200  # pixels


def main(names: list[str]) -> None:
    """Draw the tasks of these names."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names:
        entry = find("task", name)
        task = entry.build(entry.settings, "mujoco", name)
        context = task.test_contexts[0]
        state = np.asarray(task.initial_state(jax.random.key(0), context), float)
        target = np.asarray(task.target(context))[None] if hasattr(task, "target") else None
        picture = render(task.simulator.model, state[None, None], target, SIZE)[0, 0]
        matplotlib.image.imsave(FOLDER / f"{name}.png", picture)
        print(f"{name}: {(FOLDER / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:] or list(TASKS))
