"""All figures of a run. One that can not be drawn is told in a line, and the others are drawn."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float

from gps.errors import described
from gps.figures import animation, episodes, returns, run
from gps.figures.episodes import LearnerEpisodes
from gps.figures.fields import Rows
from gps.figures.render import RenderError, render
from gps.tasks.task import RETURN

Note = Callable[[str], None]  # takes a line for the user


@dataclass(frozen=True)
class Simulated:
    """What MuJoCo's renderer draws."""

    model: mujoco.MjModel
    states: Float[np.ndarray, "C T+1 nstate"]


def draw_all(
    rows: Rows, acted: LearnerEpisodes | None, simulated: Simulated | None, figures: Path, note: Note
) -> list[Path]:
    """Draw every figure for which there are numbers into the folder `figures`.

    Args:
        rows: the run's metrics, one mapping per iteration.
        acted: of a `ControlTask`.
        simulated: the same episodes in a simulator.
        note: is told of each figure that failed, and of an animation that is not what it could be.

    Returns:
        The files written. Each appears under its name whole or not at all.
    """
    score = acted.score if acted else RETURN
    model_free = any("train_return" in row for row in rows)
    drawings = {
        "returns": lambda path: returns.returns(rows, path) if model_free or not acted else [],
        "learning_curves": lambda path: run.learning_curves(rows, score, path) if acted else [],
        # a model-free guider has no multipliers, and its KL is in the figure of its returns
        "multipliers": lambda path: [] if model_free else run.multipliers(rows, path),
        "local_models": lambda path: run.local_models(rows, path),
        "improvement": lambda path: run.improvement(rows, path),
        "episodes": lambda path: episodes.episodes(acted, path) if acted else [],
        "paths": lambda path: episodes.paths(acted, path) if acted and acted.skeletons is not None else [],
        "animation": lambda path: animate(acted, simulated, path.with_suffix(".gif"), note) if acted else [],
    }
    files = []
    for name, drawing in drawings.items():
        try:
            files += drawing(figures / name)
        except Exception as error:
            note(f"figure {name} is missing: {described(error)}")
    return files


def animate(acted: LearnerEpisodes, simulated: Simulated | None, path: Path, note: Note) -> list[Path]:
    """An animation by MuJoCo's renderer where there is one, else of the skeleton, else none and a note why."""
    conditions = animation.shown_conditions(acted)
    if not len(conditions):
        return []
    why = "the task has no MuJoCo model"
    if simulated is not None:
        try:
            return rendered(acted, simulated, path, conditions)
        except RenderError as error:
            why = f"MuJoCo's renderer failed ({error})"
    if acted.skeletons is None:
        note(f"figure animation is missing: {why}, and the task has no skeleton")
        return []
    return animation.skeletons(acted, path, conditions)


def rendered(
    acted: LearnerEpisodes, simulated: Simulated, path: Path, conditions: np.ndarray, side: int = animation.TILE
) -> list[Path]:
    """An animation by MuJoCo's renderer, GIF or MP4 by its name; the file.

    Args:
        conditions: their numbers; each is a tile of `side` pixels.

    Errors:
        RenderError where there is no GL library that works.
    """
    targets = None if acted.targets is None else acted.targets[conditions]
    states = simulated.states[conditions][:, animation.shown_times(acted, path)]
    return animation.tile_pictures(acted, render(simulated.model, states, targets, side), path, conditions)
