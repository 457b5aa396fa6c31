"""A GIF of the learner at work, drawn with pillow: one palette for all frames keeps it small and free of flicker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from gps.files import written_whole

TILE, HEADER = 240, 26  # pixels: the side of one target's square, and the height of the line above them all
FINE = 4  # pixels are drawn this many times finer along each axis and averaged: smooth edges
HOLD = 1.0  # s, for which the last frame stays
SHORTEST = 0.02  # s, viewers slow down frames that are shorter

PAPER, REACH, ARM, JOINT = (255, 255, 255), (240, 242, 245), (60, 68, 84), (240, 242, 245)
TARGET, TIP, TRAIL = (213, 94, 0), (0, 114, 178), (120, 178, 214)
Color = tuple[int, int, int]


def animation(
    skeletons: Float[np.ndarray, "C T+1 P 2"],
    targets: Float[np.ndarray, "C 2"],
    dt: float,
    path: Path,
    count: int = 6,
) -> list[Path]:
    """Save a looping GIF, in real time, of reaches for `count` targets spread evenly over the given ones.

    Args:
        skeletons: m, the mechanism from base to fingertip. Conditions that diverged (NaN) are not shown.
        targets: m.
        dt: s, from one skeleton to the next.

    Returns:
        The files written: one, or none where every condition diverged.
    """
    skeletons, targets = np.asarray(skeletons, float), np.asarray(targets, float)
    sound = np.flatnonzero(np.isfinite(skeletons).all((1, 2, 3)) & np.isfinite(targets).all(1))
    if not len(sound):
        return []
    shown = spread(sound, count)
    stride = max(1, math.ceil(SHORTEST / dt - 1e-9))
    times = np.unique(np.append(np.arange(0, skeletons.shape[1], stride), skeletons.shape[1] - 1))
    pictures = _frames(skeletons[shown], targets[shown], times, dt)
    hundredths = np.round(100 * dt * times).astype(int)  # what GIF counts in; rounded so that no error adds up
    durations = [*(10 * np.diff(hundredths)).tolist(), round(1000 * HOLD)]
    with written_whole(path) as waiting:
        pictures[0].save(
            waiting, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
        )
    return [path]


def spread(values: np.ndarray, count: int) -> np.ndarray:
    """`count` of the values at even distances, the first and the last among them; all if there are fewer."""
    return values[np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int))]


@dataclass(frozen=True)
class View:
    """Where the points of the plane lie in the picture: one scale for all tiles, tiles row by row."""

    centre: Float[np.ndarray, " 2"]  # m, in the middle of each tile
    half: float  # m, from the middle to the edges
    columns: int

    def pixels(self, points: Float[np.ndarray, "*n 2"], tile: int) -> Float[np.ndarray, "*n 2"]:
        """Columns and rows of the picture, from its upper left corner."""
        corner = np.array([tile % self.columns, tile // self.columns]) * TILE + np.array([0, HEADER])
        return corner + TILE / 2 * (1 + np.array([1, -1]) * (points - self.centre) / self.half)


def view_of(skeletons: Float[np.ndarray, "C T+1 P 2"], targets: Float[np.ndarray, "C 2"]) -> View:
    """The view around the first base in which all that moves, can be reached or is to be reached has room."""
    centre = skeletons[0, 0, 0]
    points = np.concatenate([skeletons.reshape(-1, 2), targets])
    half = max(reach(skeletons), np.abs(points - centre).max(), 1e-9)
    return View(centre, 1.08 * half, columns=math.ceil(math.sqrt(len(targets))))


def reach(skeletons: Float[np.ndarray, "C T+1 P 2"]) -> float:
    """How far from its base a mechanism comes that is stretched out, in metres; 0 for a point."""
    return float(np.linalg.norm(np.diff(skeletons[0, 0], axis=0), axis=1).sum())


class _Pen:
    """Draws on a picture FINE times finer than the numbers say."""

    def __init__(self, picture: Image.Image):
        self.draw = ImageDraw.Draw(picture)

    def disc(self, centre, radius: float, color: Color) -> None:
        x, y = FINE * centre
        self.draw.ellipse((x - FINE * radius, y - FINE * radius, x + FINE * radius, y + FINE * radius), fill=color)

    def line(self, points, width: float, color: Color) -> None:
        """With round ends and joints."""
        self.draw.line([tuple(p) for p in FINE * points], fill=color, width=round(FINE * width))
        for point in points:
            self.disc(point, width / 2, color)

    def text(self, at, text: str, size: float) -> None:
        font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", FINE * size)
        self.draw.text(tuple(FINE * np.asarray(at)), text, ARM, font, anchor="ls")


def _frames(skeletons, targets, times, dt: float) -> list[Image.Image]:
    view = view_of(skeletons, targets)
    tiles = range(len(targets))
    size = (view.columns * TILE, -(-len(targets) // view.columns) * TILE + HEADER)
    bodies = np.stack([view.pixels(skeletons[tile], tile) for tile in tiles])
    goals = np.stack([view.pixels(targets[tile], tile) for tile in tiles])
    errors = np.linalg.norm(skeletons[:, :, -1] - targets[:, None], axis=-1)

    ground = Image.new("RGB", (FINE * size[0], FINE * size[1]), PAPER)  # what stays; trails grow on it
    for tile in tiles:
        _Pen(ground).disc(view.pixels(view.centre, tile), reach(skeletons) / view.half * TILE / 2, REACH)
    palette, pictures, before = _palette(), [], 0
    for t in times:
        for tile in tiles:
            _Pen(ground).line(bodies[tile, before : t + 1, -1], 2, TRAIL)
        picture = ground.copy()
        pen = _Pen(picture)
        pen.text((10, HEADER - 7), f"t = {t * dt:.2f} s", 13)
        for tile in tiles:
            pen.disc(goals[tile], 6, TARGET)
            pen.line(bodies[tile, t], 8, ARM)
            for joint in bodies[tile, t, :-1]:
                pen.disc(joint, 2, JOINT)
            pen.disc(bodies[tile, t, -1], 3, TIP)
            pen.text(view.pixels(view.centre - 0.93 * view.half, tile), f"{100 * errors[tile, t]:.2f} cm", 11)
        pictures.append(picture.reduce(FINE).quantize(palette=palette, dither=Image.Dither.NONE))
        before = t
    return pictures


def _palette() -> Image.Image:
    """One palette for all frames: the colours, and what an edge between two of them is averaged to."""
    colors = np.array([PAPER, REACH, ARM, TARGET, TIP, TRAIL], float)
    pairs = [(a, b) for n, a in enumerate(colors) for b in colors[n + 1 :] if np.abs(b - a).max() > 64]
    between = [a + (b - a) * i / 8 for a, b in pairs for i in range(1, 8)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([colors, between]).round().astype(np.uint8).ravel().tobytes())
    return palette
