"""What iLQR offers beside the plain solve, against plain solves; in float64."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers import expand, ilqr
from controllers.ilqr import Constraints, Cost, Dynamics, LeastSquares, Options, Status
from controllers.ilqr.step import damping_rows
from controllers.types import LinearDynamics

TIGHT = Options(cost_tolerance=1e-14, gradient_tolerance=1e-10, line_search="backtracking")
HANGING, PUSH = np.array([np.pi, 0.0]), np.full((20, 1), 0.5)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def pendulum(x, u, t):
    """Angle from upright and its rate."""
    rate = x[1] + 0.1 * (9.81 * jnp.sin(x[0]) + 3.0 * u[0])
    return jnp.stack([x[0] + 0.1 * rate, rate])


def residual(x, u, t):
    return jnp.stack([np.sqrt(0.4) * jnp.sin(0.5 * x[0]), np.sqrt(0.04) * u[0]])


def final_residual(x):
    return jnp.stack([np.sqrt(80.0) * jnp.sin(0.5 * x[0]), 2.0 * x[1]])


def cost(x, u, t):
    return 0.1 * (1.0 - jnp.cos(x[0])) + 0.02 * u[0] ** 2  # = 1/2 |residual|^2


def final_cost(x):
    return 20.0 * (1.0 - jnp.cos(x[0])) + 2.0 * x[1] ** 2


def swing_up(x0=HANGING, us=PUSH, dynamics=pendulum, cost=cost, final_cost=final_cost, xs=None, **changed):
    return ilqr.solve(
        dynamics, cost, x0, us, final_cost=final_cost, xs=xs, options=dataclasses.replace(TIGHT, **changed)
    )


@pytest.fixture(scope="module")
def plain():
    with jax.enable_x64():
        return swing_up()


def assert_same_optimum(solution, other, atol=1e-6):
    assert solution.converged
    np.testing.assert_allclose(solution.cost, other.cost, rtol=1e-10)
    np.testing.assert_allclose(solution.actions, other.actions, atol=atol)
    np.testing.assert_allclose(solution.states, other.states, atol=atol)


# --- differential dynamic programming --------------------------------------------------------------------


@pytest.fixture(scope="module")
def second_order():
    with jax.enable_x64():
        return swing_up(method="ddp", hessian="exact")


def test_ddp_takes_fewer_iterations_to_the_same_swing_up(plain, second_order):
    assert_same_optimum(second_order, plain)
    assert second_order.iterations < plain.iterations


def test_ddp_ends_quadratically_and_ilqr_does_not(plain, second_order):
    """Gradient norms of the last iterations, as powers of each other."""

    def last(solution):
        norms = np.append(solution.trace.gradient_norm[: int(solution.iterations)], solution.gradient_norm)
        return norms[norms > 1e-9][-3:]

    fast, slow = last(second_order), last(plain)
    assert fast[2] < 10.0 * fast[1] ** 1.7
    assert slow[2] > 1e-2 * slow[1]


def test_gains_of_ddp_are_the_sensitivities_of_the_optimal_first_action(plain, second_order):
    step = 2e-5

    def first(x0):
        return swing_up(x0, second_order.actions, method="ddp", hessian="exact").actions[0]

    differences = [(first(HANGING + d) - first(HANGING - d)) / (2.0 * step) for d in step * np.eye(2)]
    np.testing.assert_allclose(second_order.K[0], np.stack(differences, axis=1), rtol=1e-5)
    assert np.abs(plain.K[0] / second_order.K[0] - 1.0).max() > 0.05


# --- derivatives of one's own -----------------------------------------------------------------------------


@jax.custom_jvp
def without_derivative(x):
    return x


@without_derivative.defjvp
def _refuse(*_):
    raise AssertionError("differentiated automatically")


def pendulum_jacobian(x, u, t):
    pull = 0.981 * jnp.cos(x[0])
    A = jnp.array([[1.0 + 0.1 * pull, 0.1], [pull, 1.0]])
    return A, jnp.array([[0.03], [0.3]])


def cost_derivatives(x, u, t):
    g = jnp.stack([0.1 * jnp.sin(x[0]), 0.0, 0.04 * u[0]])
    return g, jnp.diag(jnp.stack([0.1 * jnp.cos(x[0]), 0.0, 0.04]))


def final_jacobian(x):
    return jnp.array([[np.sqrt(20.0) * jnp.cos(0.5 * x[0]), 0.0], [0.0, 2.0]])


def test_least_squares_have_the_minimum_of_the_same_cost(plain):
    solution = swing_up(cost=LeastSquares(residual), final_cost=LeastSquares(final_residual))
    assert_same_optimum(solution, plain)
    assert (solution.trace.regularization[: int(solution.iterations)] == 0.0).all()  # never indefinite


def test_derivatives_of_ones_own_stand_for_automatic_ones(plain):
    """Of dynamics, cost and least squares, all at once; and functions that must not be differentiated."""
    solution = swing_up(
        dynamics=Dynamics(lambda x, u, t: without_derivative(pendulum(x, u, t)), pendulum_jacobian),
        cost=Cost(lambda x, u, t: without_derivative(cost(x, u, t)), cost_derivatives),
        final_cost=LeastSquares(lambda x: without_derivative(final_residual(x)), final_jacobian),
    )
    assert_same_optimum(solution, plain)


def test_expansion_takes_the_given_derivatives_whatever_they_are():
    """J'J of a given Jacobian and the residual itself; the treatment of Hessians applies to a Cost alone."""
    xs, us = np.array([[0.3, 1.0], [3.0, -2.0], [0.5, 0.2]]), np.array([[0.2], [-0.4]])
    J, J_final = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]), np.array([[0.0, 5.0], [1.0, 1.0]])
    squares = LeastSquares(residual, lambda x, u, t: J), LeastSquares(final_residual, lambda x: J_final)
    found = expand.quadratize(*squares, xs, us)
    for t in range(2):
        np.testing.assert_allclose(found.H[t], J.T @ J, rtol=1e-14)
        np.testing.assert_allclose(found.g[t], J.T @ residual(xs[t], us[t], t), rtol=1e-14)
        np.testing.assert_allclose(found.c[t], cost(xs[t], us[t], t), rtol=1e-12)
    np.testing.assert_allclose(found.H_final, J_final.T @ J_final, rtol=1e-14)
    np.testing.assert_allclose(found.g_final, J_final.T @ final_residual(xs[2]), rtol=1e-14)
    odd = Cost(cost, lambda x, u, t: (jnp.arange(3.0), jnp.diag(jnp.array([1.0, -2.0, 3.0]))))
    found = expand.quadratize(odd, final_cost, xs, us, "flip")
    np.testing.assert_allclose(found.g[1], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(found.H[1], np.diag([1.0, 2.0, 3.0]), atol=1e-12)


def test_gauss_newton_hessian_is_that_of_the_linearised_residual():
    xs, us = np.array([[2.0, 1.0], [0.5, 0.2]]), np.array([[0.2]])
    found = expand.quadratize(LeastSquares(residual), LeastSquares(final_residual), xs, us)
    J = np.array([[np.sqrt(0.1) * np.cos(1.0), 0.0, 0.0], [0.0, 0.0, 0.2]])
    np.testing.assert_allclose(found.H[0], J.T @ J, rtol=1e-12)
    np.testing.assert_allclose(found.g[0], cost_derivatives(xs[0], us[0], 0)[0], rtol=1e-12)


# --- other ways to iterate ---------------------------------------------------------------------------------


def test_all_step_lengths_at_once_choose_the_same_steps(plain):
    solution = swing_up(line_search="parallel")
    n = int(plain.iterations)
    assert (plain.trace.step_size[:n] < 1.0).any()
    assert int(solution.iterations) == n
    np.testing.assert_array_equal(solution.trace.step_size, plain.trace.step_size)
    np.testing.assert_allclose(solution.trace.cost[:n], plain.trace.cost[:n], rtol=1e-9)
    assert_same_optimum(solution, plain)


def test_regularization_in_state_space_is_of_the_new_state():
    """It adds mu/2 |A x + B u|^2 where the gains are computed: second derivatives in u, and in u and x."""
    rng = np.random.default_rng(0)
    A, B = jnp.asarray(rng.normal(size=(3, 4, 4))), jnp.asarray(rng.normal(size=(3, 4, 2)))
    rows = damping_rows(LinearDynamics(A, B, A[:, 0], A), 0.7, "state")

    def added(z, t):
        return 0.35 * ((A[t] @ z[:4] + B[t] @ z[4:]) ** 2).sum()

    for t in range(3):
        np.testing.assert_allclose(rows[t], jax.hessian(added)(jnp.zeros(6), t)[4:], rtol=1e-12, atol=1e-12)


def test_regularization_in_state_space_descends_to_the_same_swing_up(plain):
    solution = swing_up(regularization_type="state", regularization=10.0)
    assert_same_optimum(solution, plain)
    assert solution.trace.regularization[0] == 10.0
    assert solution.regularization == 0.0


def test_parallel_in_time_finds_the_same_swing_up(plain):
    us = plain.actions + 0.1 * np.sin(np.arange(20.0))[:, None]
    solution = swing_up(us=us, parallel_in_time=True, method="ilqr")
    assert_same_optimum(solution, plain, atol=1e-5)
    assert solution.gap < 1e-9 * np.abs(solution.states).max()
    np.testing.assert_allclose(solution.K, plain.K, rtol=1e-3, atol=1e-4)


def test_start_with_gaps_between_the_states_ends_without(plain):
    """States of the solution moved apart, with other actions."""
    rng = np.random.default_rng(0)
    xs = np.asarray(plain.states + rng.normal(size=(21, 2)) * [0.3, 0.5])
    us = np.asarray(plain.actions + rng.normal(size=(20, 1)))
    solution = swing_up(xs=xs, us=us)
    gaps = np.array([pendulum(xs[t], us[t], t) for t in range(20)]) - xs[1:]
    gaps[0] = pendulum(HANGING, us[0], 0) - xs[1]  # xs[0] counts as x0
    np.testing.assert_allclose(solution.trace.gap[0], np.abs(gaps).max(), rtol=1e-12)
    assert solution.gap == 0.0
    assert_same_optimum(solution, plain)
    np.testing.assert_array_equal(solution.states[0], HANGING)


def still(x, u, t):
    return x


def quartic(x, u, t):
    return (u[0] - 1.0) ** 4


def test_small_step_ends_the_solve():
    options = Options(cost_tolerance=0.0, gradient_tolerance=0.0, step_tolerance=0.05)
    solution = ilqr.solve(still, quartic, np.zeros(1), np.full((2, 1), 3.0), options=options)
    assert int(solution.status) == Status.CONVERGED_STEP
    assert solution.converged
    # Newton's method takes a third of the way to the minimum of a fourth power in each step
    n, way = int(solution.iterations), 2.0 * (2.0 / 3.0) ** np.arange(30)
    np.testing.assert_allclose(solution.actions, 1.0 + way[n], rtol=1e-9)
    steps = way[:-1] - way[1:]
    assert steps[n - 1] <= 0.05 * (1.0 + way[n])
    assert steps[n - 2] > 0.05 * (1.0 + way[n - 1])


# --- pytrees -----------------------------------------------------------------------------------------------

LOW, HIGH = np.array([-1.0, -0.2]), np.array([0.6, 1.0])


def point(x, u, t, p):
    """Position and velocity in a plane; a push against friction, and a pull to the first axis."""
    force = u - p[0] * jnp.tanh(x[2:]) - jnp.stack([0.0, p[1]["pull"] * x[1]])
    return x + 0.2 * jnp.concatenate([x[2:], force])


def point_cost(x, u, t, p):
    return 0.1 * (u**2).sum() + 0.2 * ((x[:2] - jnp.array([1.0, -0.4])) ** 2).sum()


def tree_state(x):
    """With leaves of one and two axes, and a time axis before them where there is one."""
    return {"at": x[..., :2], "rate": (x[..., 2:3, None], x[..., 3:])}


def flat_state(x):
    return jnp.concatenate([x["at"], x["rate"][0][..., 0], x["rate"][1]], axis=-1)


def tree_action(u):
    return [u[..., 0], u[..., 1:]]


def flat_action(u):
    return jnp.concatenate([u[0][..., None], u[1]], axis=-1)


def tree_point(x, u, t, p):
    return tree_state(point(flat_state(x), flat_action(u), t, p))


def tree_point_cost(x, u, t, p):
    return point_cost(flat_state(x), flat_action(u), t, p)


def test_pytrees_give_the_solution_of_flat_arrays_in_their_structure():
    """x0, us, limits and params are trees, with leaves of several ranks."""
    x0, us, params = np.array([0.0, 0.5, -0.5, 0.3]), np.zeros((10, 2)), (np.array(0.3), {"pull": 0.4})
    flat = ilqr.solve(point, point_cost, x0, us, params=params, limits=(LOW, HIGH))
    tree = ilqr.solve(
        tree_point,
        tree_point_cost,
        tree_state(x0),
        tree_action(us),
        params=params,
        limits=(tree_action(LOW), tree_action(HIGH)),
    )
    assert ((flat.actions == LOW) | (flat.actions == HIGH)).any()
    for ours, theirs in ((tree.states, tree_state(flat.states)), (tree.actions, tree_action(flat.actions))):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_allclose(tree.K, flat.K, atol=1e-10)
    np.testing.assert_allclose(tree.k, flat.k, atol=1e-10)
    controller, x = tree.controller(), flat.states[3] + 0.1
    np.testing.assert_allclose(
        controller.act(3, x), flat.actions[3] + flat.K[3] @ (x - flat.states[3]), rtol=1e-9, atol=1e-10
    )


# --- compilation and batches --------------------------------------------------------------------------------

TRACED = []


def seen_residual(x, u, t):
    TRACED.append("cost")
    return jnp.concatenate([jnp.sin(x) + 0.2, u])


def seen_inequality(x, u, t):
    TRACED.append("inequality")
    return u - 0.5


def test_equal_functions_and_options_are_compiled_once():
    def solve(x0, us, **changed):
        constraints, options = Constraints(inequality=seen_inequality), Options(polish=0, **changed)
        return ilqr.solve(lean, LeastSquares(seen_residual), x0, us, constraints=constraints, options=options)

    first = solve(np.array([1.0]), np.zeros((3, 1)))
    count = len(TRACED)
    assert {"cost", "inequality"} == set(TRACED)
    second = solve(np.array([0.5]), np.ones((3, 1)))
    solve(jnp.array([0.5]), jnp.ones((3, 1)), penalty=1.0)  # the default
    assert len(TRACED) == count
    assert first.cost != second.cost


def lean(x, u, t):
    return 0.9 * x + u


def cosh(x, u, t):
    return jnp.cosh(x - 1.0).sum() + (u**2).sum()


@pytest.mark.parametrize("batching", ["sequential", "lockstep"])
def test_batch_is_the_same_as_one_by_one(batching):
    starts = np.array([[0.0], [3.0], [-8.0]])

    def solve(x0):
        return ilqr.solve(lean, cosh, x0, np.zeros((3, 1)), options=Options(batching=batching))

    together = jax.jit(jax.vmap(solve))(starts)
    for i, x0 in enumerate(starts):
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(solve(x0)), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-9, atol=1e-12)
    assert len(set(together.iterations.tolist())) > 1


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from controllers import ilqr
jax.config.update("jax_enable_x64", True)
assert len(jax.devices()) == 2
mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
options = ilqr.Options(batching="lockstep")
def solve(x0):
    cost = lambda x, u, t: jnp.cosh(x - 1.0).sum() + (u**2).sum()
    return ilqr.solve(lambda x, u, t: 0.9 * x + u, cost, x0, np.zeros((3, 1)), options=options)
