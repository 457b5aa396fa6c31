"""MP4 files: the frames that were given, at the right times."""

from __future__ import annotations

import importlib.util

import imageio_ffmpeg
import numpy as np
import pytest

from gps.figures import video

COLORS = np.array([[220, 20, 20], [20, 200, 20], [20, 20, 220]], np.uint8)


def test_a_video_has_the_frames_in_their_order_and_time(tmp_path):
    pictures = [np.broadcast_to(color, (33, 50, 3)) for color in COLORS]
    video.save(pictures, 0.1 * np.arange(3), 0.5, tmp_path / "v.mp4")
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "v.mp4"))
    about = next(frames)
    assert about["size"] == (50, 34)  # of even sides
    assert about["fps"] == 10.0
    shown = np.stack([np.frombuffer(frame, np.uint8).reshape(34, 50, 3)[10, 20] for frame in frames]).astype(int)
    np.testing.assert_allclose(shown, COLORS[[0, 1, 2, 2, 2, 2, 2, 2]].astype(int), atol=12)


def test_what_ffmpeg_says_is_an_error_of_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho first >&2; echo no such codec >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(video.VideoError, match=r"v.mp4: ffmpeg failed: no such codec$"):
        video.save([np.zeros((4, 4, 3), np.uint8)], np.zeros(1), 1.0, tmp_path / "v.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["ffmpeg"]


def test_without_the_package_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(video.VideoError, match=r"pip install 'guided-policy-search\[video\]'"):
        video.require_writer()
