"""Integrators against scipy, and their orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from controllers.integrators import Integrated


def rate(x, u, t, stiffness):
    return jnp.stack([x[1], -stiffness * jnp.sin(x[0]) + u[0]])


X, U = np.array([0.7, -0.4]), np.array([0.3])


@pytest.fixture(scope="module")
def exact():
    def right(_, x):
        return [x[1], -5.0 * np.sin(x[0]) + 0.3]

    return solve_ivp(right, (0.0, 0.4), X, rtol=1e-12, atol=1e-12).y[:, -1]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_error_falls_with_the_order_of_the_method(method, order, exact):
    with jax.enable_x64():
        errors = [abs(Integrated(rate, 0.4, method, n)(X, U, 0, 5.0) - exact).max() for n in (8, 16)]
    assert errors[0] < 0.4 ** (order + 1)
    assert 0.8 * 2**order < errors[0] / errors[1] < 1.25 * 2**order


def test_equal_parts_make_equal_dynamics():
    assert Integrated(rate, 0.1) == Integrated(rate, 0.1)
    assert hash(Integrated(rate, 0.1)) == hash(Integrated(rate, 0.1))
    assert Integrated(rate, 0.1) != Integrated(rate, 0.2)


@pytest.mark.parametrize(("setting", "value"), [("seconds", 0.0), ("method", "heun"), ("substeps", 0)])
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must be .*, not {value!r}"):
        Integrated(**{"rate": rate, "seconds": 0.1, setting: value})
