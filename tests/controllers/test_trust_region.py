"""The trust-region step against sequential quadratic programming, and its search in hostile conditions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles
from support.trust_regions import assert_same, numbers, parts_of, solve, solve_all, stack

from controllers import lqr
from controllers.trust_region import Options, Status, with_std_floor
from controllers.types import LinearGaussian

N = 50  # problems of the batch
STARTS = (1e-12, 1.0, 1e12)  # far below eta_min, the default, eta_max
EXACT = Options(tolerance=1e-9)
SHORT = Options(tolerance=1e-6, max_sweeps=3, eta_max=1e4)


@pytest.fixture(scope="module")
def batch():
    """Problems, their references and limits from 0.01 to 30 nats, and all of it stacked for `solve_all`."""
    problems = [oracles.random_problem(seed) for seed in range(N)]
    references = [oracles.random_controller(seed) for seed in range(N)]
    limits = 10.0 ** np.random.default_rng(0).uniform(-2.0, 1.5, N)
    parts = stack([parts_of(p, r) for p, r in zip(problems, references, strict=True)])
    return problems, references, limits, parts


@pytest.fixture(scope="module")
def saddles(batch):
    """The same with indefinite stage costs: no Q_uu is positive definite at a small eta."""
    problems, references, _, (dynamics, cost, initial, reference) = batch
    cost = dataclasses.replace(cost, H=cost.H - 10.0 * jnp.eye(5))
    return problems, references, np.full(N, 3.0), (dynamics, cost, initial, reference)


def run(batch, eta, entropy_weight=0.0, limits=None):
    def column(value):
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (N,))

    return solve_all(batch[3], column(batch[2] if limits is None else limits), column(entropy_weight), column(eta))


@pytest.fixture(scope="module")
def cold(batch):
    """The batch solved from each start."""
    return {eta: run(batch, eta) for eta in STARTS}


def exact_kl(batch, solution, index):
    """KL of a member in double precision, by the dense joint Gaussians."""
    problems, references, *_ = batch
    return oracles.trajectory_kl(problems[index], numbers(solution.controller, index), references[index])


@pytest.mark.parametrize("entropy_weight", [(0.0, 0.0, 0.0), (0.3, 1.5, 0.1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_solution_is_the_constrained_optimum(seed, entropy_weight):
    problem = oracles.random_problem(seed, T=3, nx=2, nu=1)
    reference = oracles.random_controller(seed, T=3, nx=2, nu=1)
    weight, limit = np.array(entropy_weight), 0.5
    with jax.enable_x64(True):
        solution = solve(parts_of(problem, reference), limit, weight, options=EXACT)
    assert solution.status == Status.CONVERGED
    ours = numbers(solution.controller)
    best = oracles.constrained_controller(problem, reference, limit, weight)
    np.testing.assert_allclose(oracles.trajectory_kl(problem, ours, reference), limit, rtol=1e-6)
    np.testing.assert_allclose(oracles.trajectory_kl(problem, best, reference), limit, rtol=1e-6)
    np.testing.assert_allclose(
        oracles.soft_cost(problem, ours, weight), oracles.soft_cost(problem, best, weight), atol=1e-6
    )
    for a, b in zip(ours, best, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("floor", [0.7, 0.9])
def test_solution_above_a_floor_is_the_constrained_optimum(floor):
    """A floor of the exploration belongs to the problem: with one action, the solution is still its optimum."""
    problem = oracles.random_problem(0, T=3, nx=2, nu=1)
    K, k, chol = oracles.random_controller(0, T=3, nx=2, nu=1)
    reference, weight, limit = (K, k, np.abs(chol) / np.abs(chol).max()), np.zeros(3), 1.0
    floor = floor * reference[2].min()
    with jax.enable_x64(True):
        options = dataclasses.replace(EXACT, std_floor=floor)
        solution = solve(parts_of(problem, reference), limit, weight, options=options)
    assert solution.status == Status.CONVERGED
    ours = numbers(solution.controller)
    assert (ours[2] == floor).any()  # it matters here
    best = oracles.constrained_controller(problem, reference, limit, weight, floor)
    np.testing.assert_allclose(oracles.trajectory_kl(problem, ours, reference), limit, rtol=1e-6)
    np.testing.assert_allclose(
        oracles.soft_cost(problem, ours, weight), oracles.soft_cost(problem, best, weight), atol=1e-6
    )
    for a, b in zip(ours, best, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_no_action_is_more_certain_than_the_floor():
    """Given those before it: the Cholesky factor's diagonal; the controller is otherwise the same."""
    chol = jnp.asarray([[[[0.5, 0.0], [0.3, 0.001]], [[0.01, 0.0], [0.0, 0.2]]]])
    controllers = LinearGaussian(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2)), chol)
    floored = with_std_floor(controllers, 0.02)
    np.testing.assert_allclose(floored.chol[0], [[[0.5, 0.0], [0.3, 0.02]], [[0.02, 0.0], [0.0, 0.2]]], rtol=1e-6)
    np.testing.assert_array_equal(floored.k, controllers.k)


