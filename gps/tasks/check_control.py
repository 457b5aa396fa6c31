"""Whether a task is what `ControlTask` says: shapes first, then derivatives of the cost in one small program."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import inspect
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from controllers.expand import LeastSquares, expand_at
from dynamics.kinematics import BALL, FREE
from dynamics.simulator import state_size
from gps.tasks.task import ActionSpace, Score

_WANTED = {
    "actions": ActionSpace,
    "score": Score,
    "dt": Real,
    **dict.fromkeys(("horizon", "nx", "nu", "frame_size", "noise_size", "history", "observation_size"), Integral),
}
_ARGUMENTS = {
    "initial_state": ("key", "context"),
    "control_state": ("state",),
    "observe": ("x", "context", "noise"),
    "cost": ("x", "u", "t", "context"),
    "final_cost": ("x", "context"),
    "measure": ("xs", "us", "context"),
}
_OPTIONAL = {
    "solved": ("xs", "us", "context"),
    "skeleton": ("x",),
    "target": ("context",),
}
STATES = 8  # at which the cost is differentiated: half of them starts, half around them


def check_control(task: Any) -> list[str]:
    """What is wrong with the control side of a task, a line for each mistake; see `gps.tasks.check.check_task`."""
    findings = []
    for look in (_contexts, _attributes, _sizes, _members):  # each relies on the ones before it
        findings = findings or list(look(task))
    what = f"task {getattr(task, 'name', type(task).__name__)}"
    if not findings:
        findings = [*_derivatives(task), *_quaternions(task), *_control_range(task)]
    return [f"warning: {what}: {f[9:]}" if f.startswith("warning: ") else f"{what}: {f}" for f in findings]


def _attributes(task) -> Iterator[str]:
    for name, kind in _WANTED.items():
        try:
            found = getattr(task, name, None)
        except Exception as error:  # one that is computed, such as the size of a frame
            yield f"`{name}` can not be told: {_told(error)}"
            continue
        if not isinstance(found, kind):
            yield f"`{name}` must be {_name(kind)}, not {found!r}"
    if not all(callable(getattr(getattr(task, "simulator", None), name, None)) for name in ("step", "clip")):
        yield "`simulator` must be a dynamics.simulator.Simulator; dynamics.engines.make_simulator makes one"
    for name, arguments in _ARGUMENTS.items():
        yield from _signature(task, name, arguments, required=True)
    for name, arguments in _OPTIONAL.items():
        yield from _signature(task, name, arguments, required=False)


def _signature(task, name: str, arguments: tuple[str, ...], required: bool) -> Iterator[str]:
    member = getattr(task, name, None)
    if member is None:
        if required:
            yield f"`{name}({', '.join(arguments)})` is missing"
        return
    if not callable(member):
        yield f"`{name}` must be a method of ({', '.join(arguments)}), not {member!r}"
        return
    if isinstance(member, LeastSquares):
        name, member = f"{name}.residual", member.residual
    signature = inspect.signature(member)
    try:
        signature.bind(*arguments)
    except TypeError:
        yield f"`{name}` must take ({', '.join(arguments)}), not ({', '.join(signature.parameters)})"


def _contexts(task) -> Iterator[str]:
    both = []
    for name in ("train_contexts", "test_contexts"):
        contexts = getattr(task, name, None)
        if not isinstance(contexts, jax.Array | np.ndarray):
            yield f"`{name}` must be an array (conditions, numbers of a context), not a {type(contexts).__name__}"
        elif contexts.ndim != 2 or not len(contexts):
            hint = ": for contexts of one number, contexts[:, None]" if contexts.ndim == 1 else ""
            yield f"`{name}` must be of shape (conditions, numbers of a context), not {contexts.shape}{hint}"
        elif not jnp.issubdtype(contexts.dtype, jnp.floating) or not np.isfinite(contexts).all():
            yield f"`{name}` must be finite floats"
        else:
            both.append(np.asarray(contexts))
    if len(both) < 2:
        return
    train, test = both
    if train.shape[1] != test.shape[1]:
        yield f"`test_contexts` have {test.shape[1]} numbers each, and `train_contexts` {train.shape[1]}"
    elif len(same := {*map(tuple, train.tolist())} & {*map(tuple, test.tolist())}):
        yield f"`test_contexts` must be disjoint from `train_contexts`, and {len(same)} are in both"


def _sizes(task) -> Iterator[str]:
    if task.actions != ActionSpace(task.nu):
        yield f"`actions` must be ActionSpace(nu) = ActionSpace({task.nu}), not {task.actions}"
    model = getattr(task.simulator, "model", None)
    if model is not None and model.nu != task.nu:
        yield f"`nu` is {task.nu}, and the model has {model.nu} actuators: it must be model.nu"
    if task.observation_size != task.history * task.frame_size:
        yield (
            f"`observation_size` is {task.observation_size}, and it must be history * frame_size = "
            f"{task.history * task.frame_size}"
        )


def _members(task) -> Iterator[str]:
    """Members by their shapes."""
    real, T = jnp.result_type(float), task.horizon

    def array(*shape, dtype=real):
        return jax.ShapeDtypeStruct(shape, dtype)

    context = array(task.train_contexts.shape[1])
    key = jax.eval_shape(lambda: jax.random.key(0))
    given = {"key": key, "context": context, "x": array(task.nx), "u": array(task.nu), "t": array(dtype=jnp.int32)}
    given |= {"noise": array(task.noise_size), "xs": array(T + 1, task.nx), "us": array(T, task.nu)}
    model = getattr(task.simulator, "model", None)
    wanted = {
        "initial_state": (None if model is None else (state_size(model),), "the physics state"),
        "control_state": ((task.nx,), "nx"),
        "observe": ((task.frame_size,), "frame_size"),
        "target": ((3,), "a place in the world"),
        **dict.fromkeys(("cost", "final_cost", "measure", "solved"), ((), "one number")),
    }
    for name, arguments in {**_ARGUMENTS, **_OPTIONAL}.items():
        if not hasattr(task, name):
            continue
        inputs, member = [given[argument] for argument in arguments], getattr(task, name)
        try:
            output = jax.eval_shape(member, *inputs)
        except Exception as error:
            shapes = ", ".join(f"{a} {list(given[a].shape)}" for a in arguments)
            yield f"`{name}` fails for {shapes}: {_told(error)}"
            return
        shape, meaning = wanted.get(name, (None, ""))
        yield from _output(name, output, shape, meaning)
        if isinstance(member, LeastSquares):
            residual = jax.eval_shape(member.residual, *inputs)
            if len(residual.shape) != 1:
                yield f"`{name}.residual` gives an array of shape {residual.shape}, and it must be (numbers,)"
        if name == "initial_state":
            given["state"] = output


def _output(name: str, output: Any, shape: tuple[int, ...] | None, meaning: str) -> Iterator[str]:
    if not hasattr(output, "shape"):
        yield f"`{name}` must give one array, not {type(output).__name__}"
    elif shape is not None and output.shape != shape:
        yield f"`{name}` gives an array of shape {output.shape}, and it must be {shape} ({meaning})"
    elif name == "skeleton" and (output.ndim != 2 or output.shape[1] != 3):
        yield f"`skeleton` gives an array of shape {output.shape}, and it must be (points, 3)"
    elif (output.dtype == bool) != (name == "solved"):
        yield f"`{name}` gives {output.dtype}, and it must be {'bool' if name == 'solved' else 'a float'}"


def _derivatives(task) -> Iterator[str]:
    """Value, slope and curvature of the cost at start states and around them."""
    contexts = task.train_contexts[jnp.arange(STATES) % len(task.train_contexts)]

    def at(key, context, away):
        start, moving, acting = jax.random.split(key, 3)
        x = task.control_state(task.initial_state(start, context))
        x = x + 0.1 * away * jax.random.normal(moving, x.shape)
        u = 0.3 * jax.random.normal(acting, (task.nu,))
        nx = task.nx
        found = {
            "cost": expand_at(task.cost, jnp.append(x, u), lambda z: (z[:nx], z[nx:], 0, context), "exact"),
            "final_cost": expand_at(task.final_cost, x, lambda x: (x, context), "exact"),
        }
        return x, found, task.observe(x, context, jnp.zeros(task.noise_size))

    keys, away = jax.random.split(jax.random.key(0), STATES), jnp.arange(STATES) % 2
    xs, found, seen = jax.tree.map(np.asarray, jax.jit(jax.vmap(at))(keys, contexts, away))
    if not np.isfinite(xs).all():
        yield f"`initial_state` must give finite states, not x = {xs[~np.isfinite(xs).all(1)][0].tolist()}"
        return
    slopes = [np.abs(slope[:, : task.nx]).max() for _, slope, _ in found.values()]
    for name, (value, slope, curvature) in found.items():
        if (lost := ~np.isfinite(value)).any():
            yield f"`{name}` is {value[lost][0]} at x = {_numbers(xs[lost][0])}, and it must be finite"
        elif (lost := ~(np.isfinite(slope).all(1) & np.isfinite(curvature).all((1, 2)))).any():
            yield (
                f"`{name}` has no finite second derivatives at x = {_numbers(xs[lost][0])}: where a root or a norm "
                "can be zero, add a small number under the root"
            )
    if not any(slopes):
        yield (
            "warning: `cost` and `final_cost` do not change with x at the start states: a guider that follows slopes "
            "learns nothing from a sparse cost; add a term that says which way is better"
        )
    if not np.isfinite(seen).all():
        yield "`observe` gives numbers that are not finite at the start states"


def _quaternions(task) -> Iterator[str]:
    """Whether a quaternion of the physics state stands in x as it is."""
    model = getattr(task.simulator, "model", None)
    if model is None or model.nq == model.nv:
        return
    state = np.array(task.initial_state(jax.random.key(0), task.train_contexts[0]))
    for j in np.flatnonzero(np.isin(model.jnt_type, (FREE, BALL))):
        at = 1 + model.jnt_qposadr[j] + (3 if model.jnt_type[j] == FREE else 0)
        state[at : at + 4] = quaternion = np.array([0.5, -0.1, 0.7, 0.5], state.dtype)
        x = np.asarray(task.control_state(jnp.asarray(state)))
        windows = np.lib.stride_tricks.sliding_window_view(x, 4) if len(x) >= 4 else np.empty((0, 4))
        if np.any(np.abs(windows - quaternion).max(-1) < 1e-6):
            yield (
                f"warning: `control_state` holds the quaternion of joint {model.joint(j).name!r} as it is, which is no "
                "coordinate to regress on: take dynamics.kinematics.coordinates"
            )


def _control_range(task) -> Iterator[str]:
    """Whether actions are what `ActionSpace` says; a `MujocoTask` scales its actuators itself."""
    far = jnp.full(task.nu, 1e9)
    for i, (low, high) in enumerate(zip(task.simulator.clip(-far), task.simulator.clip(far), strict=True)):
        model = getattr(task.simulator, "model", None)
        name = i if model is None else model.actuator(i).name or i
        if not -1e9 < low < high < 1e9:
            yield f"actuator {name!r} has no control range, and actions are in [-1, 1]: give it ctrlrange='LOW HIGH'"
        elif (low, high) != (-1.0, 1.0):
            yield (
                f"warning: actuator {name!r} of `simulator` takes {low:g} to {high:g}, and guiders explore and clip as "
                "if it were -1 to 1: take the model from dynamics.action_range.with_unit_actions"
            )


def _name(kind: type) -> str:
    return {Integral: "an integer", Real: "a number"}.get(kind, kind.__name__)


def _numbers(x: np.ndarray) -> str:
    return "[" + " ".join(f"{value:.3g}" for value in x) + "]"


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
