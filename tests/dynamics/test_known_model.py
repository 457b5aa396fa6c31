"""Derivatives of the simulator: automatic ones, MuJoCo's finite differences, and regression over small deviations."""

from __future__ import annotations

import copy
import functools
import threading

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from controllers import ilqr
from dynamics.engines import make_simulator
from dynamics.known_model import jacobians, known_dynamics
from dynamics.prior import pooled, transitions
from dynamics.regression import fit_dynamics
from dynamics.rollout import rollout

T = 6
ENGINES = ["mujoco", "mjx"]
PENDULUM = """
<mujoco>
  <option timestep="0.05"><flag contact="disable" constraint="disable"/></option>
  <worldbody>
    <body>
      <joint name="hinge" type="hinge" axis="0 1 0" damping="0.02"/>
      <geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.02" mass="0.2"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" ctrllimited="true" ctrlrange="-0.1 0.1"/></actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def doubles(arms):
    """The arm's simulators in double precision, by engine."""
    model = arms["mujoco"].simulator.model
    with jax.enable_x64(True):
        return {engine: make_simulator(model, 5, engine) for engine in ENGINES}


@pytest.fixture(scope="module")
def exact(doubles):
    """A and B along the path by automatic differentiation."""
    with jax.enable_x64(True):
        xs, us = path(doubles["mujoco"])
        A, B = jax.jit(lambda xs, us: jacobians(doubles["mjx"], xs, us))(jnp.asarray(xs[:-1]), jnp.asarray(us))
    return np.asarray(A), np.asarray(B)


@pytest.fixture(scope="module")
def linearized():
    """Each engine's derivatives of the pendulum in single precision, compiled for seven states and actions."""
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    simulators = {engine: make_simulator(model, 2, engine) for engine in ENGINES}
    return {engine: jax.jit(functools.partial(jacobians, simulator)) for engine, simulator in simulators.items()}


def path(simulator):
    """States (T+1 nx) and actions (T nu) of a moving arm."""
    us = np.random.default_rng(0).uniform(-0.8, 0.8, (T, 2))
    start = jnp.array([0.0, 0.2, 1.6, 2.0, -3.0])
    states = rollout(simulator, lambda m, t, s, n: (m, n), start, jnp.asarray(us)).states
    return np.asarray(states)[:, 1:], us


def last_state(dynamics, x0, us):
    return jax.lax.scan(lambda x, u: (dynamics(x, u, 0), None), x0, us)[0]


def test_automatic_derivatives_are_mujocos_finite_differences(doubles, exact):
    """In double precision they are good to 1e-9; the five physics steps of one action multiply that by about 5."""
    simulator = doubles["mujoco"]
    with jax.enable_x64(True):
        xs, us = path(simulator)
        A, B = jax.jit(lambda xs, us: jacobians(simulator, xs, us))(jnp.asarray(xs[:-1]), jnp.asarray(us))
    np.testing.assert_allclose(exact[0], A, atol=2e-8)
    np.testing.assert_allclose(exact[1], B, atol=2e-8)
    assert np.abs(A - A.transpose(0, 2, 1)).max() > 0.01  # a transpose would show


