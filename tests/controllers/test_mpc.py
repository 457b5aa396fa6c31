"""Receding-horizon control: warm starts, one compiled step, and control of a plant that differs from the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers import ilqr, mpc

A, B = np.array([[1.0, 0.1], [0.3, 1.0]]), np.array([[0.005], [0.1]])  # unstable: an inverted pendulum near upright
TRACES = []


def linear(x, u, t):
    TRACES.append(t)
    return A @ x + B @ u


def quadratic(x, u, t):
    return 0.1 * (x @ x) + 0.01 * (u @ u)


def quadratic_end(x):
    return 5.0 * (x @ x)


def to_target(x, u, t, target):
    return 0.1 * ((x - target) @ (x - target)) + 0.001 * (u @ u)


def with_target(x, u, t, target):
    return A @ x + B @ u


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


@pytest.fixture(scope="module")
def regulator():
    return mpc.Problem(linear, quadratic, quadratic_end, iterations=1)


def test_step_solves_a_linear_problem_from_the_measured_state(regulator):
    """One iteration is exact there, so the step must agree with a solve from scratch."""
    plan = mpc.start(regulator, np.array([1.0, 0.0]), np.zeros((12, 1)))
    x = np.array([0.7, -0.4])
    following = mpc.step(regulator, plan, x)
    scratch = ilqr.solve(linear, quadratic, x, np.zeros((12, 1)), final_cost=quadratic_end)
    np.testing.assert_allclose(following.us, scratch.actions, atol=1e-10)
    np.testing.assert_allclose(following.xs, scratch.states, atol=1e-10)
    np.testing.assert_allclose(following.K, scratch.K, atol=1e-10)
    np.testing.assert_allclose(following.action, scratch.actions[0], atol=1e-10)
    np.testing.assert_allclose(following.cost, scratch.cost, rtol=1e-10)


def test_every_step_is_the_same_program(regulator):
    plan = mpc.start(regulator, np.array([1.0, 0.0]), np.zeros((12, 1)))
    plan = mpc.step(regulator, plan, np.array([0.9, 0.1]))
    seen = len(TRACES)
    for x in ([0.8, 0.2], [0.1, 0.3], [-2.0, 0.0]):
        plan = mpc.step(regulator, plan, np.array(x))
    same = mpc.Problem(linear, quadratic, quadratic_end, iterations=1)
    mpc.step(same, plan, np.array([0.3, 0.3]))
    assert len(TRACES) == seen


def test_warm_start_follows_the_old_feedback():
    """On a plant this unstable the old actions mean nothing from another state: they cost hundreds of times more."""
    plan = mpc.start(mpc.Problem(unstable, quadratic), np.array([0.5, 0.0]), np.zeros((60, 1)))
    x = plan.xs[1] + np.array([0.1, 0.3])
    frozen = mpc.Problem(
        unstable, quadratic, iterations=1, options=ilqr.Options(line_search_steps=1, acceptance=0.999999)
    )
    warm = mpc.step(frozen, plan, x)
    assert warm.cost < 2.0
    x_alone, cost = x, 0.0
    for u in np.concatenate([plan.us[1:], plan.us[-1:]]):
        cost, x_alone = cost + quadratic(x_alone, u, 0), unstable(x_alone, u, 0)
    assert cost > 300.0 * warm.cost


def unstable(x, u, t):
    return jnp.stack([x[0] + 0.1 * jnp.sin(x[1]), 0.3 * x[0] + x[1] + 0.1 * u[0]])


def test_plant_that_differs_is_held_within_limits():
    problem = mpc.Problem(linear, quadratic, quadratic_end, limits=((-2.5,), (4.0,)), iterations=2)
    plan = mpc.start(problem, np.array([0.5, 0.0]), np.zeros((20, 1)))
    rng = np.random.default_rng(0)

    def plant(x, u, t):
        return 1.02 * (A @ x) + 0.9 * (B @ u) + 0.01 * rng.normal(size=2)

    xs, us, seconds = mpc.simulate(problem, plan, plant, 60)
    assert (xs.shape, us.shape, seconds.shape) == ((61, 2), (60, 1), (60,))
    assert us.min() == -2.5  # a limit is reached
    assert us.max() <= 4.0
    assert abs(xs[-20:]).max() < 0.2
    open_loop = plan.xs[0]
    for u in us[:20]:  # these actions without feedback on what really happens
        open_loop = plant(open_loop, u + 0.1, 0)
    assert abs(open_loop).max() > 0.2
    times = mpc.latency(seconds)
    assert list(times) == ["p50", "p90", "p99", "max"]
    np.testing.assert_allclose(times["max"], 1e3 * seconds.max())
    np.testing.assert_allclose(times["p50"], 1e3 * np.median(seconds))


def test_params_move_the_target_without_compiling_again():
    problem = mpc.Problem(with_target, to_target, iterations=2)
    x, target = np.zeros(2), np.array([1.0, 0.0])
    plan = mpc.start(problem, x, np.zeros((15, 1)), params=target)
    programs = mpc._step._cache_size()
    plan = mpc.step(problem, plan, x, params=target)
    assert mpc._step._cache_size() == programs + 1
    there = mpc.step(problem, plan, x, params=-target)
    assert mpc._step._cache_size() == programs + 1
    np.testing.assert_allclose(there.us, -plan.us, atol=1e-8)  # the problem mirrored


def test_a_failed_measurement_does_not_outlast_its_step(regulator):
    plan = mpc.start(regulator, np.array([1.0, 0.0]), np.zeros((12, 1)))
    lost = mpc.step(regulator, plan, np.array([np.nan, 0.0]))
    assert lost.status == ilqr.Status.NON_FINITE
    found = mpc.step(regulator, lost, np.array([0.7, -0.4]))
    scratch = ilqr.solve(linear, quadratic, np.array([0.7, -0.4]), np.zeros((12, 1)), final_cost=quadratic_end)
    np.testing.assert_allclose(found.us, scratch.actions, atol=1e-10)


def test_start_from_nowhere_is_refused(regulator):
    with pytest.raises(ValueError, match="x0 must be finite"):
        mpc.start(regulator, np.array([np.nan, 0.0]), np.zeros((12, 1)))


@pytest.mark.parametrize(("setting", "value"), [("iterations", 0), ("limits", ((1.0,),)), ("limits", ((1.0,), (0.0,)))])
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        mpc.Problem(linear, quadratic, **{setting: value})


def test_simulation_of_no_steps_is_refused(regulator):
    plan = mpc.start(regulator, np.array([1.0, 0.0]), np.zeros((12, 1)))
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        mpc.simulate(regulator, plan, jnp.add, 0)
