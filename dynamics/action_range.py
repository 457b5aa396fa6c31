"""Models whose actions are in [-1, 1], whatever the control ranges of their MJCF."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import copy

import mujoco
import numpy as np

STATELESS, FIXED = int(mujoco.mjtDyn.mjDYN_NONE), int(mujoco.mjtGain.mjGAIN_FIXED)
NO_BIAS, AFFINE = int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)
LINEAR = {int(getattr(mujoco.mjtDyn, f"mjDYN_{name}")) for name in ("NONE", "INTEGRATOR", "FILTER", "FILTEREXACT")}


def with_unit_actions(model: mujoco.MjModel) -> mujoco.MjModel:
    """A model that does for action a what the given one does for control = middle + half * a of its control range.

    With force = gain * control + bias, its gain is half * gain, and gain * middle is added to its bias. An activation,
    which follows the control linearly, is counted in units of half. A model whose ranges are all -1 to 1 is returned
    as it is.

    Errors:
        ValueError naming an actuator that has no control range, whose gain is not constant, whose activation is not
        linear in the control (muscles), or which has an activation and a range that is not symmetric.
    """
    limited = model.actuator_ctrllimited.astype(bool)
    ranges = model.actuator_ctrlrange
    if limited.all() and (ranges == [-1.0, 1.0]).all():
        return model
    scaled = copy.deepcopy(model)
    for i in range(model.nu):
        middle, half = ranges[i].mean(), np.diff(ranges[i])[0] / 2
        _check(model, i, bool(limited[i]), middle)
        gain = model.actuator_gainprm[i, 0]
        scaled.actuator_gainprm[i, 0] = half * gain
        if middle:
            scaled.actuator_biasprm[i, 0] += gain * middle
        if middle and model.actuator_biastype[i] == NO_BIAS:
            scaled.actuator_biastype[i] = AFFINE
        scaled.actuator_actrange[i] /= half
        scaled.actuator_ctrlrange[i] = -1.0, 1.0
    return scaled


def _check(model: mujoco.MjModel, i: int, limited: bool, middle: float) -> None:
    what = f"actuator {model.actuator(i).name or i!r}"
    if not limited:
        raise ValueError(f"{what} has no control range, and actions are in [-1, 1]: give it ctrlrange='LOW HIGH'")
    kind, bias = model.actuator_dyntype[i], model.actuator_biastype[i]
    if model.actuator_gaintype[i] != FIXED or bias not in (NO_BIAS, AFFINE) or kind not in LINEAR:
        raise ValueError(f"{what} is not linear in its control, so that it can not be scaled: give it ctrlrange='-1 1'")
    if kind != STATELESS and middle:
        low, high = model.actuator_ctrlrange[i]
        raise ValueError(
            f"{what} has an activation and the control range {low:g} to {high:g}: make the range symmetric"
        )
