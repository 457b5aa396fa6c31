"""The learner at work, as a GIF or MP4: MuJoCo's own pictures or skeletons, a tile for each of a few conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from gps.figures import video
from gps.figures.episodes import LearnerEpisodes, reach
from gps.files import written_whole

TILE, HEADER = 240, 26  # pixels: the side of one condition's square, and the height of the line above them all
FINE = 4  # skeletons are drawn this many times finer along each axis and averaged: smooth edges
HOLD = 1.0  # s, for which the last frame stays
SHORTEST = 0.02  # s, viewers slow down frames that are shorter
MOST_FRAMES = 120  # of a long episode fewer are shown

PAPER, REACH, ARM, JOINT = (255, 255, 255), (240, 242, 245), (60, 68, 84), (240, 242, 245)
TARGET, TIP, TRAIL = (213, 94, 0), (0, 114, 178), (120, 178, 214)
Color = tuple[int, int, int]


def shown_conditions(acted: LearnerEpisodes, count: int = 6) -> np.ndarray:
    """`count` conditions spread evenly over those that did not diverge, the first and the last among them."""
    sound = np.flatnonzero(np.isfinite(acted.xs).all((1, 2)))
    return sound[np.unique(np.linspace(0, len(sound) - 1, min(count, len(sound))).round().astype(int))]


def shown_times(acted: LearnerEpisodes, path: Path) -> np.ndarray:
    """Indices of the states that are shown in real time, the first and the last among them."""
    last = acted.xs.shape[1] - 1
    most = last if path.suffix == video.SUFFIX else MOST_FRAMES
    stride = max(1, math.ceil(SHORTEST / acted.dt - 1e-9), math.ceil(last / most))
    return np.unique(np.append(np.arange(0, last + 1, stride), last))


def tile_pictures(
    acted: LearnerEpisodes, tiles: UInt8[np.ndarray, "C F size size 3"], path: Path, conditions: np.ndarray
) -> list[Path]:
    """Save square pictures for the `shown_times` of these conditions; returns the file."""
    columns, side = _columns(len(tiles)), tiles.shape[2]

    def composed() -> Iterator[Image.Image]:
        for number, t in enumerate(shown_times(acted, path)):
            picture = Image.new("RGB", _size(len(tiles), side), PAPER)
            pen = _Pen(picture, 1)
            pen.text((10, HEADER - 7), f"t = {t * acted.dt:.2f} s", 13)
            for tile, condition in enumerate(conditions):
                corner = (tile % columns * side, HEADER + tile // columns * side)
                picture.paste(Image.fromarray(tiles[tile, number]), corner)
                pen.text((corner[0] + 9, corner[1] + side - 9), acted.said(condition), 11)
            yield picture

    if path.suffix == video.SUFFIX:
        return _save(composed(), acted, path)
    pictures = list(composed())
    palette = pictures[len(pictures) // 2].quantize(256)  # one for all frames: no flicker
    return _save((picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures), acted, path)


def skeletons(acted: LearnerEpisodes, path: Path, conditions: np.ndarray) -> list[Path]:
    """Save the skeletons of these conditions; returns the file."""
    return _save(_frames(acted, shown_times(acted, path), conditions), acted, path)


def _save(pictures: Iterable[Image.Image], acted: LearnerEpisodes, path: Path) -> list[Path]:
    """In real time; a GIF loops."""
    times = acted.dt * shown_times(acted, path)
    if path.suffix == video.SUFFIX:
        video.save((np.asarray(picture.convert("RGB")) for picture in pictures), times, HOLD, path)
        return [path]
    first, *others = pictures
    hundredths = np.round(100 * times).astype(int)  # what GIF counts in: no error adds up
    durations = [*(10 * np.diff(hundredths)).tolist(), round(1000 * HOLD)]
    with written_whole(path) as waiting:
        first.save(waiting, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return [path]


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _size(count: int, side: int = TILE) -> tuple[int, int]:
    return _columns(count) * side, -(-count // _columns(count)) * side + HEADER


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
    return View(centre, 1.08 * half, columns=_columns(len(skeletons)))


class _Pen:
    """Draws on a picture that is some times finer than the numbers say."""

    def __init__(self, picture: Image.Image, fine: int = FINE):
        self.draw, self.fine = ImageDraw.Draw(picture), fine

    def disc(self, centre, radius: float, color: Color) -> None:
        (x, y), radius = self.fine * centre, self.fine * radius
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def line(self, points, width: float, color: Color) -> None:
        """With round ends and joints."""
        self.draw.line([tuple(p) for p in self.fine * points], fill=color, width=round(self.fine * width))
        for point in points:
            self.disc(point, width / 2, color)

    def text(self, at, text: str, size: float, color: Color = ARM) -> None:
        font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", self.fine * size)
        self.draw.text(tuple(self.fine * np.asarray(at)), text, color, font, anchor="ls")


def _frames(acted: LearnerEpisodes, times: np.ndarray, conditions: np.ndarray) -> list[Image.Image]:
    assert acted.skeletons is not None
    plane = acted.plane
    mechanisms = acted.skeletons[conditions][..., plane]
    targets = np.empty((0, 2)) if acted.targets is None else acted.targets[conditions][:, plane]
    view = view_of(mechanisms, targets)
    tiles = range(len(conditions))
    bodies = np.stack([view.pixels(mechanisms[tile], tile) for tile in tiles])
    goals = [view.pixels(target, tile) for tile, target in enumerate(targets)]

    width, height = _size(len(conditions))
    ground = Image.new("RGB", (FINE * width, FINE * height), PAPER)  # what stays; trails grow on it
    for tile in tiles:
        _Pen(ground).disc(view.pixels(view.centre, tile), reach(mechanisms) / view.half * TILE / 2, REACH)
    palette, pictures, before = _palette(), [], 0
    for t in times:
        for tile in tiles:
            _Pen(ground).line(bodies[tile, before : t + 1, -1], 2, TRAIL)
        picture = ground.copy()
        pen = _Pen(picture)
        pen.text((10, HEADER - 7), f"t = {t * acted.dt:.2f} s", 13)
        for goal in goals:
            pen.disc(goal, 6, TARGET)
        for tile, condition in enumerate(conditions):
            pen.line(bodies[tile, t], 8, ARM)
            for joint in bodies[tile, t, :-1]:
                pen.disc(joint, 2, JOINT)
            pen.disc(bodies[tile, t, -1], 3, TIP)
            pen.text(view.pixels(view.centre - 0.93 * view.half, tile), acted.said(condition), 11)
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
