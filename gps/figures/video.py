"""MP4 files of H.264, written by the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from gps.errors import UserError, not_installed
from gps.files import written_whole

SUFFIX = ".mp4"


class VideoError(UserError):
    """There is no video; the message says what would be right."""


def require_writer() -> str:
    """The path of ffmpeg. It is looked for by a fork, once: call this before jax is imported.

    Errors:
        VideoError where the package that writes videos is not installed, or has no ffmpeg for this machine.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise VideoError(not_installed("an MP4", "imageio-ffmpeg", "video", ", or ask for a .gif"))
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(f"MP4 needs ffmpeg: {error}; or ask for a .gif") from error


def save(
    pictures: Iterable[UInt8[np.ndarray, "h w 3"]], times: Float[np.ndarray, " F"], hold: float, path: Path
) -> None:
    """Save pictures, the first of which are one distance in time apart; the last one stays for `hold` seconds.

    They are taken one after the other, so that only one has to be there at a time.

    Errors:
        VideoError without the package that writes them, or where its ffmpeg fails.
    """
    ffmpeg = require_writer()
    step = times[1] - times[0] if len(times) > 1 else hold
    pictures = map(_even, pictures)
    last = next(pictures)
    size = f"{last.shape[1]}x{last.shape[0]}"
    taken = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{1 / step:.6f}", "-i", "-"]
    made = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-f", "mp4"]
    with written_whole(path) as waiting, tempfile.TemporaryFile() as said:
        command = [ffmpeg, "-y", "-loglevel", "error", *taken, *made, waiting]
        with suppress(BrokenPipeError), subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as process:
            assert process.stdin
            process.stdin.write(last.tobytes())
            for last in pictures:
                process.stdin.write(last.tobytes())
            for _ in range(round(hold / step)):
                process.stdin.write(last.tobytes())
        if process.returncode:
            said.seek(0)
            why = said.read().decode(errors="replace").strip().splitlines()
            raise VideoError(f"{path}: ffmpeg failed: {why[-1] if why else process.returncode}")


def _even(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """With white at its lower and right edge, where its sides are odd: H.264 wants them even."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
