"""The first controllers: what they do before anything is learnt, and how much they explore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.types import LinearGaussian
from dynamics.actuation import Hold, hold
from gps.errors import UserError
from gps.guiders.model_based.plan import Plans, plan
from gps.settings import check_at_least, check_one_of, check_positive
from gps.tasks.control_task import ControlTask, known_simulator

KINDS = ("auto", "zero", "pd", "ilqr", "demonstration")


@dataclass(frozen=True)
class StartSettings:
    """The first controllers.

    "zero": no action, with noise of `std`. "pd": each holds its start pose against gravity, joints return to it as
    critically damped oscillators. "ilqr": each follows a plan that iLQR finds on the task's known model (see `plan`).
    "demonstration": each follows the same recorded trajectory. "auto": "pd" where the start poses do not rest by
    themselves and the task's state begins with the positions and velocities of a model's joints, else "zero".
    """

    controller: str = "auto"  # "zero", "pd", "ilqr", "demonstration" or "auto", see above
    std: float = 0.3  # of the actions, of "zero"
    # rad or m, of the others: noise moves the joint that an action moves most by so much; it is at most half an action
    spread: float = 0.2
    frequency: float = 5.0  # rad/s, of the joints' return
    demonstration: str = ""  # file of numpy arrays us (T nu) and xs (T+1 nx), as np.savez writes it
    iterations: int = 100  # of iLQR
    # Of iLQR: sequences of actions from which the start in the middle is planned, the first to hold its pose, the rest
    # random; the others then begin with its plan. With 0 each begins with what holds its own pose.
    restarts: int = 0
    limit: float = 0.9  # largest action in a plan of iLQR; the rest is left to the feedback around it

    def __post_init__(self):
        check_one_of(self, "controller", KINDS)
        check_positive(self, "std", "spread", "frequency")
        check_at_least(self, 1, "iterations")
        check_at_least(self, 0, "restarts")
        if not 0.0 < self.limit <= 1.0:
            raise ValueError(f"limit is a share of the largest action, above 0 and at most 1, not {self.limit}")
        if (self.controller == "demonstration") != bool(self.demonstration):
            raise ValueError(
                f"demonstration = {self.demonstration!r} goes with controller = 'demonstration' and with no other, "
                f"which is {self.controller!r}"
            )


def start_controllers(
    task: ControlTask, settings: StartSettings, std_floor: float, key: PRNGKeyArray
) -> LinearGaussian:
    """The first controller of each training condition, in absolute coordinates; leading M.

    Args:
        key: of the random actions that plans are sought from.

    Errors:
        UserError where the task's state is not of joints and the settings ask for it, where a demonstration is
        missing or of another shape.
    """
    kind = settings.controller
    if kind == "zero":
        return _still(task, settings)
    starts = _start_states(task)
    why_not = _not_of_joints(task, starts[0])
    if why_not and kind == "auto":
        return _still(task, settings)
    if why_not:
        raise UserError(f"guider.start.controller = {kind!r} {why_not}: take 'zero'")
    model = known_simulator(task).model
    holds = [hold(model, state[1 : 1 + model.nq], settings.frequency, task.dt) for state in starts]
    if kind == "auto" and all(np.abs(about.action).max() < 1e-3 for about in holds):
        return _still(task, settings)  # there is no gravity, or it is in balance
    if task.dt * settings.frequency > 1.0:
        raise UserError(
            f"guider.start.frequency = {settings.frequency} rad/s is too fast for actions of {task.dt} s: "
            f"take at most {1.0 / task.dt:.1f}"
        )
    with jax.ensure_compile_time_eval():
        each = [_held(task, state, about, settings, std_floor) for state, about in zip(starts, holds, strict=True)]
        held = jax.tree.map(lambda *rows: jnp.stack(rows), *each)
    if kind in ("auto", "pd"):
        return held
    if kind == "demonstration":
        xs, us, K = *_shown(task, settings), held.K
    else:
        xs, us, K = _planned(task, starts, held, settings, key)
    return LinearGaussian(K, us - jnp.einsum("mtux,mtx->mtu", K, xs[:, :-1]), held.chol)


def _still(task: ControlTask, settings: StartSettings) -> LinearGaussian:
    """No action, and noise."""
    M, T, nx, nu = len(task.train_contexts), task.horizon, task.nx, task.nu
    chol = jnp.broadcast_to(settings.std * jnp.eye(nu), (M, T, nu, nu))
    return LinearGaussian(jnp.zeros((M, T, nu, nx)), jnp.zeros((M, T, nu)), chol)


def _start_states(task: ControlTask) -> Float[np.ndarray, "M nstate"]:
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0), len(task.train_contexts))
        return np.asarray(jax.vmap(task.initial_state)(keys, task.train_contexts), float)


def _not_of_joints(task: ControlTask, start: np.ndarray) -> str:
    """Why the controllers' state does not begin with the joints' coordinates and velocities; empty where it does."""
    model = task.simulator.model
    nq, nv = model.nq, model.nv
    if not model.nu or task.nx < 2 * nv:
        return f"needs a state of positions and velocities of all {nv} joints, and nx is {task.nx}"
    with jax.ensure_compile_time_eval():
        shown = jax.jacfwd(task.control_state)(jnp.asarray(start))
    velocities = np.asarray(shown)[nv : 2 * nv, 1 + nq : 1 + nq + nv]
    if not np.allclose(velocities, np.eye(nv)):
        return "needs a state that begins with the positions and velocities of the model's joints, in their order"
    return ""


def _held(
    task: ControlTask, state: np.ndarray, about: Hold, settings: StartSettings, std_floor: float
) -> LinearGaussian:
    """A controller that holds the pose of one start state."""
    nv, T = task.simulator.model.nv, task.horizon
    K = np.zeros((task.nu, task.nx))
    K[:, : 2 * nv] = -about.K
    x = np.array(task.control_state(jnp.asarray(state)))
    x[nv:] = 0.0
    reach = np.maximum(about.spread.max(0), 1e-9)
    std = np.clip(settings.spread / reach, std_floor, 0.5)
    rows = (K, about.action - K @ x, np.diag(std))
    return LinearGaussian(*(jnp.asarray(np.broadcast_to(a, (T, *a.shape)), float) for a in rows))


def _planned(
    task: ControlTask, starts: np.ndarray, held: LinearGaussian, settings: StartSettings, key: PRNGKeyArray
) -> Plans:
    """Plans of iLQR, or a UserError where there are no derivatives to plan with: before anything is compiled."""
    at = jax.vmap(task.control_state)(jnp.asarray(starts, jnp.float32))
    try:
        return plan(task, at, held, key, settings.restarts, settings.limit, settings.iterations)
    except ValueError as error:
        raise UserError(f"guider.start.controller = 'ilqr': {error}, or take 'pd'") from error


def _shown(task: ControlTask, settings: StartSettings) -> tuple[Array, Array]:
    """The recorded trajectory, once for each condition."""
    path = Path(settings.demonstration)
    if not path.is_file():
        raise UserError(f"guider.start.demonstration = {settings.demonstration!r}: there is no such file")
    with np.load(path) as file:
        wanted = {"xs": (task.horizon + 1, task.nx), "us": (task.horizon, task.nu)}
        for name, shape in wanted.items():
            given = file[name].shape if name in file else "missing"
            if given != shape:
                raise UserError(
                    f"guider.start.demonstration = {settings.demonstration!r}: {name} must have shape "
                    f"{shape}, and is {given}"
                )
        M = len(task.train_contexts)
        xs, us = (jnp.broadcast_to(jnp.asarray(file[name], float), (M, *shape)) for name, shape in wanted.items())
    return xs, us
