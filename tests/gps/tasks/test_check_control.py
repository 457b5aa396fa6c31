"""Mistakes in a control task of one's own: each is one line that names the member and what would be right."""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import carts
from support.carts import MOTOR, SLIDE, Cart, model_of

from controllers.expand import LeastSquares
from dynamics.engines import make_simulator
from gps.experiments.experiment import Experiment
from gps.guiders.model_based import priors
from gps.guiders.model_based.local_model import fit
from gps.guiders.model_based.samples import none_yet
from gps.guiders.model_based.settings import LocalModelSettings
from gps.settings import SettingsError
from gps.tasks.check import check_task, require_sound, serious
from gps.tasks.mujoco.reacher import PARTIAL, Reacher
from gps.tasks.task import ActionSpace

FREE = SLIDE.replace('name="rail" type="slide" axis="1 0 0"', 'name="float" type="free"')
FREE_MOTOR = MOTOR.replace('joint="rail"', 'joint="float"').replace('gear="5"', 'gear="5 0 0 0 0 0"')


def simulator_of(actuator):
    """As a task has it that does not inherit from `MujocoTask`."""
    return make_simulator(model_of(actuator=actuator), 10, "mujoco")


def test_tasks_that_are_what_they_say_pass():
    """The cart has no skeleton and says nothing of being solved."""
    assert check_task(Cart()) == []
    assert check_task(Reacher(PARTIAL, "mujoco")) == []


