"""`gps render`: videos of MuJoCo's pictures, or of the skeleton where there is no GL library."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from gps.figures import draw
from gps.figures.render import RenderError


def painted(model, states, targets, side):
    """Pictures that say which condition and time they are of: red is the target's x, green grows with time."""
    assert model.nq == 2
    red = np.round(255 * (targets[:, 0] + 0.3) / 0.6)[:, None]
    green = np.broadcast_to(20 * np.arange(states.shape[1]), (len(states), states.shape[1]))
    pictures = np.stack(np.broadcast_arrays(red, green, 0), -1).astype(np.uint8)
    return np.broadcast_to(pictures[:, :, None, None], (*green.shape, side, side, 3)).copy()


def test_videos_show_test_conditions_in_real_time(said, finished, monkeypatch):
    monkeypatch.setattr(draw, "render", painted)
    status, out, errors = said("render", finished, "--conditions", "2", "--size", "64", "--out", "v.mp4")
    assert (status, out, errors) == (0, ["v.mp4"], ["the learner after iteration 3 of 3"])
    frames = imageio_ffmpeg.read_frames("v.mp4")
    about = next(frames)
    assert about["size"] == (128, 90)  # two tiles, and the line above them
    assert about["fps"] == 20.0  # an action of the reacher takes 0.05 s
    shown = [np.frombuffer(frame, np.uint8).reshape(90, 128, 3)[40, 100].astype(int) for frame in frames]
    np.testing.assert_allclose([green for _, green, _ in shown], [*range(0, 180, 20), *[160] * 20], atol=12)
    assert said("render", finished, "--size", "64", "--out", "v.gif")[:2] == (0, ["v.gif"])
    assert Image.open("v.gif").size == (128, 26 + 128)  # four tiles


def test_without_gl_the_skeleton_is_shown_and_the_way_to_more_is_told(said, finished, monkeypatch):
    def failing(*_):
        raise RenderError("no EGL")

    monkeypatch.setattr(draw, "render", failing)
    status, out, errors = said("render", finished, "--best", "--out", "v.gif")
    assert (status, out) == (0, ["v.gif"])
    assert errors[0].startswith("the best learner")
    assert errors[1].startswith("the skeleton alone is shown, for MuJoCo's renderer failed (no EGL): it needs a GL lib")
    assert Image.open("v.gif").n_frames == 9  # states of an episode of eight actions


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "v.avi"], "--out v.avi: a video ends in .mp4 or .gif"),
        (["--out", "run/config.toml.gif"], "run/config.toml.gif exists: use another --out"),
        (["--size", "5"], "--size must be from 32 to 2048, not 5"),
        (["--conditions", "0"], "--conditions must be from 1 to 100, not 0"),
    ],
)
def test_mistakes_are_one_line_and_overwrite_nothing(said, options, reason):
    Path("run").mkdir()
    Path("run/config.toml.gif").write_text("mine")
    assert said("render", "run", *options) == (2, [], [f"gps: {reason}"])
    assert Path("run/config.toml.gif").read_text() == "mine"
