"""Plans of start controllers on a rail with two valleys, of which the right one is deeper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.carts import Cart

from controllers import ilqr
from controllers.types import LinearGaussian
from dynamics.known_model import jacobians
from gps.guiders.model_based import plan as plan_module
from gps.guiders.model_based.plan import plan
from gps.tasks.control_task import step_costs


class Valleys(Cart):
    """The context is where the cart starts."""

    start_noise = 0.0

    def start(self, context):
        return context, jnp.zeros(1)

    def cost(self, x, u, t, context):
        return 20.0 * (x[0] ** 2 - 0.16) ** 2 - 1.0 * x[0] + 0.02 * x[1] ** 2 + 0.01 * (u @ u)


@pytest.fixture(scope="module")
def plans():
    """With each start on its own, and with all after the one in the middle."""
    task = Valleys(horizon=50)
    starts = jax.vmap(lambda c: task.control_state(task.initial_state(jax.random.key(0), c)))(task.train_contexts)

    def planned(restarts):
        return jax.jit(lambda xs, held: plan(task, xs, held, jax.random.key(0), restarts, limit=0.8, iterations=40))

    return task, [planned(restarts)(starts, still(task)) for restarts in (0, 5)]


def still(task):
    """No action and no gains."""
    zero = jnp.zeros((4, task.horizon, 1, 1))
    return LinearGaussian(jnp.zeros((4, task.horizon, 1, task.nx)), zero[..., 0], zero + 0.1)


def total(task, xs, us):
    return np.asarray(jax.vmap(lambda *episode: step_costs(task, *episode).sum())(xs, us, task.train_contexts))


def test_others_follow_the_plan_of_the_start_in_the_middle(plans):
    """The second start alone stays in the valley that it is in; random actions find the deeper one."""
    task, (alone, together) = plans
    ends = np.asarray(alone[0][:, -1, 0]), np.asarray(together[0][:, -1, 0])
    assert (ends[0] > 0.4).tolist() == [True, False, True, True]
    assert (ends[1] > 0.4).all()
    costs = total(task, *alone[:2]), total(task, *together[:2])
    assert costs[1][1] < costs[0][1] - 10.0
    np.testing.assert_allclose(costs[1][[0, 2, 3]], costs[0][[0, 2, 3]], rtol=1e-3)


def test_plans_are_trajectories_inside_the_limit(plans):
    task, (_, (xs, us, _)) = plans
    assert float(jnp.abs(us).max()) == pytest.approx(0.8)
    states = jax.vmap(task.initial_state)(jax.random.split(jax.random.key(0), 4), task.train_contexts)
    for t in range(task.horizon):
        states = jax.vmap(task.simulator.step)(states, us[:, t])
        np.testing.assert_allclose(jax.vmap(task.control_state)(states), xs[:, t + 1], atol=1e-4)


def test_a_jump_does_not_decide_the_gains(plans, monkeypatch):
    """What touches something moves the derivative of one step by 1e4; the gains of the steps before stay useful."""
    task, (_, (xs, us, K)) = plans
    jump = 25

    def jumping(*args):
        A, B = jacobians(*args)
        return A.at[jump, 1, 0].add(1e4), B

    monkeypatch.setattr(plan_module, "jacobians", jumping)
    planner = plan_module.Planner(task, 0.8, ilqr.Options())
    gains = planner.feedback(xs[1], us[1], task.train_contexts[1])
    np.testing.assert_allclose(gains[jump + 1 :], K[1, jump + 1 :], rtol=1e-4)
    assert float(jnp.abs(gains).max()) < 3.0 * float(jnp.abs(K[1]).max())