WRONG = {
    "observe of the wrong length": (
        {"frame_size": 3, "observation_size": 3},
        r"`observe` gives an array of shape \(2,\), and it must be \(3,\) \(frame_size\)",
    ),
    "observation size": ({"observation_size": 5}, r"`observation_size` is 5, .* must be history \* frame_size = 2"),
    "vector cost": (
        {"cost": lambda x, u, t, context: (x - context) ** 2},
        r"`cost` gives an array of shape \(2,\), and it must be \(\) \(one number\)",
    ),
    "cost(x, u)": (
        {"cost": lambda x, u: x @ x},
        r"`cost` must take \(x, u, t, context\), not \(x, u\)",
    ),
    "cost that fails": (
        {"cost": lambda x, u, t, context: x @ u},
        r"`cost` fails for x \[2\], u \[1\], t \[\], context \[1\]: TypeError: .*dot_general",
    ),
    "contexts 1-D": (
        {"train_contexts": jnp.linspace(0, 1, 4)},
        r"`train_contexts` must be of shape .*, not \(4,\): .*contexts\[:, None\]",
    ),
    "contexts in a list": ({"test_contexts": [[0.1]]}, r"`test_contexts` must be an array .*, not a list"),
    "contexts of two sizes": ({"test_contexts": jnp.ones((2, 3))}, r"have 3 numbers each, and `train_contexts` 1"),
    "tested on what is trained": (
        {"test_contexts": jnp.array([[0.5], [0.3]])},
        r"`test_contexts` must be disjoint from `train_contexts`, and 1 are in both",
    ),
    "nx": ({"nx": 3}, r"`control_state` gives an array of shape \(2,\), and it must be \(3,\) \(nx\)"),
    "nu": ({"nu": 2, "actions": ActionSpace(2)}, r"`nu` is 2, and the model has 1 actuators: it must be model.nu"),
    "actions": ({"actions": ActionSpace(2)}, r"`actions` must be ActionSpace\(nu\) = ActionSpace\(1\)"),
    "score": ({"score": "distance"}, r"`score` must be Score, not 'distance'"),
    "measure": ({"measure": lambda xs, us, context: xs[:, 0]}, r"`measure` gives an array of shape \(7,\)"),
    "solved": ({"solved": lambda xs, us, context: xs[-1, 0]}, r"`solved` gives float32, and it must be bool"),
    "skeleton": ({"skeleton": lambda x: jnp.zeros((4, 2))}, r"`skeleton` .* must be \(points, 3\)"),
    "target": ({"target": lambda context: context}, r"`target` .* must be \(3,\) \(a place in the world\)"),
    "residual that fails": (
        {"cost": LeastSquares(lambda x, u, t, context: jnp.stack([x, u]))},
        r"`cost` fails for x \[2\], u \[1\], .*: ",
    ),
    "residual of one number": (
        {"final_cost": LeastSquares(lambda x, context: x[0])},
        r"`final_cost.residual` gives an array of shape \(\), and it must be \(numbers,\)",
    ),
    "residual(x, u)": (
        {"cost": LeastSquares(lambda x, u: x)},
        r"`cost.residual` must take \(x, u, t, context\), not \(x, u\)",
    ),
    "NaN cost": (
        {"cost": lambda x, u, t, context: jnp.log(-1.0 - x @ x)},
        r"`cost` is nan at x = \[.*\], and it must be finite",
    ),
    "NaN Hessian": (
        {"final_cost": lambda x, context: jnp.sqrt((x[1] - x[1]) ** 2)},
        r"`final_cost` has no finite second derivatives at x = .*: .*add a small number under the root",
    ),
    "no control range": (
        {"simulator": simulator_of(MOTOR.replace('ctrllimited="true" ctrlrange="-1 1"', ""))},
        r"actuator 'push' has no control range, and actions are in \[-1, 1\]: give it ctrlrange",
    ),
    "no simulator": ({"simulator": None}, r"`simulator` must be a dynamics.simulator.Simulator"),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_mistake_is_one_line(what):
    changes, message = WRONG[what]
    findings = check_task(Cart(**changes))
    assert [finding for finding in findings if "\n" in finding] == []
    assert findings[0].startswith("task cart: ")
    with pytest.raises(ValueError, match=message):
        require_sound(Cart(**changes))
    assert len(findings) == 1, findings


def track(x, u, t, context):
    """Squared along x[0] u[0], so that the exact Hessian is indefinite where Gauss's and Newton's is not."""
    return jnp.stack([x[0] - context[0], 1.0 + x[0] * u[0], 0.1 * u[0]])


def test_a_cost_of_least_squares_passes_and_is_expanded_by_gauss_and_newton():
    task = Cart(cost=LeastSquares(track), final_cost=LeastSquares(lambda x, context: 3.0 * (x - context)))
    assert check_task(task) == []
    M, N, T = len(task.train_contexts), 5, task.horizon
    shapes = jax.eval_shape(lambda: none_yet(task, N))
    rng = np.random.default_rng(0)
    samples = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    settings = LocalModelSettings(prior="pooled", hessian="exact", regularization=1e-6)
    prior = priors.make(task, settings)
    fitted, _ = fit(task, replace(samples, weights=jnp.ones((M, N))), settings, prior, prior.init())
    model = fitted.models
    x, u = samples.xs[..., :-1, 0], samples.us[..., 0]
    nought, one = jnp.zeros_like(x), jnp.ones_like(x)
    J = jnp.stack(
        [jnp.stack(row, -1) for row in ((one, nought, nought), (u, nought, x), (nought, nought, 0.1 * one))], -2
    )
    np.testing.assert_allclose(model.cost.H, (J.mT @ J).mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.cost.H_final, np.broadcast_to(9.0 * np.eye(2), (M, 2, 2)), rtol=1e-5)
    exact = jax.hessian(lambda z: 0.5 * (track(z[:2], z[2:], 0, task.train_contexts[0]) ** 2).sum())(jnp.zeros(3))
    assert np.linalg.eigvalsh(exact)[0] < -0.1
    assert model.cost.H.shape[1] == T


def plain(state):
    return state[1:]


WARNED = {
    "sparse cost": (
        Cart(cost=lambda x, u, t, context: jnp.where(jnp.abs(x[0] - 9) < 0.1, 0.0, 1.0) + u @ u),
        r"warning: task cart: `cost` and `final_cost` do not change with x at the start states",
    ),
    "a quaternion as it is": (
        Cart(model_of(FREE, FREE_MOTOR), nx=13, control_state=plain),
        r"`control_state` holds the quaternion of joint 'float' as it is",
    ),
    "a wide control range": (
        Cart(simulator=simulator_of(MOTOR.replace("-1 1", "-15 15"))),
        r"actuator 'push' of `simulator` takes -15 to 15, .* dynamics.action_range.with_unit_actions",
    ),
}


@pytest.mark.parametrize("what", WARNED)
def test_what_will_hardly_be_learned_is_a_warning(what):
    task, message = WARNED[what]
    (finding,) = require_sound(task)
    assert re.search(message, finding)
    assert not serious([finding])


def test_the_coordinates_of_a_free_joint_pass():
    assert check_task(Cart(model_of(FREE, FREE_MOTOR))) == []


@pytest.mark.parametrize("engines", [True, False])
def test_an_entry_says_whether_its_task_takes_an_engine(engines, monkeypatch):
    takes = (lambda settings, name: Cart()) if engines else (lambda settings, engine, name: Cart())
    monkeypatch.setattr(carts, "UNDRAWABLE", replace(carts.UNDRAWABLE, build=takes, engines=engines))
    experiment = Experiment.resolve({"run": {"task": "support.carts:UNDRAWABLE", "guider": "ppo"}})
    with pytest.raises(SettingsError, match=f"has engines={engines} and builds from .*: engines must be {not engines}"):
        experiment.build_task()
