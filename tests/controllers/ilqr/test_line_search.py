"""Regularisation, line search and ends of iLQR, on costs of one action whose minimum is known; in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers import ilqr
from controllers.ilqr import Options, Status

TIGHT = Options(cost_tolerance=1e-14, gradient_tolerance=1e-10)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def keep_state(x, u, t):
    return x


def at_rest(cost, u, options=None, final_cost=None):
    """Minimise a cost of one action over two steps: the state does nothing."""
    return ilqr.solve(keep_state, cost, np.zeros(1), np.full((2, 1), u), options=options, final_cost=final_cost)


def double_well(x, u, t):
    return (u[0] ** 2 - 1.0) ** 2  # concave between -0.58 and 0.58, minima at -1 and 1


@pytest.mark.parametrize("hessian", ["exact", "clip", "flip"])
def test_indefinite_hessian_still_descends_to_the_minimum(hessian):
    solution = at_rest(double_well, 0.1, Options(hessian=hessian))
    n = int(solution.iterations)
    assert solution.converged
    assert (np.diff(solution.trace.cost[:n]) <= 0.0).all()
    assert (float(solution.trace.regularization[0]) > 0.0) == (hessian != "flip")
    np.testing.assert_allclose(solution.actions, 1.0, atol=1e-6)
    np.testing.assert_allclose(solution.chol[:, 0, 0] ** 2, 1.0 / 8.0, rtol=1e-5)  # at u = 1 no regularisation is left
    assert solution.regularization == 0.0


def test_step_out_of_the_domain_of_the_cost_is_rejected():
    solution = at_rest(lambda _x, u, _t: -4.0 * u[0] - jnp.log(1.0 - u[0]), -1.0)
    assert 0.0 < solution.trace.step_size[0] < 1.0
    np.testing.assert_allclose(solution.actions, 0.75, atol=1e-6)


def test_ddp_goes_on_without_second_derivatives_that_are_not_finite():
    def drag(x, u, t):  # its second derivative in the speed is infinite at rest
        return x + 0.1 * jnp.stack([x[1], u[0] - jnp.abs(x[1]) ** 1.5 * jnp.sign(x[1])])

    def cost(x, u, t):
        return 0.1 * ((x[0] - 1.0) ** 2 + 0.1 * u[0] ** 2)

    plain, curved = (
        ilqr.solve(drag, cost, np.zeros(2), np.zeros((15, 1)), options=Options(method=method, ddp_switch=1.0))
        for method in ("ilqr", "ddp")
    )
    assert curved.converged
    np.testing.assert_allclose(curved.cost, plain.cost, rtol=1e-6)


def test_minimum_of_zero_cost_is_recognised_in_spite_of_rounding():
    mix = np.random.default_rng(0).normal(size=(3, 3))
    actions = np.zeros((2, 3))
    solution = ilqr.solve(keep_state, lambda _x, u, _t: ((jnp.sin(mix @ u) - 0.11) ** 2).sum(), np.zeros(1), actions)
    assert 0.0 < solution.cost < 1e-28  # rounding keeps it from being zero
    assert int(solution.status) == Status.CONVERGED_COST
    np.testing.assert_allclose(solution.actions[0], np.linalg.solve(mix, np.full(3, np.arcsin(0.11))), rtol=1e-12)


def test_infinitely_low_cost_is_no_improvement():
    solution = at_rest(lambda _x, u, _t: jnp.where(u[0] > 0.8, -jnp.inf, (u[0] - 1.0) ** 2), 0.0)
    assert 0.0 < solution.actions[0, 0] <= 0.8
    assert jnp.isfinite(solution.cost)


def test_iteration_limit():
    solution = at_rest(double_well, 0.7, Options(max_iterations=1, regularization=10.0))
    slope, curvature, new = 4.0 * 0.7 * (0.7**2 - 1.0), 12.0 * 0.7**2 - 4.0, solution.actions[:, 0]
    assert (int(solution.status), int(solution.iterations)) == (Status.ITERATION_LIMIT, 1)
    assert "iteration limit after 1 iterations" in str(solution)
    np.testing.assert_allclose(new, 0.7 - slope / (curvature + 10.0), rtol=1e-12)
    # The regularisation of the steps does not reach the feedback that is returned.
    np.testing.assert_allclose(solution.chol[:, 0, 0] ** -2, 12.0 * new**2 - 4.0, rtol=1e-12)


def test_regularization_limit_where_the_cost_is_too_concave():
    solution = at_rest(lambda _x, u, _t: -(u[0] ** 2), 0.1, Options(hessian="exact", regularization_max=1.0))
    assert int(solution.status) == Status.REGULARIZATION_LIMIT
    np.testing.assert_array_equal(solution.actions, 0.1)
    assert np.isnan(solution.K).all()


def test_line_search_fails_in_a_kink_that_the_derivative_does_not_see():
    solution = at_rest(lambda _x, u, _t: jnp.abs(u[0] - 1.0) + 0.5 * u[0], 1.0)
    assert int(solution.status) == Status.LINE_SEARCH_FAILED
    assert (solution.trace.step_size[: int(solution.iterations)] == 0.0).all()
    np.testing.assert_array_equal(solution.actions, 1.0)


def test_start_at_the_minimum_is_returned():
    solution = at_rest(double_well, -1.0)
    assert (int(solution.status), int(solution.iterations)) == (Status.CONVERGED_GRADIENT, 0)
    np.testing.assert_array_equal(solution.actions, -1.0)
    assert np.isnan(solution.trace.cost).all()


@pytest.mark.parametrize(
    ("dynamics", "cost"),
    [
        (lambda x, _u, _t: jnp.exp(x + 1000.0), lambda _x, u, _t: u[0] ** 2),  # a state that the cost does not see
        (keep_state, lambda x, _u, _t: jnp.log(x[0] - 1.0)),  # the cost
        (keep_state, lambda x, u, _t: u[0] + jnp.sqrt(x[0] ** 2)),  # its derivative alone
    ],
)
def test_non_finite_start_is_reported_and_returned(dynamics, cost):
    solution = ilqr.solve(dynamics, cost, np.zeros(1), np.full((2, 1), 0.3))
    assert (int(solution.status), int(solution.iterations)) == (Status.NON_FINITE, 0)
    assert not solution.converged
    np.testing.assert_array_equal(solution.actions, 0.3)
