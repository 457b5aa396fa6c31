"""MP4 files of H.264, written by the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from gps.errors import UserError
from gps.files import written_whole

SUFFIX = ".mp4"


class VideoError(UserError):
    """There is no video; the message says what would be right."""


def require_writer() -> None:
    """Raise VideoError where the package that writes videos is not installed."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise VideoError(
            "MP4 is written by imageio-ffmpeg, which is not installed: pip install 'guided-policy-search[video]', or "
            "ask for a .gif"
        )


def save(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]], times: Float[np.ndarray, " F"], hold: float, path: Path
) -> None:
    """Save pictures, the first of which are one distance in time apart; the last one stays for `hold` seconds.

    Errors:
        VideoError without the package that writes them, or where its ffmpeg fails.
    """
    require_writer()
    import imageio_ffmpeg

    step = times[1] - times[0] if len(times) > 1 else hold
    height, width = (side + side % 2 for side in pictures[0].shape[:2])  # H.264 wants them even
    frames = np.full((len(pictures) + round(hold / step), height, width, 3), 255, np.uint8)
    for number, picture in enumerate([*pictures, *[pictures[-1]] * round(hold / step)]):
        frames[number, : picture.shape[0], : picture.shape[1]] = picture
    taken = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{1 / step:.6f}", "-i", "-"]
    made = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-f", "mp4"]
    with written_whole(path) as waiting:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *taken, *made, waiting]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip().splitlines()
            raise VideoError(f"{path}: ffmpeg failed: {why[-1] if why else done.returncode}")
