"""The figure of an iLQR solution shows what the solution says, and refuses what it cannot show."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import jax
import matplotlib
import numpy as np
import pytest
from PIL import Image

from controllers.ilqr import Solution, Status, Trace
from gps.figures.ilqr import plot_solution

T, NX, NU = 5, 3, 2
LIMITS = (np.array([-1.0, -np.inf]), np.array([1.0, 2.0]))
inf, nan = np.inf, np.nan


def solved(iterations: int = 4, **changed) -> Solution:
    """A solution of T steps whose second iteration was rejected; room for ten iterations."""
    rng = np.random.default_rng(0)

    def entries(*values):
        return np.array([*values[:iterations], *[nan] * (10 - iterations)])

    trace = Trace(
        cost=entries(1000.0, 100.0, 100.0, 10.0),
        gradient_norm=entries(50.0, 5.0, 5.0, 0.5),
        regularization=entries(0.0, 0.0, 1e-3, 1e-4),
        step_size=entries(1.0, 0.0, 0.25, 1.0),
        expected_decrease=entries(800.0, 50.0, 80.0, 9.0),
        actual_decrease=entries(900.0, -7.0, 90.0, 8.0),
        gap=entries(0.0, 0.0, 0.0, 0.0),
    )
    solution = Solution(
        states=rng.normal(size=(T + 1, NX)),
        actions=rng.normal(size=(T, NU)),
        K=np.zeros((T, NU, NX)),
        chol=np.zeros((T, NU, NU)),
        cost=np.float64(2.0),
        gradient_norm=np.float64(0.05),
        regularization=np.float64(0.0),
        iterations=np.int32(iterations),
        status=np.int32(Status.CONVERGED_COST),
        gap=np.float64(0.0),
        violation=np.float64(0.0),
        multipliers=None,
        trace=trace,
    )
    return replace(solution, **changed)


def panels(figure) -> dict:
    return {axes.get_label(): axes for axes in figure.axes}


def lines_of(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def named_in(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_states_are_drawn_over_time_and_actions_held_until_the_next():
    solution = solved()
    axes = panels(plot_solution(solution, dt=0.1))
    states, actions = lines_of(axes["states"]), lines_of(axes["actions"])
    assert (list(states), list(actions)) == (["x[0]", "x[1]", "x[2]"], ["u[0]", "u[1]"])
    for i in range(NX):
        np.testing.assert_allclose(states[f"x[{i}]"], np.stack([0.1 * np.arange(T + 1), solution.states[:, i]], 1))
    for i in range(NU):
        held = np.append(solution.actions[:, i], solution.actions[-1, i])
        np.testing.assert_allclose(actions[f"u[{i}]"], np.stack([0.1 * np.arange(T + 1), held], 1))
        assert axes["actions"].lines[i].get_drawstyle() == "steps-post"
    assert [axes[name].get_xlabel() for name in ("states", "actions")] == ["time (s)"] * 2
    assert [axes[name].get_ylabel() for name in ("states", "actions")] == ["states", "actions"]
    axes = panels(plot_solution(solution))
    np.testing.assert_allclose(lines_of(axes["states"])["x[0]"][:, 0], np.arange(T + 1))
    assert axes["states"].get_xlabel() == "time (steps)"


def test_convergence_is_drawn_against_the_number_of_the_iteration():
    solution = solved()
    figure = plot_solution(solution)
    axes, trace = panels(figure), solution.trace
    for panel, line, first, expected in (
        ("cost", "cost", 0, [*trace.cost[:4], 2.0]),
        ("gradient", "gradient", 0, [*trace.gradient_norm[:4], 0.05]),
        ("decrease", "expected", 1, trace.expected_decrease[:4]),
        ("decrease", "actual", 1, trace.actual_decrease[:4]),
        ("regularisation", "regularisation", 1, trace.regularization[:4]),
        ("step size", "step size", 1, trace.step_size[:4]),
    ):
        np.testing.assert_allclose(lines_of(axes[panel])[line], np.stack([np.arange(first, 5), expected], 1))
    labels = {
        "cost": "cost",
        "decrease": "decrease of the cost",
        "gradient": "largest |dJ/du|",
        "regularisation": "regularisation",
        "step size": "step size",
    }
    assert {panel: axes[panel].get_ylabel() for panel in labels} == labels
    scales = {panel: axes[panel].get_yscale() for panel in labels}
    assert scales == {**dict.fromkeys(labels, "log"), "regularisation": "symlog", "step size": "linear"}
    assert figure.get_suptitle() == str(solution)


def test_gaps_are_drawn_where_there_were_any():
    assert list(lines_of(panels(plot_solution(solved()))["gradient"])) == ["gradient"]
    gaps = np.array([2.0, 1.0, 0.5, 0.0, *[nan] * 6])
    axes = panels(plot_solution(solved(trace=replace(solved().trace, gap=gaps))))["gradient"]
    np.testing.assert_allclose(lines_of(axes)["gap"], np.stack([np.arange(5), [*gaps[:4], 0.0]], 1))
    assert named_in(axes) == ["gradient", "gap"]
    assert axes.get_ylabel() == "largest |dJ/du|, largest gap"


@pytest.mark.parametrize("wide", [False, True])
def test_finite_limits_are_dashed_in_the_colour_of_their_action(wide):
    limits = [np.broadcast_to(limit, (T, NU)) if wide else limit for limit in LIMITS]
    axes = panels(plot_solution(solved(), limits=(limits[0], limits[1])))["actions"]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [np.unique(line.get_ydata()).tolist() for line in dashed] == [[-1.0], [1.0], [2.0]]
    colors = [line.get_color() for line in axes.lines if line.get_linestyle() == "-"]
    assert [line.get_color() for line in dashed] == [colors[0], colors[0], colors[1]]
    assert named_in(axes) == ["u[0]", "u[1]"]


def test_components_of_pytrees_are_named_by_their_keys_and_drawn_in_the_order_of_the_gains():
    rng = np.random.default_rng(1)
    states = {"q": rng.normal(size=(T + 1, 2)), "v": rng.normal(size=T + 1)}
    actions = {"arm": rng.normal(size=(T, 1, 1)), "leg": rng.normal(size=T)}
    low = {"arm": np.full((1, 1), -3.0), "leg": np.float64(-4.0)}
    axes = panels(plot_solution(solved(states=states, actions=actions), limits=(low, inf)))
    drawn = lines_of(axes["states"])
    assert list(drawn) == ["q[0]", "q[1]", "v"]
    np.testing.assert_allclose(drawn["q[1]"][:, 1], states["q"][:, 1], rtol=1e-6)
    np.testing.assert_allclose(drawn["v"][:, 1], states["v"], rtol=1e-6)
    drawn = lines_of(axes["actions"])
    np.testing.assert_allclose(drawn["arm[0, 0]"][:-1, 1], actions["arm"][:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose([line.get_ydata()[0] for line in axes["actions"].lines[2:]], [-3.0, -4.0])


def test_names_are_in_the_legend_unless_there_are_too_many():
    axes = panels(plot_solution(solved(), state_names=["a (m)", "b", "c"], action_names=("F (N)", "G")))
    assert (named_in(axes["states"]), named_in(axes["actions"])) == (["a (m)", "b", "c"], ["F (N)", "G"])
    axes = panels(plot_solution(solved(states=np.zeros((T + 1, 30)))))["states"]
    assert axes.get_legend() is None
    assert len({tuple(line.get_color()) for line in axes.lines}) == 30


def test_solve_without_an_iteration_and_one_that_is_not_finite_are_drawn():
    states = np.array([[1.0, 2.0, inf], *[[3.0, inf, inf]] * T])
    solution = solved(0, states=states, cost=nan, gradient_norm=nan, status=np.int32(Status.NON_FINITE))
    axes = panels(plot_solution(solution))
    drawn = lines_of(axes["states"])
    np.testing.assert_allclose(drawn["x[1]"][:, 1], [2.0, *[nan] * T])
    assert list(drawn) == ["x[0]", "x[1]"]
    assert [len(line.get_xdata()) for line in axes["decrease"].lines] == [0, 0]


def test_costs_that_are_not_positive_are_drawn_on_a_linear_axis():
    assert panels(plot_solution(solved(cost=np.float64(-2.0))))["cost"].get_yscale() == "linear"


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_figure_is_saved_and_nothing_else_happens(kind, tmp_path):
    settings = dict(matplotlib.rcParams)
    figure = plot_solution(solved(), tmp_path / f"solve.{kind}", limits=LIMITS)
    assert [file.name for file in tmp_path.iterdir()] == [f"solve.{kind}"]
    assert dict(matplotlib.rcParams) == settings
    if kind == "pdf":
        assert b"/FontFile2" in (tmp_path / "solve.pdf").read_bytes()  # TrueType
        return
    with Image.open(tmp_path / "solve.png") as picture:
        assert picture.size == tuple(200 * figure.get_size_inches())
    plot_solution(solved(), str(tmp_path / "again.png"), limits=LIMITS)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "solve.png").read_bytes()


def test_pyplot_is_not_imported():
    code = "import sys, gps.figures.ilqr; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_batch_is_refused_and_its_members_are_drawn_as_the_message_says():
    batch = jax.tree.map(lambda *values: np.stack(values), solved(), solved())
    with pytest.raises(ValueError, match=r"one solution, not a batch of shape \(2,\).*lambda a: a\[i\]"):
        plot_solution(batch)
    member = jax.tree.map(lambda a: a[1], batch)
    np.testing.assert_allclose(panels(plot_solution(member))["states"].lines[0].get_ydata(), solved().states[:, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state_names": ["a"]}, r"state_names must be 3 names, not 1: \['a'\]"),
        ({"action_names": ["a", "b", "c"]}, "action_names must be 2 names, not 3"),
        ({"limits": (np.zeros(3), 1.0)}, r"limits must fit one action, \(2,\), or all, \(5, 2\), not array"),
        ({"limits": ({"force": 1.0}, 1.0)}, r"limits must fit one action.*not {'force': 1.0}"),
        ({"path": "solve.xyz"}, "Format 'xyz' is not supported"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        plot_solution(solved(), **arguments)
    assert list(tmp_path.iterdir()) == []
