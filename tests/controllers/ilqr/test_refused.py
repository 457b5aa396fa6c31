"""What iLQR refuses, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers import ilqr
from controllers.ilqr import Dynamics, Options


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def pendulum(x, u, t):
    rate = x[1] + 0.1 * (9.81 * jnp.sin(x[0]) + 3.0 * u[0])
    return jnp.stack([x[0] + 0.1 * rate, rate])


GOOD = {
    "dynamics": pendulum,
    "cost": lambda x, u, t: 1.0 - jnp.cos(x[0]) + u[0] ** 2,
    "final_cost": lambda x: 1.0 - jnp.cos(x[0]),
    "x0": np.array([np.pi, 0.0]),
    "us": np.full((20, 1), 0.5),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x0": np.zeros((2, 2))}, r"x0 must have shape \(nx,\), not \(2, 2\)"),
        ({"us": np.zeros(5)}, r"us must have shape \(T, nu\) with T and nu at least 1, not \(5,\)"),
        ({"dynamics": lambda x, _u, _t: x[:1]}, r"dynamics must return float64 of shape \(2,\), not .* \(1,\)"),
        ({"dynamics": lambda x, u, _t: (x, u)}, "not a tuple"),
        ({"dynamics": lambda x, _u, _t: x.astype("float32")}, "not float32"),
        ({"final_cost": lambda x: x}, r"^final_cost must return float64 of shape \(\), not .* \(2,\)"),
        ({"x0": np.array([3, 0])}, "^x0 must hold floating-point numbers, not int"),
        ({"us": np.ones((20, 1), int)}, "^us must hold floating-point numbers, not int"),
        ({"xs": np.zeros((21, 2), bool)}, "^xs must hold floating-point numbers, not bool"),
        ({"us": np.full((20, 1), np.nan)}, "^us must be finite"),
        ({"x0": np.array([0.0, np.inf])}, "^x0 must be finite"),
        ({"us": np.zeros((0, 1))}, "^us must have one leading axis of length T, at least 1"),
        ({"us": np.zeros((20, 0))}, r"^us must hold at least one number for each moment, not shape \(20, 0\)"),
        ({"us": [np.zeros(20), np.zeros(19)]}, "^us must have one leading axis of length T, at least 1"),
        ({"x0": np.zeros(0)}, "^x0 must hold at least one number"),
        ({"xs": np.zeros((20, 2))}, r"^xs must be like x0 with a leading axis of T\+1 = 21, not .*\(20, 2\)"),
        ({"xs": np.zeros((21, 3))}, r"^xs must be like x0 with a leading axis of T\+1 = 21, not .*\(21, 3\)"),
        ({"xs": {"x": np.zeros((21, 2))}}, "^xs must be like x0"),
        ({"cost": lambda x, u, t: u}, r"^cost must return float64 of shape \(\), not float64 of shape \(1,\)"),
        ({"cost": lambda x, u, t: 1}, r"^cost must return float64 of shape \(\), not int"),
        ({"final_cost": lambda x: (x,)}, r"^final_cost must return float64 of shape \(\), not a tuple"),
        (
            {"x0": {"angle": np.zeros(2)}, "dynamics": Dynamics(pendulum, jax.jacfwd(pendulum))},
            "^a Dynamics with deriv",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_compiled(changed, message, caplog):
    with pytest.raises(ValueError, match=message), jax.log_compiles():
        ilqr.solve(**{**GOOD, **changed})
    assert "XLA compilation" not in caplog.text


def test_what_parallel_in_time_cannot_do_is_refused():
    with pytest.raises(ValueError, match='regularization_type must be "control" with parallel_in_time'):
        Options(parallel_in_time=True, regularization_type="state")
    with pytest.raises(ValueError, match='method must be "ilqr" with parallel_in_time, not "ddp"'):
        Options(parallel_in_time=True, method="ddp")
    with pytest.raises(ValueError, match="limits must be None with parallel_in_time"):
        ilqr.solve(**GOOD, limits=(-1.0, 1.0), options=Options(parallel_in_time=True))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_iterations", 0),
        ("cost_tolerance", -1.0),
        ("gradient_tolerance", float("nan")),
        ("hessian", "newton"),
        ("regularization", 1e11),
        ("regularization_min", 0.0),
        ("regularization_max", 1e-9),
        ("regularization_factor", 1.0),
        ("line_search_steps", 0),
        ("step_decay", 1.0),
        ("acceptance", 0.0),
        ("method", "newton"),
        ("regularization_type", "both"),
        ("line_search", "none"),
        ("step_tolerance", -1.0),
        ("constraint_tolerance", 0.0),
        ("penalty", 0.0),
        ("penalty", 1e9),
        ("penalty_factor", 1.0),
        ("rounds", 0),
        ("polish", -1),
        ("gap_tolerance", -1.0),
        ("ddp_switch", -1.0),
        ("batching", "all"),
    ],
)
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must be .*, not {value!r}"):
        Options(**{setting: value})
