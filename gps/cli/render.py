"""`gps render`: a video of a run's learner at work in test conditions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gps.cli.reading import add_best, add_run, read_run
from gps.errors import UserError

KINDS = (".mp4", ".gif")
MOST = 2**31  # bytes of all pictures
GL = "it needs a GL library, such as Debian's libegl1 with libegl-mesa0, or libosmesa6"


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("render", help="write a video of the learner of a run at work in test conditions")
    add_run(parser)
    add_best(parser)
    parser.add_argument("--out", help="the file to write, .mp4 or .gif (default: RUN.mp4)")
    parser.add_argument("--conditions", type=int, default=4, help="how many are shown side by side (default: 4)")
    parser.add_argument("--size", type=int, default=480, help="pixels of each one's side (default: 480)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Render, and print the name of the file."""
    path = _place(options)
    import jax

    from gps.figures import animation
    from gps.figures.draw import rendered
    from gps.figures.render import RenderError
    from gps.runs.evaluate import Evaluation
    from gps.runs.finish import shown_episodes, to_stderr
    from gps.runs.programs import Programs
    from gps.tasks.control_task import is_control

    _, loaded = read_run(options)
    which, learner = loaded.chosen(options.best)
    task = learner.task
    if not is_control(task):
        raise UserError(f"{options.run}: {task.name} has no simulator, so that nothing can be seen; see gps evaluate")
    to_stderr(which)
    evaluation = Programs(loaded.guider).evaluate(learner.policy, jax.random.key(0))
    assert isinstance(evaluation, Evaluation)
    acted, simulated = shown_episodes(task, evaluation, to_stderr)
    conditions = animation.shown_conditions(acted, options.conditions)
    if not len(conditions):
        raise UserError(f"{options.run}: all {len(acted.xs)} test conditions diverged, so that nothing can be seen")
    frames = len(animation.shown_times(acted, path))
    if (room := 3 * len(conditions) * frames * options.size**2) > MOST:
        raise UserError(
            f"{len(conditions)} conditions of {frames} pictures of {options.size} x {options.size} take "
            f"{room / 2**30:.1f} GB, and may take {MOST / 2**30:.0f}: lower --conditions or --size"
        )
    try:
        rendered(acted, simulated, path, conditions, options.size)
    except RenderError as error:
        if acted.skeletons is None:
            raise UserError(f"MuJoCo's renderer failed ({error}): {GL}") from error
        to_stderr(f"the skeleton alone is shown, for MuJoCo's renderer failed ({error}): {GL}")
        animation.skeletons(acted, path, conditions)
    print(path)
    return 0


def _place(options: argparse.Namespace) -> Path:
    """Where the video goes; UserError for options that can not be."""
    path = Path(options.out or f"{Path(options.run).name}.mp4")
    if path.suffix not in KINDS:
        raise UserError(f"--out {path}: a video ends in {' or '.join(KINDS)}")
    if path.exists():
        raise UserError(f"{path} exists: use another --out")
    for name, least, most in (("conditions", 1, 100), ("size", 32, 2048)):
        value = getattr(options, name)
        if not least <= value <= most:
            raise UserError(f"--{name} must be from {least} to {most}, not {value}")
    from gps.figures import video

    if path.suffix == video.SUFFIX:
        video.require_writer()
    return path