def test_finite_differences_of_a_model_whose_actuator_has_a_state(actuated):
    """Against differences of whole steps, taken here; the engine takes them physics step by physics step."""
    model = mujoco.MjModel.from_xml_string(actuated)
    with jax.enable_x64(True):
        simulator = make_simulator(model, 3, "mujoco")
        step, x, u = known_dynamics(simulator), np.array([0.1, -0.2, 0.3, 0.4, 0.5]), np.array([0.2, 1.7])
        A, B = jacobians(simulator, jnp.asarray(x[None]), jnp.asarray(u[None]))
        h = 1e-6
        slopes_x = [(step(x + h * e, u, 0) - step(x - h * e, u, 0)) / (2 * h) for e in np.eye(5)]
        slopes_u = [(step(x, u + h * e, 0) - step(x, u - h * e, 0)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(A[0], np.stack(slopes_x, axis=1), atol=1e-8)
    np.testing.assert_allclose(B[0], np.stack(slopes_u, axis=1), atol=1e-8)


def test_finite_differences_in_single_precision_are_those_in_double_rounded(doubles, exact):
    """The engine computes in double precision: a difference over 1e-6 in single precision would be noise."""
    with jax.enable_x64(True):
        xs, us = path(doubles["mujoco"])
    A, B = jacobians(doubles["mujoco"], jnp.asarray(xs[:-1], jnp.float32), jnp.asarray(us, jnp.float32))
    assert A.dtype == B.dtype == jnp.float32
    np.testing.assert_allclose(A, exact[0], atol=2e-6)
    np.testing.assert_allclose(B, exact[1], atol=2e-6)


def test_derivatives_through_the_engine_in_c_compose(doubles, exact):
    """Of the end of a roll-out in a scan, for two starts at once: products of A and B, forward and in reverse."""
    dynamics = known_dynamics(doubles["mujoco"])
    expected, rest = [], np.eye(4)
    for A, B in zip(exact[0][::-1], exact[1][::-1], strict=True):
        expected.append(rest @ B)
        rest = rest @ A
    expected = np.stack(expected[::-1], axis=1)  # nx T nu
    weight = np.array([1.0, -2.0, 0.5, 0.3])
    with jax.enable_x64(True):
        xs, us = path(doubles["mujoco"])
        starts = jnp.asarray(np.stack([xs[0] + 0.1, xs[0]]))

        @jax.jit
        def differentiate(starts, us):
            forward = jax.vmap(lambda x0: jax.jacfwd(lambda us: last_state(dynamics, x0, us))(us))(starts)
            reverse = jax.vmap(lambda x0: jax.grad(lambda us: weight @ last_state(dynamics, x0, us))(us))(starts)
            return forward, reverse

        forward, reverse = differentiate(starts, jnp.asarray(us))
    np.testing.assert_allclose(forward[1], expected, atol=1e-7)
    np.testing.assert_allclose(reverse[1], np.einsum("x,xtu->tu", weight, expected), atol=1e-7)
    np.testing.assert_allclose(reverse[0], np.einsum("x,xtu->tu", weight, forward[0]), atol=1e-12)
    assert np.abs(forward[0] - forward[1]).max() > 1e-3


def test_the_engine_in_c_differentiates_inside_loops_and_branches(doubles, exact):
    """As iLQR does: anew in each turn of a while_loop, and only if a condition holds."""
    simulator = doubles["mujoco"]

    def turn(carry):
        turns, jacobian = carry
        fresh = jax.lax.cond(turns == 1, lambda: jacobians(simulator, xs[:-1], us)[0], lambda: jacobian)
        return turns + 1, fresh

    with jax.enable_x64(True):
        xs, us = map(jnp.asarray, path(simulator))
        zero = jnp.zeros((T, 4, 4))
        _, A = jax.jit(lambda: jax.lax.while_loop(lambda carry: carry[0] < 3, turn, (0, zero)))()
    np.testing.assert_allclose(A, exact[0], atol=2e-8)


@pytest.fixture
def calls(doubles, monkeypatch):
    """How many states each callback of the engine in C was given, call by call."""
    simulator, counts = doubles["mujoco"], {"advance_rows": [], "differentiate_rows": []}

    def counted(name, callback):
        def call(rows):
            counts[name].append(len(rows))
            return callback(rows)

        monkeypatch.setattr(simulator, name, call)

    for name in counts:
        counted(name, getattr(simulator, name))
    return simulator, counts


def test_one_call_differentiates_a_whole_trajectory(calls):
    """Not one call a tangent, of which a state here has six; and no step is simulated that nobody asked for."""
    simulator, counts = calls
    xs, us = jnp.zeros((T, 4)), jnp.zeros((T, 2))
    jax.block_until_ready(jax.jit(lambda xs, us: jacobians(simulator, xs, us))(xs, us))
    assert counts == {"advance_rows": [], "differentiate_rows": [T]}


def test_a_gradient_differentiates_each_step_once(calls):
    simulator, counts = calls
    dynamics = known_dynamics(simulator)
    gradient = jax.jit(jax.grad(lambda us: last_state(dynamics, jnp.zeros(4), us).sum()))
    jax.block_until_ready(gradient(jnp.zeros((T, 2))))
    assert counts == {"advance_rows": [1] * T, "differentiate_rows": [1] * T}


@pytest.mark.parametrize("engine", ENGINES)
def test_derivatives_at_the_control_range(linearized, engine):
    """At a limit the slope inside, from beyond it none; 0.1 in single precision is above 0.1 in double."""
    us = jnp.array([0.05, 0.0, 0.1, -0.1, 0.1001, -0.1001, -3.0])[:, None]
    assert float(us[2, 0]) > 0.1
    A, B = linearized[engine](jnp.tile(jnp.array([0.5, 1.0]), (7, 1)), us)
    assert np.abs(B[0]).min() > 0.05
    np.testing.assert_allclose(B[:4], np.tile(B[0], (4, 1, 1)), rtol=1e-3)  # it depends on u a little
    np.testing.assert_array_equal(B[4:], 0.0)
    np.testing.assert_allclose(A[4:6], A[2:4], rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_diverged_member_has_derivatives_that_are_nan_and_alone(linearized, engine, capfd):
    """The last one broken is sound before the step and too far after it."""
    xs, us = np.tile([0.5, 1.0], (7, 1)), np.zeros((7, 1))
    sound = linearized[engine](jnp.asarray(xs), jnp.asarray(us))
    xs[0, 1], xs[1, 0], xs[2, 1], us[3, 0], xs[4] = np.nan, np.inf, -2e6, np.nan, [999_990.0, 1e3]
    for broken, whole in zip(linearized[engine](jnp.asarray(xs), jnp.asarray(us)), sound, strict=True):
        assert np.isnan(broken[:5]).all()
        np.testing.assert_array_equal(broken[5:], whole[5:])
        assert np.isfinite(whole).all()
    assert capfd.readouterr() == ("", "")


def test_derivatives_where_mujoco_breaks_a_simulation_off_are_nan(arms):
    """It stops at an acceleration of 1e10; with a timestep this small the state is still within its limit then."""
    model = copy.deepcopy(arms["mujoco"].simulator.model)
    model.opt.timestep = 1e-6
    A, B = jacobians(make_simulator(model, 5, "mujoco"), jnp.array([[0.0, 1.6, 3e5, 0.0]]), jnp.zeros((1, 2)))
    assert np.isnan(A).all()
    assert np.isnan(B).all()


def test_programs_that_run_at_the_same_time_do_not_disturb_each_other(doubles):
    """They share the simulator's memory; the engine lets other threads run while it computes."""
    simulator = doubles["mujoco"]
    rng = np.random.default_rng(4)
    problems = [(jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.normal(size=(20, 4)))) for _ in range(8)]
    program = jax.jit(
        lambda x, z: (last_state(known_dynamics(simulator), x, z[:, :2]), jacobians(simulator, z, z[:, 2:]))
    )
    alone = [jax.tree.map(np.asarray, program(*problem)) for problem in problems]
    together = [None] * len(problems)

    def solve(i):
        together[i] = jax.tree.map(np.asarray, program(*problems[i]))

    threads = [threading.Thread(target=solve, args=(i,)) for i in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jax.tree.map(np.testing.assert_array_equal, together, alone)


@pytest.mark.slow
def test_both_engines_lead_ilqr_to_the_same_solution():
    """In double precision: the steps are the same to rounding, and an error of 1e-9 in derivatives moves no optimum."""

    def solve(engine):
        dynamics = known_dynamics(make_simulator(mujoco.MjModel.from_xml_string(PENDULUM), 1, engine))
        solution = jax.jit(
            lambda x0: ilqr.solve(
                dynamics,
                lambda x, u, t: 0.05 * (x[0] ** 2 + u[0] ** 2),
                x0,
                jnp.zeros((8, 1)),
                final_cost=lambda x: x[0] ** 2 + 0.1 * x[1] ** 2,
            )
        )(jnp.array([0.1, -0.3]))
        assert solution.converged
        return jax.tree.map(np.asarray, solution)

    with jax.enable_x64(True):
        c, mjx = solve("mujoco"), solve("mjx")
    assert c.iterations == mjx.iterations
    assert 0.01 < np.abs(c.actions).max() < 0.1
    np.testing.assert_allclose(c.actions, mjx.actions, atol=1e-8)
    np.testing.assert_allclose(c.K, mjx.K, atol=1e-8)
    np.testing.assert_allclose(c.cost, mjx.cost, rtol=1e-10)


def test_regression_over_small_deviations_finds_the_same_derivatives(doubles, exact):
    """Deviations of 1e-3 leave a curvature of about 1e-3 of the slope; 200 samples average it out."""
    with jax.enable_x64(True):
        simulator = doubles["mujoco"]
        xs, us = path(simulator)
        rng = np.random.default_rng(1)
        du = jnp.asarray(1e-3 * rng.normal(size=(200, T, 2)))
        starts = jnp.asarray(np.concatenate([np.zeros((200, 1)), xs[0] + 1e-3 * rng.normal(size=(200, 4))], axis=1))
        many = jax.jit(jax.vmap(lambda s, u: rollout(simulator, lambda m, t, s, n: (m, n), s, u)))
        dx = many(starts, us + du).states[..., 1:] - xs
        w = transitions(dx, du)
        prior = pooled(w.reshape(-1, w.shape[-1]), jnp.ones(w.shape[0] * T), nx=4)
        fitted = fit_dynamics(dx, du, jnp.ones(200), prior, (1e-3,)).dynamics
    np.testing.assert_allclose(fitted.A, exact[0], atol=5e-3)
    np.testing.assert_allclose(fitted.B, exact[1], atol=5e-3)


def test_positions_that_are_no_coordinates_are_refused():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><freejoint/><geom size="0.1"/></body></worldbody></mujoco>'
    )
    simulator = make_simulator(model, 1, "mujoco")
    with pytest.raises(ValueError, match="nq = 7 but nv = 6"):
        known_dynamics(simulator)
    state = jnp.zeros(14).at[4].set(1.0)
    assert float(simulator.step(state, jnp.zeros(0))[0]) > 0.0
    with pytest.raises(ValueError, match="nq = 7 but nv = 6"):
        jax.jacfwd(simulator.step)(state, jnp.zeros(0))


def test_second_derivatives_through_the_engine_in_c_are_refused(doubles):
    dynamics = known_dynamics(doubles["mujoco"])
    with pytest.raises(ValueError, match='"mujoco" has no second derivatives'):
        jax.jacfwd(jax.jacfwd(dynamics))(jnp.zeros(4), jnp.zeros(2), 0)


def test_an_integrator_that_mujoco_does_not_differentiate_is_refused():
    pendulum = mujoco.MjModel.from_xml_string(PENDULUM)
    pendulum.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    dynamics = known_dynamics(make_simulator(pendulum, 1, "mujoco"))
    assert np.isfinite(dynamics(jnp.ones(2), jnp.zeros(1), 0)).all()
    with pytest.raises(ValueError, match="RK4: use Euler or implicitfast"):
        jax.jacfwd(dynamics)(jnp.ones(2), jnp.zeros(1), 0)


@pytest.mark.slow
def test_ilqr_with_the_known_model_reaches_a_target(arms):
    """In single precision."""
    arm = arms["mujoco"]
    target, dynamics = jnp.array([-0.08, 0.12]), known_dynamics(arm.simulator)
    solution = ilqr.solve(
        dynamics,
        lambda x, u, t: arm.cost(x, u, t, target),
        jnp.array([0.0, 1.6, 0.0, 0.0]),
        jnp.full((50, 2), 0.01),
        final_cost=lambda x: arm.final_cost(x, target),
    )
    start = jnp.array([0.0, 0.0, 1.6, 0.0, 0.0])
    executed = rollout(arm.simulator, lambda m, t, s, u: (m, u), start, solution.actions).states[:, 1:]
    np.testing.assert_allclose(executed, solution.states, atol=1e-3)
    distances = np.linalg.norm(jax.vmap(arm.point)(executed) - target, axis=1)
    assert distances[0] > 0.1
    assert distances[-10:].max() < 0.01
