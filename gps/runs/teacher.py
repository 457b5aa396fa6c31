"""A privileged teacher taken from the folder of another run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gps.runs.folder import RunFolder
from gps.runs.resume import load

if TYPE_CHECKING:
    from gps.guiders.model_free.guider import ModelFree


def load_teacher(path: str, student: ModelFree) -> tuple[Any, Any]:
    """Parameters and normaliser of the guider of the run at `path`.

    Errors:
        ValueError where that run has no guider of the student's form on the student's task; RunError and
        CheckpointError where it can not be read.
    """
    guider: Any
    _, guider, state = load(RunFolder.open(path))
    roles = getattr(guider, "roles", None)
    if roles is None or "guider" not in roles.method.roles or roles.method.pull == "backtrack":
        raise ValueError(
            f"guider.teacher.run = {path!r} is a run of {guider.name}, which keeps no privileged policy: take one of "
            "'ppo-bc' or of a method that trains its teacher first"
        )
    if roles.method.guider == "frozen" and not guider.settings.teacher.run:
        needed = guider.settings.teacher.updates
        if state.updates < needed:
            raise ValueError(
                f"guider.teacher.run = {path!r} has had {int(state.updates)} of the {needed} updates of its teacher: "
                "bring that run to its end first (gps train --resume)"
            )
    for what, own, others in (
        ("task", student.task.name, guider.task.name),
        ("network", student.settings.network, guider.settings.network),
        (
            "sizes of observations",
            (student.roles.privileged, student.roles.observed),
            (roles.privileged, roles.observed),
        ),
    ):
        if own != others:
            raise ValueError(f"guider.teacher.run = {path!r} has another {what}: {others}, and this run has {own}")
    return state.params["policy" if roles.shared else "guider"], state.normalizers["guider"]
