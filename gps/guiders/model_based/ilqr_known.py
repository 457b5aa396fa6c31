"""BADMM on a known model: the simulator's own derivatives stand where other methods fit dynamics to samples.

Everything else is `badmm`: what the two differ by on a task is what a model is worth there. One roll-out of each
condition says where to differentiate; fitted dynamics need several, which differ by exploration.

Source:
    Levine and Koltun, "Variational policy search via trajectory optimization", NIPS 2013, optimises trajectories of a
    known model likewise; the constraint and its multipliers are those of `badmm`.
"""

from __future__ import annotations

from gps.errors import UserError
from gps.guiders.model_based.badmm import Badmm, BadmmSettings
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.settings import LocalModelSettings, SamplingSettings, TaughtLearnerSettings
from gps.tasks.control_task import ControlTask


def ilqr_known_settings() -> BadmmSettings:
    """The defaults: those of `badmm`, but for where the model comes from and the number of samples."""
    return BadmmSettings(
        sampling=SamplingSettings(samples=2),
        local_model=LocalModelSettings(prior="known"),
        learner=TaughtLearnerSettings(sobolev=1.0),
    )


def ilqr_known(task: ControlTask, settings: BadmmSettings) -> ModelBased:
    """The guider of that name.

    Errors:
        UserError where the settings ask for fitted dynamics, or the simulator has no derivatives for the task.
    """
    prior = settings.local_model.prior
    if prior != "known":
        raise UserError(
            f"guider.local_model.prior = {prior!r} is not for 'ilqr-known', which differentiates the simulator: "
            "take 'known', or the guider 'badmm'"
        )
    return ModelBased(task, Badmm(settings, "ilqr-known"))
