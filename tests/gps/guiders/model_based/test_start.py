"""The first controllers."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from support.carts import Cart, model_of

from dynamics.known_model import jacobians
from gps.errors import UserError
from gps.guiders.model_based.start import StartSettings, start_controllers
from gps.settings import SettingsError
from gps.tasks.control_task import step_costs

KEY = jax.random.key(0)
HANGING = '<joint name="rail" type="slide" axis="0 0 1" damping="1"/>'  # gravity pulls it down the rail


def rolled(task, controller, context, key):
    state = task.initial_state(key, context)
    xs, us = [task.control_state(state)], []
    for t in range(task.horizon):
        us.append(controller.act(t, xs[-1]))
        state = task.simulator.step(state, us[-1])
        xs.append(task.control_state(state))
    return jnp.stack(xs), jnp.stack(us)


def first(controllers):
    return jax.tree.map(lambda a: a[0], controllers)


def test_zero_is_no_action_and_noise():
    task = Cart()
    start = start_controllers(task, StartSettings("zero", std=0.2), 0.02, KEY)
    assert start.K.shape == (4, 6, 1, 2)
    np.testing.assert_array_equal(start.K, 0.0)
    np.testing.assert_array_equal(start.k, 0.0)
    np.testing.assert_allclose(start.chol, 0.2)


@pytest.mark.parametrize("kind", ["auto", "pd"])
def test_pd_holds_the_start_against_gravity(kind):
    """The cart is light: 0.4 kg, where 5 N is the most."""
    model = model_of(HANGING)
    model.body_mass[1] = 0.4
    mujoco.mj_setConst(model, mujoco.MjData(model))
    task = Cart(model, horizon=20, start_noise=0.0)
    start = start_controllers(task, StartSettings(kind, spread=0.02), 0.02, KEY)
    xs, us = rolled(task, first(start), task.train_contexts[0], jax.random.key(0))
    np.testing.assert_allclose(xs, 0.0, atol=1e-5)
    np.testing.assert_allclose(us, 0.4 * 9.81 / 5, rtol=1e-5)
    # a mass on a spring: std of the force = spread sqrt(4 w^3 / dt) m
    np.testing.assert_allclose(start.chol, 0.02 * np.sqrt(4 * 125 / task.dt) * 0.4 / 5, rtol=1e-5)


def test_ilqr_follows_what_costs_less():
    """Its plan keeps away from the limits; the feedback around it is that of numpy's Riccati recursion."""
    task = Cart(horizon=30, start_noise=0.0)
    held = start_controllers(task, StartSettings("pd"), 0.02, KEY)
    planned = start_controllers(task, StartSettings("ilqr", limit=0.3), 0.02, KEY)
    context = task.train_contexts[0]
    (xs, us), (_, applied) = rolls = [rolled(task, first(c), context, jax.random.key(0)) for c in (held, planned)]
    costs = [float(step_costs(task, xs, us, context).sum()) for xs, us in rolls]
    assert costs[1] < 0.8 * costs[0]
    assert float(jnp.abs(applied).max()) == pytest.approx(0.3, abs=0.01)
    np.testing.assert_array_equal(planned.chol, held.chol)

    A, B = (np.asarray(a, float) for a in jacobians(task.simulator, xs[:1], us[:1]))
    V, gains = np.zeros((2, 2)), []
    for _ in range(30):
        Q_uu, Q_ux = 0.02 + B[0].T @ V @ B[0], B[0].T @ V @ A[0]
        gains.append(-np.linalg.solve(Q_uu, Q_ux))
        V = np.diag([2.0, 0.0]) + A[0].T @ V @ A[0] + Q_ux.T @ gains[-1]
    np.testing.assert_allclose(planned.K[0], gains[::-1], atol=2e-3)


def test_a_demonstration_is_followed(tmp_path):
    task, file = Cart(start_noise=0.0), tmp_path / "shown.npz"
    us = 0.1 * np.ones((6, 1))
    context, key = task.train_contexts[0], jax.random.key(0)
    state, xs = task.initial_state(key, context), []
    for u in us:
        xs.append(task.control_state(state))
        state = task.simulator.step(state, jnp.asarray(u))
    xs = np.stack([*xs, task.control_state(state)])
    np.savez(file, xs=xs, us=us)
    start = start_controllers(task, StartSettings("demonstration", demonstration=str(file)), 0.02, KEY)
    for controller in (first(start), jax.tree.map(lambda a: a[3], start)):
        shown, applied = rolled(task, controller, context, key)
        np.testing.assert_allclose(shown, xs, atol=1e-5)
        np.testing.assert_allclose(applied, us, atol=1e-5)
    np.savez(file, xs=xs, us=us[:3])
    with pytest.raises(UserError, match=r"us must have shape \(6, 1\), and is \(3, 1\)"):
        start_controllers(task, StartSettings("demonstration", demonstration=str(file)), 0.02, KEY)


def test_what_can_not_start_so_is_named(tmp_path):
    class Turned(Cart):
        def control_state(self, state):
            return super().control_state(state)[::-1]

    assert float(start_controllers(Turned(), StartSettings(), 0.02, KEY).chol[0, 0, 0, 0]) == pytest.approx(0.3)
    with pytest.raises(UserError, match="'pd' needs a state that begins with the positions and velocities"):
        start_controllers(Turned(), StartSettings("pd"), 0.02, KEY)
    with pytest.raises(UserError, match=r"frequency = 80.0 rad/s is too fast for actions of"):
        start_controllers(Cart(), StartSettings("pd", frequency=80.0), 0.02, KEY)
    precise = model_of(HANGING)
    precise.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    with pytest.raises(UserError, match=r"controller = 'ilqr': .*RK4: use Euler or implicitfast, or take 'pd'"):
        start_controllers(Cart(precise), StartSettings("ilqr"), 0.02, KEY)
    lost = StartSettings("demonstration", demonstration=str(tmp_path / "lost.npz"))
    with pytest.raises(UserError, match="there is no such file"):
        start_controllers(Cart(), lost, 0.02, KEY)
    with pytest.raises(ValueError, match="goes with controller = 'demonstration'"):
        StartSettings("pd", demonstration="file.npz")
    with pytest.raises(ValueError, match="limit is a share of the largest action"):
        StartSettings("ilqr", limit=1.5)
    with pytest.raises(SettingsError, match="did you mean 'zero'"):
        StartSettings("zeor")
