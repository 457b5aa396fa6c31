"""A privileged teacher from the folder of another run."""

from __future__ import annotations

from typing import Any

from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.resume import load
from gps.settings import SettingsError


def load_teacher(experiment: Experiment, guider: Any) -> Any:
    """The teacher that a run's guider takes from another run before its first iteration; None where it takes none.

    Args:
        guider: that of the experiment; see `Guider` on `teacher_run`, `teacher` and `adopt`.

    Errors:
        SettingsError where the other run has no trained privileged policy, or one of another task or network;
        RunError and CheckpointError where it can not be read.
    """
    path = getattr(guider, "teacher_run", "")
    if not path:
        return None
    where = f"guider.teacher.run = {path!r}"
    folder = RunFolder.open(path)
    differences = folder.experiment.differences(experiment)
    for name, (theirs, own) in differences.items():
        if name == "run.task":
            raise SettingsError(f"{where} has another task: {theirs}, and this run has {own}")
        if name.startswith("task."):
            raise SettingsError(
                f"{where} has {name} = {theirs}, and this run has {own}: what the teacher sees or is rewarded for "
                "would be another"
            )
    other: Any
    _, other, state = load(folder)
    if not hasattr(other, "teacher"):
        raise SettingsError(f"{where}: {other.name} keeps no privileged policy")
    try:
        teacher = other.teacher(state)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    for name, (theirs, own) in differences.items():
        if ".network." in name:
            raise SettingsError(f"{where} has another network: {name} = {theirs}, and this run has {own}")
    return teacher