def test_eta_is_the_price_of_one_nat():
    """Envelope theorem: raising the limit by one nat lowers the optimum by eta task units."""
    problem = oracles.random_problem(2, T=3, nx=2, nu=1)
    reference = oracles.random_controller(2, T=3, nx=2, nu=1)
    weight = np.array([0.1, 0.5, 0.2])
    with jax.enable_x64(True):
        parts = parts_of(problem, reference)
        below, here, above = (solve(parts, limit, weight, options=EXACT) for limit in (0.999, 1.0, 1.001))
    values = [oracles.soft_cost(problem, numbers(s.controller), weight) for s in (below, above)]
    np.testing.assert_allclose(here.eta, (values[0] - values[1]) / 0.002, rtol=1e-4)


def test_kl_is_at_the_limit(batch, cold):
    """To the tolerance of 1 %, and to rounding as an independent double precision solve sees it."""
    for solution in cold.values():
        np.testing.assert_array_equal(solution.status, Status.CONVERGED)
        np.testing.assert_allclose(solution.kl, batch[2], rtol=0.0101)
        for i in range(0, N, 5):
            np.testing.assert_allclose(exact_kl(batch, solution, i), solution.kl[i], rtol=1e-3)


def test_states_are_the_marginals_of_the_returned_controller(batch, cold):
    for i in range(3):
        mean, cov = oracles.trajectory_gaussian(batch[0][i], numbers(cold[1.0].controller, i))
        for t in range(7):
            x = slice(5 * t, 5 * t + 3)
            np.testing.assert_allclose(cold[1.0].states.mean[i, t], mean[x], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(cold[1.0].states.cov[i, t], cov[x, x], rtol=1e-4, atol=1e-4)


def test_any_start_finds_the_same_eta(cold):
    for solution in cold.values():
        np.testing.assert_allclose(np.log(solution.eta), np.log(cold[1.0].eta), atol=0.06)


def test_a_good_start_needs_few_sweeps(batch, cold):
    for factor in (0.5, 2.0):
        warm = run(batch, factor * cold[1.0].eta)
        np.testing.assert_array_equal(warm.status, Status.CONVERGED)
        assert warm.sweeps.max() <= 6
    assert max(solution.sweeps.max() for solution in cold.values()) <= 15


@pytest.mark.parametrize("eta", [*STARTS, 0.0, np.inf])
def test_inactive_limit_gives_the_unconstrained_controller(batch, eta):
    solution = run(batch, eta, entropy_weight=0.3, limits=1e6)
    np.testing.assert_array_equal(solution.status, Status.INACTIVE)
    free = jax.vmap(functools.partial(lqr.backward_pass, temperature=0.3))(*batch[3][:2])
    for a, b in zip(jax.tree.leaves(solution.controller), jax.tree.leaves(free.controller), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert solution.sweeps.max() <= 15


@pytest.mark.parametrize("eta", STARTS)
@pytest.mark.parametrize(("ratio", "status"), [(0.9, Status.CONVERGED), (1.05, Status.INACTIVE)])
def test_limit_that_barely_matters(batch, ratio, status, eta):
    """Near eta = 0 the KL no longer depends on eta, and a secant there is nearly level."""
    free = run(batch, 1.0, entropy_weight=0.3, limits=1e6)
    solution = run(batch, eta, entropy_weight=0.3, limits=ratio * free.kl)
    np.testing.assert_array_equal(solution.status, status)
    np.testing.assert_allclose(solution.kl, free.kl * min(ratio, 1.0), rtol=0.0101)
    assert solution.sweeps.max() <= 18


@pytest.mark.parametrize("eta", STARTS)
def test_indefinite_cost_is_recovered_by_raising_eta(saddles, eta):
    """Next to the smallest definite eta the KL goes to infinity, so that it is no power of eta there."""
    plain = jax.vmap(lqr.backward_pass)(*saddles[3][:2])
    np.testing.assert_array_equal(plain.status, lqr.Status.INDEFINITE)
    solution = run(saddles, eta)
    np.testing.assert_array_equal(solution.status, Status.CONVERGED)
    for i in range(0, N, 5):
        np.testing.assert_allclose(exact_kl(saddles, solution, i), 3.0, rtol=0.012)
    assert solution.sweeps.max() <= 18


@pytest.mark.parametrize("eta", STARTS)
def test_tiny_limit_is_met_in_float32(batch, eta):
    solution = run(batch, eta, limits=1e-5)
    np.testing.assert_array_equal(solution.status, Status.CONVERGED)
    for i in range(0, N, 5):
        np.testing.assert_allclose(exact_kl(batch, solution, i), 1e-5, rtol=0.015)
    assert solution.sweeps.max() <= 18


@pytest.mark.parametrize("eta", STARTS)
def test_huge_limit_without_entropy_gives_the_deterministic_optimum(batch, eta):
    solution = run(batch, eta, limits=1e6)
    np.testing.assert_array_equal(solution.status, Status.INACTIVE)
    for i in range(0, N, 10):
        K, k, chol = numbers(solution.controller, i)
        us, _ = oracles.optimal_actions(batch[0][i], x0 := batch[0][i].initial[0])
        np.testing.assert_allclose(oracles.follow(batch[0][i], K, k, x0)[1], us, rtol=1e-3, atol=1e-3)
        assert np.abs(chol).max() < 1e-3
        assert (np.einsum("tii->ti", chol) > 0.0).all()


def test_known_initial_state_and_no_noise():
    """Then a trajectory is its actions, and its KL is that of the joint Gaussians of all actions."""
    problem, reference = oracles.random_problem(3), oracles.random_controller(3)
    A, B, c, noise = problem.dynamics
    problem = problem._replace(dynamics=(A, B, c, 0.0 * noise), initial=(problem.initial[0], np.zeros((3, 3))))
    solution = solve(parts_of(problem, reference), 0.2)
    assert solution.status == Status.CONVERGED
    actions = np.arange(33) % 5 >= 3
    (mean_p, cov_p), (mean_q, cov_q) = (
        oracles.trajectory_gaussian(problem, parts) for parts in (numbers(solution.controller), reference)
    )
    both = np.ix_(actions, actions)
    kl = oracles.gaussian_kl(mean_p[actions], cov_p[both], mean_q[actions], cov_q[both])
    np.testing.assert_allclose(kl, 0.2, rtol=0.0105)


def poisoned(parts, name):
    """The problem with one number replaced."""
    dynamics, cost, initial, reference = parts
    match name:
        case "H":
            cost = dataclasses.replace(cost, H=cost.H.at[2, 1, 1].set(jnp.nan))
        case "g":
            cost = dataclasses.replace(cost, g=cost.g.at[5, 4].set(jnp.nan))
        case "infinite H":
            cost = dataclasses.replace(cost, H=cost.H.at[0, 3, 3].set(jnp.inf))
        case "A":
            dynamics = dataclasses.replace(dynamics, A=dynamics.A.at[3, 0, 0].set(jnp.nan))
        case "covariance":
            initial = dataclasses.replace(initial, cov=initial.cov.at[0, 0].set(jnp.nan))
        case "saddle":  # too deep for any allowed eta
            cost = dataclasses.replace(cost, H=cost.H - 1e20 * jnp.eye(5))
    return dynamics, cost, initial, reference


@pytest.mark.parametrize("name", ["H", "g", "infinite H", "A", "covariance", "saddle"])
def test_unusable_problem_returns_the_reference(name):
    parts = parts_of(oracles.random_problem(4), oracles.random_controller(4))
    solution = solve(poisoned(parts, name), 1.0)
    assert solution.status == Status.INDEFINITE
    assert_same(solution.controller, parts[3])
    assert solution.kl == 0.0
    assert solution.eta == 1.0


@pytest.mark.parametrize("limit", [1e-14, 0.0, np.nan])
def test_unreachable_limit_returns_the_reference(limit):
    problem, reference = oracles.random_problem(5), oracles.random_controller(5)
    parts = parts_of(problem, reference)
    solution = solve(parts, limit, eta=1e4, options=SHORT)
    assert solution.status == Status.UNREACHABLE
    assert_same(solution.controller, parts[3])
    assert solution.kl == 0.0
    np.testing.assert_allclose(
        solution.states.mean[-1], oracles.trajectory_gaussian(problem, reference)[0][-3:], rtol=1e-4
    )


@pytest.mark.parametrize("eta", STARTS)
def test_out_of_sweeps_still_stays_inside_the_limit(eta):
    problem, reference = oracles.random_problem(6), oracles.random_controller(6)
    parts = parts_of(problem, reference)
    solution = solve(parts, 0.7, eta=eta, options=SHORT)
    assert solution.status == Status.SWEEPS
    assert solution.sweeps == SHORT.max_sweeps
    if solution.kl == 0.0:
        assert_same(solution.controller, parts[3])
    kl = oracles.trajectory_kl(problem, numbers(solution.controller), reference)
    assert kl <= 0.7 * (1.0 + 1e-5)
    np.testing.assert_allclose(solution.kl, kl, rtol=1e-3, atol=1e-7)


def test_batch_whose_members_end_differently_equals_its_members_alone():
    parts = parts_of(oracles.random_problem(7), oracles.random_controller(7))
    members = [parts, parts, poisoned(parts, "H"), parts, poisoned(parts, "saddle"), parts]
    limits = jnp.array([0.5, 1e6, 0.5, 0.0, 0.5, 1e-4])
    weights = jnp.array([0.0, 0.3, 0.0, 0.0, 0.0, 0.0])
    etas = jnp.array([1.0, 1.0, 1.0, 1.0, 1e12, 1e-8])
    fill = np.arange(N) % len(members)  # up to the batch that is compiled already
    together = solve_all(stack([members[i] for i in fill]), limits[fill], weights[fill], etas[fill])
    ends = [Status.CONVERGED, Status.INACTIVE, Status.INDEFINITE, Status.UNREACHABLE, Status.INDEFINITE]
    assert together.status[: len(members)].tolist() == [*ends, Status.CONVERGED]
    for i, member in enumerate(members):
        alone = solve(member, limits[i], weights[i], etas[i])
        assert together.status[i] == alone.status
        assert together.sweeps[i] == alone.sweeps
        mine = jax.tree.map(lambda a, i=i: a[i], together.controller)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(alone.controller), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.0}, "tolerance .* not 0.0"),
        ({"tolerance": 1.0}, "tolerance .* not 1.0"),
        ({"tolerance": float("nan")}, "tolerance .* not nan"),
        ({"max_sweeps": 0}, "max_sweeps .* not 0"),
        ({"std_floor": -0.1}, "std_floor .* not -0.1"),
        ({"std_floor": float("nan")}, "std_floor .* not nan"),
        ({"eta_min": 0.0}, "eta_min .* not 0.0"),
        ({"eta_min": 1.0, "eta_max": 1.0}, "eta_min .* below eta_max, not 1.0 and 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Options(**settings)
