"""The choice of an engine: "mujoco" (C, all cores) or "mjx" (on the device, differentiable)."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from difflib import get_close_matches

import jax
import mujoco

from dynamics.mujoco_engine import MujocoSimulator
from dynamics.simulator import Simulator, joints_size

ENGINES = ("auto", "mujoco", "mjx")


def make_simulator(model: mujoco.MjModel, substeps: int, engine: str = "auto") -> Simulator:
    """Build a simulator of `model` that takes `substeps` physics steps per action.

    Args:
        model: a compiled MuJoCo model.
        substeps: at least 1; an action lasts substeps * model.opt.timestep seconds.
        engine: "mujoco" (C engine, all cores), "mjx" (on the device, differentiable), or "auto":
            mjx where jax runs on a GPU, mujoco elsewhere.

    Errors:
        ValueError for an unknown engine, fewer than one substep, or a model whose physics state holds
        more than time, qpos, qvel and act (plugins, delayed actuators).
    """
    engine = resolve_engine(engine)
    if substeps < 1:
        raise ValueError(f"substeps must be at least 1, not {substeps}")
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    if size != joints_size(model):
        raise ValueError(
            f"the model keeps {size} numbers of physics state but time, qpos, qvel and act are only "
            f"{joints_size(model)}: remove its plugins and actuator delays"
        )
    if engine == "mjx":
        from dynamics.mjx_engine import MjxSimulator  # takes half a second to import

        return MjxSimulator(model, substeps)
    return MujocoSimulator(model, substeps)


def resolve_engine(engine: str) -> str:
    """The engine that "auto" stands for here; any other known name is returned as it is."""
    if engine not in ENGINES:
        close = get_close_matches(engine, ENGINES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown engine {engine!r}{hint} (known: {', '.join(ENGINES)})")
    if engine == "auto":
        return "mjx" if jax.default_backend() == "gpu" else "mujoco"
    return engine
