"""A privileged teacher from the folder of another run."""

from __future__ import annotations

from typing import Any

from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.resume import load
from gps.settings import SettingsError


def with_teacher(state: Any, experiment: Experiment, guider: Any) -> Any:
    """The state before the first iteration, with the teacher that the guider takes from another run, if it takes one.

    Args:
        state: of the guider, in arrays; or its shapes (`jax.eval_shape`), to find the errors and compute nothing.
        guider: that of the experiment; see `Guider` on `teacher_run`, `teacher` and `adopt`.

    Errors:
        SettingsError where the other run can not be read, has no trained privileged policy, or has one of another task
        or network.
    """
    path = getattr(guider, "teacher_run", "")
    if not path:
        return state
    other: Any
    try:
        run = load(RunFolder.open(path, experiment.code))
        other = run.guider
        if not hasattr(other, "teacher"):
            raise ValueError(f"{other.name} keeps no privileged policy")
        adopted = guider.adopt(state, other.teacher(run.state))
        for name, (has, own) in run.experiment.differences(experiment).items():
            if name.startswith("task."):
                raise ValueError(
                    f"it has {name} = {has}, and this run has {own}: what the teacher sees or is rewarded for would be "
                    "another"
                )
    except (UserError, ValueError) as error:
        raise SettingsError(f"guider.teacher.run = {path}: {error}") from error
    return adopted
