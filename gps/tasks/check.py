"""Whether a task is what `Environment` and `ControlTask` say, told before anything heavy is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp

from gps.settings import SettingsError
from gps.tasks.check_control import check_control
from gps.tasks.control_task import is_control
from gps.tasks.images import image_shape, image_size
from gps.tasks.task import ActionSpace, Environment, State, reported

_WANTED = {
    "name": str,
    "actions": ActionSpace,
    "observation_size": Integral,
    "privileged_size": Integral,
    "horizon": Integral,
    "calls_host": bool,
    "reset": Callable,
    "step": Callable,
}
_TAKEN = ("return", "return_sampled", "entropy", "success", "novel", "diverged")  # mean something else in reports


def check_task(task: Environment) -> list[str]:
    """What is wrong with a task, a line for each mistake: the member's name, and what would be right.

    A line that begins with "warning:" is about what guiders may fail to learn; any other one about what they can not
    run at all.
    """
    findings = check_control(task) if is_control(task) else []
    if not any(serious(findings)):
        try:
            check_environment(task)
        except ValueError as error:
            findings.append(str(error))
    return findings


def serious(findings: list[str]) -> list[str]:
    """The findings that are no warnings."""
    return [finding for finding in findings if not finding.startswith("warning:")]


def require_sound(task: Environment) -> list[str]:
    """Raise SettingsError with all that is wrong with a task; returns the warnings."""
    findings = check_task(task)
    if wrong := serious(findings):
        raise SettingsError(*wrong)
    return findings


def check_environment(task: Environment) -> None:
    """Raise ValueError where a task lacks something, says another size than it has, or changes shape in a step."""
    what = f"task {getattr(task, 'name', type(task).__name__)}"
    for name, kind in _WANTED.items():
        if not isinstance(getattr(task, name, None), kind):
            found = getattr(task, name, None)
            raise ValueError(
                f"{what}: `{name}` must be {kind.__name__}, not {found!r} (see gps.tasks.task.Environment)"
            )
    for name, least in (("observation_size", 1), ("privileged_size", 0), ("horizon", 1)):
        if getattr(task, name) < least:
            raise ValueError(f"{what}: `{name}` must be at least {least}, not {getattr(task, name)}")
    start = jax.eval_shape(task.reset, jax.random.key(0))
    _check_state(task, start, f"{what}: reset")
    _check_image(task, start, what)
    _check_reported(task, start, what)
    discrete = task.actions.discrete
    action = jax.ShapeDtypeStruct(*(((), jnp.int32) if discrete else ((task.actions.size,), jnp.result_type(float))))
    after = jax.eval_shape(task.step, start, action)
    _check_state(task, after, f"{what}: step")
    before, later = (jax.tree_util.tree_leaves_with_path(state) for state in (start, after))
    names, others = ({jax.tree_util.keystr(path) for path, _ in leaves} for leaves in (before, later))
    if names != others:
        raise ValueError(
            f"{what}: reset and step must give the same fields; only one of them has {sorted(names ^ others)}"
        )
    for (path, old), (_, new) in zip(before, later, strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"{what}: state{jax.tree_util.keystr(path)} is {_form(old)} after reset and {_form(new)} after step"
            )


def _check_image(task: Environment, state: State, what: str) -> None:
    shape, look = image_shape(task), getattr(task, "look", None)
    if shape is None and look is None:
        return
    if look is None or shape is None:
        there, missing = ("look", "image_shape") if shape is None else ("image_shape", "look")
        raise ValueError(f"{what} has `{there}` and no `{missing}`: an image takes both (see gps.tasks.images)")
    image = jax.eval_shape(look, state)
    if getattr(image, "shape", None) != tuple(shape) or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"{what}: `look` gives {_form(image)}, and it must be float32{list(shape)}, from 0 to 1")


def _check_reported(task: Environment, state: State, what: str) -> None:
    for name in reported(task):
        if name not in state.metrics or name in _TAKEN:
            raise ValueError(
                f"{what}: `reported` must name metrics of its states, other than {', '.join(_TAKEN)}: {name!r} is not "
                f"among {sorted(set(state.metrics) - set(_TAKEN))}"
            )


def _check_state(task: Environment, state: Any, where: str) -> None:
    if not isinstance(state, State) or not isinstance(state.obs, Mapping):
        raise ValueError(f"{where} must give a gps.tasks.task.State whose obs are a dict, not {state!r}")
    sizes = {"state": task.observation_size - image_size(task)}
    if sizes["state"] < 0:
        raise ValueError(
            f"{where}: observation_size = {task.observation_size} must count the image's {image_size(task)} numbers too"
        )
    if task.privileged_size:
        sizes["privileged_state"] = task.privileged_size
    if not set(sizes) <= set(state.obs):
        raise ValueError(
            f"{where} gives observations {sorted(state.obs)}, and with privileged_size = {task.privileged_size} there "
            f"must be {sorted(sizes)}"
        )
    if "truncation" not in state.info:
        raise ValueError(f'{where} gives no info["truncation"], which is 1 where the time limit alone ends an episode')
    wanted = {f'obs["{name}"]': (state.obs[name], (size,)) for name, size in sizes.items()}
    wanted |= {"reward": (state.reward, ()), "done": (state.done, ())}
    wanted |= {'info["truncation"]': (state.info["truncation"], ())}
    for name, (array, shape) in wanted.items():
        if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{where} gives {name} as {_form(array)}, and it must be float32{list(shape)}")


def _form(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"
