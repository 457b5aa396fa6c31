"""What tests of comparisons share: a second guider, and runs that take no time."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gps.experiments.lookup import GUIDERS
from gps.guiders.guider import DivergedError
from gps.runs.best import saved_like


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path, quick):
    """A second guider, nothing drawn at the end of a run, and a folder of the test's own."""
    monkeypatch.setitem(GUIDERS, "other", GUIDERS["badmm"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """Runs that take no time, by name, in the order in which they were trained.

    The return of seed s is -8 * (s + 1) / iteration, the score as much without the sign, and s of 4 test episodes are
    solved; the other guider takes ten times the steps. A run whose name is in `diverging` diverges in its second
    iteration.
    """

    def quick(folder, *, quiet=False, programs=None):
        run = folder.settings["run"]
        quick.names.append(folder.path.name)
        folder.metrics.rewind(0)
        for i in range(run["iterations"]):
            if i == 1 and folder.path.name in quick.diverging:
                raise DivergedError("condition 1 lost all its samples")
            bad = 8 * (run["seed"] + 1) / (i + 1)
            steps = (i + 1) * (100 if run["guider"] == "badmm" else 1000)
            row = {"iteration": i, "steps": steps, "iteration_seconds": 2.0}
            row |= {"test_solved": run["seed"], "test_episodes": 4}
            folder.metrics.append(row | {"learner_return": -bad, "test_score": bad})
        guider = programs.guider
        like = saved_like(guider, jax.eval_shape(guider.init, jax.random.key(0)))
        saved = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        folder.checkpoints.save(run["iterations"], saved, {"seconds": 0.0, "best_iteration": None})
        folder.write_summary({"iterations": run["iterations"], "score": {"name": "distance", "unit": "cm"}})

    quick.names, quick.diverging = [], set()
    monkeypatch.setattr("gps.comparisons.compare.train", quick)
    return quick
