"""A replay for the page: some conditions frame by frame, in the scene and as numbers over time."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

from gps.figures.report import scene
from gps.figures.report.episodes import MOST_STEPS, Acted, Shown, spread
from gps.figures.report.panels import plain, text
from gps.tasks.task import Score

MOST_CONDITIONS = 6  # of training, and as many of the test
FINE = 5e-4  # unit of poses: of positions as shares of the diagonal of what is seen, and of quaternions
LEVELS = 4000  # of another number between its smallest and its largest


def replay(shown: Shown) -> dict[str, Any] | None:
    """Some conditions, frame by frame: poses of bodies for the scene, and states, actions and costs over time.

    None where all of the learner's episodes diverged.
    """
    times, conditions = spread(shown.learner.xs.shape[1], MOST_STEPS), _replayed(shown)
    acted = {"learner": shown.learner, **({} if shown.guider is None else {"guider": shown.guider})}
    some = {
        (who, condition): one
        for condition in conditions
        for who, one in acted.items()
        if condition < len(one.states) and np.isfinite(one.states[condition]).all()
    }
    if not some:
        return None
    entries = {condition: {"name": shown.name(condition), "acted": {}, "target": None} for condition in conditions}
    for (who, condition), one in some.items():
        entries[condition]["acted"][who] = _episode(one, condition, times, shown.score)
        if shown.targets is not None:
            entries[condition]["target"] = plain(shown.targets[condition])
    drawn = None
    if shown.model is not None:
        drawn, poses = staged(shown.model, np.stack([one.states[i][times] for (_, i), one in some.items()]))
        for (who, condition), numbers in zip(some, poses, strict=True):
            entries[condition]["acted"][who]["poses"] = numbers
    return {"times": plain(shown.dt * times), "scene": drawn, "conditions": list(entries.values())}


def staged(
    model: mujoco.MjModel, states: Float[np.ndarray, "E F nstate"]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The scene of E episodes of F frames for the page, and what the bodies do that move in it, `coded`.

    Of a pose there are seven numbers: position and quaternion. The scene's `low` and `high` are the corners of a box
    around what moves, and around what stands still and is no wide floor.
    """
    found = [scene.poses(model, episode) for episode in states]
    places, turns = (np.stack(numbers) for numbers in zip(*found, strict=True))
    parts = scene.parts_of(model)
    moves = np.ptp(np.concatenate([places, turns], axis=-1), axis=(0, 1)).max(-1) > 1e-9
    bodies = [body for body in dict.fromkeys(part.body for part in parts) if moves[body]]
    low, high = _seen(parts, bodies, places, turns)
    length = float(np.linalg.norm(high - low))
    numbers = np.concatenate([places[:, :, bodies] / length, turns[:, :, bodies]], axis=-1)
    flat = numbers.reshape(*numbers.shape[:2], -1).swapaxes(1, 2)
    drawn = [_drawn(part, bodies, places[0, 0], turns[0, 0]) for part in parts]
    stage = {"parts": drawn, "length": length, "low": plain(low), "high": plain(high)}
    return stage | scene.view(model, states[0, 0], high - low), [coded(one, np.full(len(one), FINE)) for one in flat]


def coded(values: Float[np.ndarray, "n F"], units: Float[np.ndarray, " n"] | None = None) -> dict[str, Any]:
    """Numbers over time as whole numbers of small units, each the change since the one before, so that they are short.

    Args:
        units: of each of the n; by default 1 / `LEVELS` of what it spans, or itself where it stays.
    """
    if units is None:
        spans, first = np.ptp(values, axis=1), np.abs(values[:, 0])
        units = np.where(spans > 0, spans / LEVELS, np.where(first > 0, first, 1.0))
    rounded = plain(units)
    whole = np.round(values / np.array(rounded)[:, None]).astype(int)
    return {"units": rounded, "changes": np.diff(whole, axis=1, prepend=0).tolist()}


def _replayed(shown: Shown) -> list[int]:
    """Conditions spread evenly over those of training, and over those of the test; none that diverged."""
    sound = np.flatnonzero(np.isfinite(shown.learner.states).all((1, 2)))
    parts = [sound[sound < shown.trained], sound[sound >= shown.trained]]
    return np.concatenate([part[spread(len(part), MOST_CONDITIONS)] for part in parts]).tolist()


def _seen(parts: list[scene.Part], bodies: list[int], places, turns) -> tuple[np.ndarray, np.ndarray]:
    corners = []
    for part in parts:
        vertices = part.mesh[0]
        if part.body in bodies:
            some = (slice(None), slice(None, None, max(1, places.shape[1] // 12)), part.body)
            corners += [
                vertices @ scene.rotation(turn).T + place
                for place, turn in zip(places[some].reshape(-1, 3), turns[some].reshape(-1, 4), strict=True)
            ]
        elif np.abs(vertices).max() < scene.FLOOR:
            corners.append(vertices @ scene.rotation(turns[0, 0, part.body]).T + places[0, 0, part.body])
    points = np.concatenate(corners) if corners else scene.FLOOR * np.array([[-1.0] * 3, [1.0] * 3])
    low, high = points.min(0), points.max(0)
    margin = 0.04 * float(np.linalg.norm(high - low))
    return low - margin, high + margin


def _drawn(part: scene.Part, bodies: list[int], places: np.ndarray, turns: np.ndarray) -> dict[str, Any]:
    """A geom for the page: with the number of its body among those that move, or in the world's frame."""
    vertices, triangles = part.mesh
    moves = part.body in bodies
    if not moves:
        vertices = vertices @ scene.rotation(turns[part.body]).T + places[part.body]
    return {
        "name": text(part.name),
        "color": part.color,
        "body": bodies.index(part.body) if moves else None,
        "vertices": plain(vertices.ravel().round(5)),
        "triangles": triangles.ravel().tolist(),
    }


def _episode(acted: Acted, condition: int, times: np.ndarray, score: Score) -> dict[str, Any]:
    us = np.concatenate([acted.us[condition], acted.us[condition, -1:]])  # the last one is held
    series = {"x": acted.xs[condition][times].T, "u": us[times].T, "cost": acted.costs[condition][times][None]}
    if acted.ends is not None:
        series["path"] = acted.ends[condition][times].T
    return {"said": acted.said(condition, score), **{name: coded(values) for name, values in series.items()}}
