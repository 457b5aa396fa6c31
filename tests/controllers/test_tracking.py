"""The tracker against dense solves, a nonlinear system, and expected costs reached in three ways."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from controllers import lqr, marginals, tracking
from controllers.ilqr.problem import Dynamics
from controllers.types import Gaussian

T, NX, NU = 6, 3, 2
A, B, DRIFT, COV = oracles.random_problem(0).dynamics
RNG = np.random.default_rng(0)
XS, US = RNG.normal(size=(T + 1, NX)), RNG.normal(size=(T, NU))  # no trajectory of the dynamics
Q = np.stack([oracles.random_covariance(RNG, NX) for _ in range(T)])
R = np.stack([oracles.random_covariance(RNG, NU) for _ in range(T)])
Q_FINAL = oracles.random_covariance(RNG, NX, 5.0)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def affine(x, u, t):
    return jnp.asarray(A)[t] @ x + jnp.asarray(B)[t] @ u + jnp.asarray(DRIFT)[t]


def stated(Q, R, Q_final):
    """The tracking problem in x and u themselves, without its constant."""
    H = np.zeros((T, NX + NU, NX + NU))
    H[:, :NX, :NX], H[:, NX:, NX:] = Q, R
    g = -np.einsum("tij,tj->ti", H, np.concatenate([XS[:-1], US], axis=1))
    cost = (H, g, np.zeros(T), Q_final, -Q_final @ XS[-1], 0.0)
    return oracles.Problem((A, B, DRIFT, COV), cost, (XS[0], np.zeros((NX, NX))))


@pytest.mark.parametrize(
    ("weights", "stands_for"),
    [
        ((Q, R, Q_FINAL), (Q, R, Q_FINAL)),
        ((Q[0], R[0]), (Q[0], R[0], Q[0])),
        ((Q, R), (Q, R, Q[-1])),
    ],
    ids=["each step", "one for all", "last of Q"],
)
def test_tracker_takes_the_optimal_actions_from_any_state(weights, stands_for):
    problem = stated(*stands_for)
    controller = tracking.track(affine, XS, US, *weights).controller
    for x0 in 3.0 * np.random.default_rng(1).normal(size=(3, NX)):
        us, _ = oracles.optimal_actions(problem, x0)
        taken = oracles.follow(problem, np.asarray(controller.K), np.asarray(controller.k), x0)[1]
        np.testing.assert_allclose(taken, us, rtol=1e-9, atol=1e-9)


def test_cost_to_go_is_that_of_deviations():
    problem = stated(Q, R, Q_FINAL)
    tracker = tracking.track(affine, XS, US, Q, R, Q_FINAL)
    K, k = np.asarray(tracker.controller.K), np.asarray(tracker.controller.k)
    V, v = np.asarray(tracker.V), np.asarray(tracker.v)
    for t in range(T + 1):
        a, b = np.random.default_rng(t).normal(size=(2, NX))
        gap = [oracles.path_cost(problem, *oracles.follow(problem, K, k, XS[t] + d, first=t), first=t) for d in (a, b)]
        predicted = 0.5 * (a @ V[t] @ a - b @ V[t] @ b) + v[t] @ (a - b)
        np.testing.assert_allclose(predicted, gap[0] - gap[1], rtol=1e-9)


def pendulum(x, u, t):
    """Angle from upright, where it does not stay, and its rate; 0.05 s a step."""
    rate = x[1] + 0.05 * (9.81 * jnp.sin(x[0]) + u[0] - 0.1 * x[1])
    return jnp.stack([x[0] + 0.05 * rate, rate])


@pytest.fixture
def swing():
    """A trajectory of the pendulum, 4 s long: a slow swing through the upright position."""
    xs, us = [np.array([-0.4, 0.0])], []
    for t in range(80):
        aim = -0.4 * np.cos(np.pi * t / 80)
        us.append(np.array([-9.81 * np.sin(xs[-1][0]) + 30.0 * (aim - xs[-1][0]) - 8.0 * xs[-1][1]]))
        xs.append(np.asarray(pendulum(xs[-1], us[-1], t), np.float64))
    return np.stack(xs), np.stack(us)


def test_tracking_brings_a_disturbed_pendulum_back_where_the_plain_actions_lose_it(swing):
    xs, us = swing
    controller = tracking.track(pendulum, xs, us, np.diag([10.0, 1.0]), 0.1 * np.eye(1)).controller
    # the feedback leaves a state on the reference where it is
    np.testing.assert_allclose(controller.means(jnp.asarray(xs[:-1])), us, atol=1e-9)
    x = plain = xs[0] + np.array([0.3, -0.5])
    for t in range(80):
        x, plain = pendulum(x, controller.act(t, x), t), pendulum(plain, us[t], t)
    assert np.abs(x - xs[-1]).max() < 1e-3
    assert np.abs(plain - xs[-1]).max() > 1.0


def test_jacobian_of_your_own_is_used(swing):
    xs, us = swing
    weights = np.diag([10.0, 1.0]), 0.1 * np.eye(1)

    def jacobian(x, u, t):
        lever = 0.05 * 9.81 * jnp.cos(x[0])
        A = jnp.stack([jnp.array([1.0 + 0.05 * lever, 0.05 * 0.995]), jnp.array([lever, 0.995])])
        return A, jnp.array([[0.05 * 0.05], [0.05]])

    ours = tracking.track(
        Dynamics(lambda x, u, t: jax.lax.stop_gradient(pendulum(x, u, t)), jacobian), xs, us, *weights
    )
    theirs = tracking.track(pendulum, xs, us, *weights)
    np.testing.assert_allclose(ours.controller.K, theirs.controller.K, rtol=1e-9)


def test_noise_cost_is_what_noise_adds_to_the_expected_cost():
    temperature, spread = 0.3, oracles.random_covariance(RNG, NX, 0.2)
    tracker = tracking.track(affine, XS, US, Q, R, Q_FINAL, temperature)
    noisy = dataclasses.replace(tracker.dynamics, cov=jnp.asarray(COV))
    deviations = tracker.controller.recentred(jnp.asarray(XS[:-1]), jnp.asarray(US))
    still = dataclasses.replace(deviations, chol=0.0 * deviations.chol)
    start = jnp.array([1.0, -1.0, 0.5])

    def expected(dynamics, controller, cov):
        return marginals.expected_cost(
            tracker.cost, marginals.propagate(dynamics, controller, Gaussian(start, cov)), controller
        )

    with_all = expected(noisy, deviations, jnp.asarray(spread))
    without = expected(tracker.dynamics, still, jnp.zeros((NX, NX)))
    added = tracking.noise_cost(tracker.V, jnp.asarray(COV))
    own = 0.5 * temperature * NU * T
    np.testing.assert_allclose(with_all - without, added.sum() + 0.5 * np.sum(tracker.V[0] * spread) + own, rtol=1e-10)

    # one step's noise alone, and all of it by sampling
    for t in (0, T - 1):
        single = dataclasses.replace(tracker.dynamics, cov=jnp.zeros((T, NX, NX)).at[t].set(COV[t]))
        np.testing.assert_allclose(expected(single, still, jnp.zeros((NX, NX))) - without, added[t], rtol=1e-10)
    costs = sampled_costs(tracker, deviations, np.asarray(start), spread)
    assert abs(costs.mean() - with_all) < 4.0 * costs.std() / np.sqrt(len(costs))
    assert costs.std() / np.sqrt(len(costs)) < 0.05 * (with_all - without)


def sampled_costs(tracker, controller, start, spread, samples=20_000):
    """Costs of noisy paths of the deviations."""
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(start, spread, size=samples)
    costs = np.zeros(samples)
    for t in range(T):
        u = x @ controller.K[t].T + controller.k[t] + rng.normal(size=(samples, NU)) @ controller.chol[t].T
        costs += 0.5 * np.einsum("ni,ij,nj->n", x, Q[t], x) + 0.5 * np.einsum("ni,ij,nj->n", u, R[t], u)
        noise = rng.multivariate_normal(np.zeros(NX), COV[t], size=samples)
        x = x @ A[t].T + u @ B[t].T + np.asarray(tracker.dynamics.c[t]) + noise
    return costs + 0.5 * np.einsum("ni,ij,nj->n", x, Q_FINAL, x)


def test_indefinite_weights_are_reported():
    assert tracking.track(affine, XS, US, Q, R).status == lqr.Status.SOLVED
    tracker = tracking.track(affine, XS, US, Q, R - 100.0 * np.eye(NU))
    assert tracker.status == lqr.Status.INDEFINITE
    assert np.isnan(np.asarray(tracker.controller.K)).all()


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("us", US[0], r"us must have shape \(T, nu\) .* not \(2,\)"),
        ("xs", XS[:-1], r"xs must have shape \(T\+1, nx\) = \(7, nx\), not \(6, 3\)"),
        ("Q", np.eye(2), r"Q must have shape \(3, 3\) or \(6, 3, 3\), not \(2, 2\)"),
        ("R", R[:-1], r"R must have shape \(2, 2\) or \(6, 2, 2\), not \(5, 2, 2\)"),
        ("Q_final", Q, r"Q_final must have shape \(3, 3\), not \(6, 3, 3\)"),
        ("dynamics", lambda x, u, t: x[:2], r"dynamics must return an array of shape \(3,\), not .*2"),
        ("dynamics", lambda x, u, t: (x, u), r"dynamics must return an array of shape \(3,\), not \("),
    ],
)
def test_wrong_shapes_are_refused_by_name(argument, value, message):
    fine = {"dynamics": affine, "xs": XS, "us": US, "Q": Q, "R": R, "Q_final": Q_FINAL}
    with pytest.raises(ValueError, match=message):
        tracking.track(**{**fine, argument: value})