starts = np.linspace(-3.0, 3.0, 4)[:, None]
together = jax.jit(jax.vmap(solve))(jax.device_put(starts, sharding))
assert len(together.actions.sharding.device_set) == 2
assert {s.data.shape for s in together.actions.addressable_shards} == {(2, 3, 1)}
alone = jax.jit(jax.vmap(solve))(starts)
np.testing.assert_allclose(together.actions, alone.actions, atol=1e-12)
np.testing.assert_allclose(together.K, alone.K, atol=1e-12)
"""


@pytest.mark.slow
def test_batch_may_be_spread_over_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env={**os.environ, **flags}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
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
        ({"x0": {"angle": np.zeros(2)}, "dynamics": Dynamics(pendulum, pendulum_jacobian)}, "^a Dynamics with deriv"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_compiled(changed, message, caplog):
    with pytest.raises(ValueError, match=message), jax.log_compiles():
        swing_up(**changed)
    assert "XLA compilation" not in caplog.text


def test_what_parallel_in_time_cannot_do_is_refused():
    with pytest.raises(ValueError, match='regularization_type must be "control" with parallel_in_time'):
        Options(parallel_in_time=True, regularization_type="state")
    with pytest.raises(ValueError, match='method must be "ilqr" with parallel_in_time, not "ddp"'):
        Options(parallel_in_time=True, method="ddp")
    with pytest.raises(ValueError, match="limits must be None with parallel_in_time"):
        ilqr.solve(pendulum, cost, HANGING, PUSH, limits=(-1.0, 1.0), options=Options(parallel_in_time=True))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
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
