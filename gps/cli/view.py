"""`gps view`: MuJoCo's own viewer with the learner of a run in the loop."""

from __future__ import annotations

import argparse
from typing import Any

from gps.cli.reading import add_best, add_run, read_run
from gps.errors import UserError


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("view", help="show the learner of a run at work in MuJoCo's own viewer")
    add_run(parser)
    add_best(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Show test conditions until the window is closed."""
    import numpy as np

    from gps.runs.finish import to_stderr
    from gps.runs.view import require_display, view
    from gps.tasks.control_task import is_control

    require_display()
    _, loaded = read_run(options)
    which, learner = loaded.chosen(options.best)
    if not is_control(learner.task):
        raise UserError(f"{options.run}: {learner.task.name} has no simulator, so that nothing can be seen")
    to_stderr(f"{which}; a double click chooses a body, and control and the right button of the mouse push it")
    view(learner.task, learner.policy, np.asarray(learner.task.test_contexts))
    return 0
