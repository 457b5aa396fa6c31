"""The figure of a solve by `controllers.ilqr`: what it found, and how it got there.

In the manner of `gps.figures.style`: nothing passes through pyplot, and what is not finite is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from controllers.ilqr import Solution
from gps.figures.axes import fit_scale
from gps.figures.fields import BLUE, COLORS, GREY, RED
from gps.figures.style import MOST_MARKERS, WIDE, styled
from gps.files import written_whole

PANELS = [["states", "actions"], ["cost", "decrease"], ["gradient", [["regularisation"], ["step size"]]]]


@styled
def plot_solution(
    solution: Solution,
    path: Path | str | None = None,
    *,
    limits: tuple[Any, Any] | None = None,
    dt: float | None = None,
    state_names: Sequence[str] | None = None,
    action_names: Sequence[str] | None = None,
) -> Figure:
    """Draw states and actions over time, and cost, decrease, gradient, regularisation and step size by iteration.

    Cost, gradient and gap are those after an iteration, with the start at 0; the rest is of the iteration itself. A
    step of size 0 was rejected. On a logarithmic axis what is not positive is missing, such as the decrease where the
    cost would have risen. The cost may rise while gaps close; with constraints, it holds their penalty until the end,
    and may rise from round to round.

    Args:
        solution: of one problem.
        path: where to save the figure as well; its ending is the format.
        limits: of the actions, as `ilqr.solve` takes them.
        dt: s, from one state to the next; None counts time in steps.
        state_names: one for each of the nx components of a state; None takes the keys of a pytree, or numbers.
        action_names: one for each of the nu components of an action, likewise.

    Errors:
        ValueError for a batch of solutions, for limits and names that do not fit, and for an unknown format.
    """
    if np.ndim(solution.status) > 0:
        raise ValueError(
            f"plot_solution draws one solution, not a batch of shape {np.shape(solution.status)}: "
            "take number i with jax.tree.map(lambda a: a[i], solution)"
        )
    xs, us = _flat(solution.states), _flat(solution.actions)
    state_names = _names("state_names", solution.states, "x", state_names)
    action_names = _names("action_names", solution.actions, "u", action_names)
    bounds = [] if limits is None else [_like_actions(limit, solution.actions) for limit in limits]

    figure = Figure(figsize=(WIDE, 5.8))
    figure.suptitle(str(solution), fontsize=7.5)
    axes = figure.subplot_mosaic(PANELS, height_ratios=(1, 1, 1.1))
    time = (1.0 if dt is None else dt) * np.arange(len(xs))
    _components(axes["states"], time, xs, state_names)
    _components(axes["actions"], time, _held(us), action_names, drawstyle="steps-post")
    for bound in bounds:
        look = {"drawstyle": "steps-post", "linestyle": "--", "linewidth": 0.7}
        _components(axes["actions"], time, _held(bound), [f"_limit of {name}" for name in action_names], **look)
    for panel, names in (("states", state_names), ("actions", action_names)):
        axes[panel].set(xlabel="time (steps)" if dt is None else "time (s)", ylabel=panel, xlim=(time[0], time[-1]))
        axes[panel].xaxis.set_major_locator(MaxNLocator(6, integer=dt is None))
        if len(names) <= len(COLORS):
            axes[panel].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=4, columnspacing=1)
    _convergence(axes, solution)
    if path is not None:
        with written_whole(Path(path)) as waiting:
            figure.savefig(waiting, format=Path(path).suffix[1:], dpi=200)
    return figure


def _flat(tree) -> Float[np.ndarray, "T n"]:
    """The components of states or actions over time, in the order of the columns of K."""
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(tree)], axis=1, dtype=float)


def _names(argument: str, tree, letter: str, given: Sequence[str] | None) -> list[str]:
    """Names of all components of states or actions."""
    found = []
    for key, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(key, simple=True, separator=".") or letter
        found += [f"{name}{list(at)}" if at else name for at in np.ndindex(leaf.shape[1:])]
    if given is not None and len(given) != len(found):
        raise ValueError(f"{argument} must be {len(found)} names, not {len(given)}: {list(given)}")
    return found if given is None else list(given)


def _like_actions(limit, actions) -> Float[np.ndarray, "T nu"]:
    """A limit of every action."""
    us = _flat(actions)
    try:
        if jax.tree.structure(limit) == jax.tree.structure(actions):
            limit = _flat(jax.tree.map(lambda a, b: np.broadcast_to(a, b.shape), limit, actions))
        return np.broadcast_to(np.asarray(limit, float), us.shape)
    except (TypeError, ValueError):
        raise ValueError(f"limits must fit one action, {us.shape[1:]}, or all, {us.shape}, not {limit!r}") from None


def _held(us: Float[np.ndarray, "T nu"]) -> Float[np.ndarray, "T+1 nu"]:
    """The last action again: it lasts until the last state."""
    return np.concatenate([us, us[-1:]])


def _components(axes: Axes, time, values: Float[np.ndarray, "T+1 n"], names: list[str], **look) -> None:
    """A line for each component that has something to show."""
    many = len(names) > len(COLORS)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(names))) if many else COLORS
    for line, name, color in zip(_finite(values).T, names, colors, strict=False):
        if np.isfinite(line).any():
            axes.plot(time, line, label=name, color=color, **look)


def _convergence(axes: dict[str, Axes], solution: Solution) -> None:
    """What the trace tells, against the number of the iteration."""
    count = int(solution.iterations)
    trace = jax.tree.map(lambda values: np.asarray(values, float)[:count], solution.trace)
    marker = "o" if count <= MOST_MARKERS else None
    for panel, label, color, values in (
        ("cost", "cost", BLUE, np.append(trace.cost, solution.cost)),
        ("decrease", "expected", GREY, trace.expected_decrease),
        ("decrease", "actual", BLUE, trace.actual_decrease),
        ("gradient", "gradient", BLUE, np.append(trace.gradient_norm, solution.gradient_norm)),
        ("gradient", "gap", RED, np.append(trace.gap, solution.gap)),
        ("regularisation", "regularisation", BLUE, trace.regularization),
        ("step size", "step size", BLUE, trace.step_size),
    ):
        if label != "gap" or (values > 0).any():
            iterations = np.arange(1 + count - len(values), count + 1)
            axes[panel].plot(iterations, _finite(values), color=color, marker=marker, label=label)
        axes[panel].set(xlabel="iteration", ylabel=panel, xlim=(-0.02 * count, 1.02 * max(count, 1)))
        axes[panel].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes["decrease"].legend()
    axes["decrease"].set_ylabel("decrease of the cost")
    axes["gradient"].set_ylabel("largest |dJ/du|")
    if len(axes["gradient"].lines) > 1:
        axes["gradient"].legend()
        axes["gradient"].set_ylabel("largest |dJ/du|, largest gap")
    axes["regularisation"].set_xlabel("")
    axes["regularisation"].tick_params(labelbottom=False)
    axes["step size"].set(ylim=(-0.1, 1.1), yticks=(0, 0.5, 1))
    fit_scale(axes["cost"])
    fit_scale(axes["decrease"], mask=True)
    fit_scale(axes["gradient"], mask=True)
    _fit_scale_with_zero(axes["regularisation"])


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _fit_scale_with_zero(axes: Axes) -> None:
    """Make the y axis logarithmic where anything is positive, and keep zero on it."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    positive = values[values > 0]
    if not len(positive):
        axes.set(ylim=(-0.1, 1.1), yticks=(0,))
        return
    low, high = np.log10(positive.min()), np.log10(positive.max())
    axes.set_yscale("symlog", linthresh=10.0**low, linscale=0.2 * max(high - low, 2.0))
    axes.set_ylim(-0.3 * 10.0**low, 10.0 ** (high + 0.1 * max(high - low, 2.0)))
    locator = SymmetricalLogLocator(base=10, linthresh=10.0**low)
    locator.set_params(numticks=3)
    axes.yaxis.set_major_locator(locator)
