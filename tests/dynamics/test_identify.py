"""Identification of a two-joint arm under gravity, against MuJoCo stepped by hand and numpy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics import identify as module
from dynamics.adjustable import adjustable
from dynamics.engines import make_simulator
from dynamics.identified import Status
from dynamics.identify import Identification, identify, segments
from dynamics.parameters import select

XML = """
<mujoco>
  <option timestep="0.01" gravity="0 0 -9.81"><flag contact="disable" constraint="disable"/></option>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" damping="0.4" armature="{armature}"/>
      <geom type="capsule" size="0.04" fromto="0 0 0 0.4 0 0" mass="1.5"/>
      <body name="lower" pos="0.4 0 0">
        <joint name="elbow" axis="0 1 0" damping="0.1"/>
        <geom type="capsule" size="0.03" fromto="0 0 0 0.3 0 0" mass="0.7"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder" gear="8" ctrllimited="true" ctrlrange="-1 1"/>
    <motor name="elbow" joint="elbow" gear="3" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
NAMES = ("body_mass:*", "dof_damping:*", "actuator_gain:*")
THETA = np.log([1.3, 0.7, 0.7, 1.3, 1.3, 0.7])  # of what is sampled
EPISODES, T, SUBSTEPS, WINDOW = 10, 20, 4, 2


def arm(theta=(0.0,) * 6, armature=0.05):
    """The model with factors: upper, lower; shoulder, elbow; shoulder, elbow."""
    model, factors = mujoco.MjModel.from_xml_string(XML.format(armature=armature)), np.exp(theta)
    model.body_mass[1:] *= factors[:2]
    model.body_inertia[1:] *= factors[:2, None]
    model.dof_damping[:] *= factors[2:4]
    model.actuator_gainprm[:, 0] *= factors[4:]
    return model


def stepped(model, x, us):
    """States after each action, by `mj_step`."""
    data, states = mujoco.MjData(model), []
    data.qpos[:], data.qvel[:] = x[:2], x[2:]
    for u in us:
        data.ctrl[:] = u
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        states.append(np.concatenate([data.qpos, data.qvel]))
    return np.array(states)


def sampled(theta, armature=0.05, seed=0):
    """Episodes of random actions."""
    rng = np.random.default_rng(seed)
    starts, us = rng.uniform(-1.0, 1.0, (EPISODES, 4)), rng.uniform(-1.0, 1.0, (EPISODES, T, 2))
    model = arm(theta, armature)
    return np.stack([np.vstack([x, stepped(model, x, u)]) for x, u in zip(starts, us, strict=True)]), us


def problem(engine="mujoco", bound=3.0):
    simulator = make_simulator(arm(), SUBSTEPS, engine)
    return Identification(adjustable(simulator, select(simulator.model, NAMES)), bound)


@functools.cache
def compiled(bound=3.0):
    """`solve` and `jacobian`, for double precision."""
    return jax.jit(problem(bound=bound).solve), jax.jit(problem(bound=bound).jacobian)


def solved(xs, us, bound=3.0):
    """The solution, and the segments."""
    with jax.enable_x64(True):
        samples = segments(jnp.asarray(xs), jnp.asarray(us), jnp.zeros(0))
        return compiled(bound)[0](samples, jnp.zeros(6)), samples


@pytest.fixture(scope="module")
def exact():
    return solved(*sampled(THETA))


@pytest.mark.parametrize("engine", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
def test_the_jacobian_is_that_of_finite_differences(engine):
    """Of MuJoCo stepped by hand, in double precision, over windows of two actions."""
    xs, us = sampled(THETA)
    xs, us = xs[:2, : 3 * WINDOW + 1], us[:2, : 3 * WINDOW]
    theta, h = 0.5 * THETA, 1e-5
    starts = xs[:, :-1:WINDOW].reshape(-1, 4)
    pieces = us.reshape(-1, WINDOW, 2)

    def all_stepped(theta):
        return np.stack([stepped(arm(theta), x, u) for x, u in zip(starts, pieces, strict=True)])

    slopes = np.stack([(all_stepped(theta + e) - all_stepped(theta - e)) / (2 * h) for e in h * np.eye(6)], -1)
    changes = xs[:, WINDOW::WINDOW] - xs[:, :-1:WINDOW]
    scale = np.sqrt((changes**2).mean((0, 1)))
    with jax.enable_x64(True):
        samples, who = segments(jnp.asarray(xs), jnp.asarray(us), jnp.zeros(0), WINDOW), problem(engine)
        both = jax.jit(lambda *given: (who.residuals(*given), who.jacobian(*given)))
        residuals, jacobian = map(np.asarray, both(jnp.asarray(theta), samples))
    following = xs[:, 1:].reshape(-1, WINDOW, 4)
    np.testing.assert_allclose(residuals, (all_stepped(theta) - following) / scale, atol=1e-9)
    np.testing.assert_allclose(jacobian, slopes / scale[:, None], atol=1e-7)
    assert np.abs(jacobian).max((0, 1, 2)).min() > 1e-3


@pytest.mark.parametrize("window", [1, WINDOW])
def test_parameters_that_were_off_by_30_percent_are_found_from_10_episodes(window):
    """In single precision, as everything runs by default."""
    xs, us = sampled(THETA)
    found = identify(make_simulator(arm(), SUBSTEPS, "mujoco"), xs, us, NAMES, window)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.factors, np.exp(THETA), rtol=1e-3)
    assert found.identified.all()
    assert found.after < 1e-4 * found.before
    np.testing.assert_allclose(found.model(arm()).body_mass, arm(THETA).body_mass, rtol=1e-3)


def test_in_double_precision_they_are_found_exactly(exact):
    """But for the pull to the nominal values."""
    np.testing.assert_allclose(exact[0].theta, THETA, atol=1e-6)


def test_standard_errors_are_those_of_linear_least_squares(exact):
    """Noise on what follows alone, so that predictions begin from the truth."""
    xs, samples = sampled(THETA)[0], exact[1]
    spread = 1e-2 * np.sqrt((np.diff(xs, axis=1) ** 2).mean((0, 1)))
    noise = spread * np.random.default_rng(1).normal(size=samples.following.shape)
    with jax.enable_x64(True):
        noisy = module.Segments(samples.states, samples.actions, samples.following + noise, samples.weights)
        solve, jacobian = compiled()
        found = solve(noisy, jnp.zeros(6))
        J = np.asarray(jacobian(found.theta, noisy)).reshape(-1, 6)
        errors = np.asarray(found.standard_errors)
    sigma = np.asarray(found.after) * np.sqrt(len(J) / (len(J) - 6))
    expected = sigma * np.sqrt(np.diag(np.linalg.inv(J.T @ J)))
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    np.testing.assert_allclose(sigma, 1e-2, rtol=0.1)
    off = (np.asarray(found.theta) - THETA) / expected
    assert 0.1 < np.sqrt((off**2).mean()) < 2.0


def test_what_changes_nothing_together_is_not_identified():
    """All masses, dampings and gains can be scaled alike where joints have no other inertia; ratios are still found."""
    xs, us = sampled(THETA, armature=0.0)
    found = identify(make_simulator(arm(armature=0.0), SUBSTEPS, "mujoco"), xs, us, NAMES)
    np.testing.assert_array_equal(found.known, [True] * 5 + [False])
    np.testing.assert_allclose(np.abs(found.directions[-1]), 1 / np.sqrt(6), atol=1e-3)
    assert not found.identified.any()
    assert np.isinf(found.standard_errors).all()
    np.testing.assert_allclose(found.theta - found.theta.mean(), THETA - THETA.mean(), atol=1e-3)
    assert np.abs(found.theta.mean()) < 0.1  # it stays near the nominal values
    assert "not identified, so leave one of them out: +0.41" in str(found)
    some = identify(make_simulator(arm(armature=0.0), SUBSTEPS, "mujoco"), xs, us, NAMES[1:])
    assert some.identified.all()


def test_factors_stay_within_their_bounds():
    theta = np.log([4.0, 0.8, 1.0, 1.0, 1.0, 1.0])
    with jax.enable_x64(True):
        found, _ = solved(*sampled(theta), bound=2.0)
        assert 1.98 < found.factors[0] < 2.0
        assert (found.factors > 0.5).all()
        assert bool(found.at_bound[0])
        assert "at the bound of 2" in str(found).splitlines()[2]
        assert found.after > 0.01


def test_samples_that_are_not_finite_do_not_count(exact):
    found, samples = exact
    broken = np.arange(len(samples.states)) % 50 == 3
    with jax.enable_x64(True):
        lost = module.Segments(
            samples.states,
            jnp.where(broken[:, None, None], jnp.nan, samples.actions),
            jnp.where(broken[:, None, None], jnp.inf, samples.following),
            samples.weights,
        )
        again = compiled()[0](lost, jnp.zeros(6))
        none = compiled()[0](jax.tree.map(lambda a: a * jnp.nan, samples), jnp.asarray(0.1 * THETA))
        assert again.before < 1.1 * found.before
    np.testing.assert_allclose(again.theta, THETA, atol=1e-6)
    assert none.status == Status.NO_SAMPLES
    assert np.isfinite(none.theta).all()
    assert not none.known.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": np.zeros((3, 6, 5))}, r"xs must have shape \(..., T\+1, 4\) and us \(..., T, 2\), not \(3, 6, 5\)"),
        ({"us": np.zeros((3, 6, 2))}, "xs must have shape"),
        ({"window": 6}, "window must be from 1 to the 5 actions of an episode, not 6"),
        ({"bound": 1.0}, "bound .* must be above 1, not 1.0"),
        ({"names": ["body_mass:uper"]}, "did you mean 'body_mass:upper'"),
    ],
)
def test_what_can_not_be_fitted_is_refused(change, message):
    given = {"xs": np.zeros((3, 6, 4)), "us": np.zeros((3, 5, 2)), "names": NAMES, **change}
    with pytest.raises(ValueError, match=message):
        identify(make_simulator(arm(), SUBSTEPS, "mujoco"), **given)


def test_the_slopes_of_an_adjusted_simulator_are_those_of_the_model(exact):
    """At several thetas at once, as `vmap` may hand them over, one of them not finite."""
    samples = exact[1]
    thetas = np.stack([np.zeros(6), THETA, np.full(6, np.nan), THETA])
    with jax.enable_x64(True):
        slope = jax.jit(jax.vmap(problem().adjustable.slope))
        slopes = np.asarray(slope(jnp.asarray(thetas), samples.states[:4], samples.actions[:4, 0]))
    assert np.isnan(slopes[2]).all()
    for i in (0, 1, 3):
        model, h = arm(thetas[i]), 1e-5
        z = np.concatenate([samples.states[i, 1:], samples.actions[i, 0]])
        ends = [[stepped(model, (z + s * e)[:4], [(z + s * e)[4:]])[0] for s in (1, -1)] for e in h * np.eye(6)]
        expected = np.stack([(ahead - behind) / (2 * h) for ahead, behind in ends], axis=1)
        np.testing.assert_allclose(slopes[i], expected, atol=1e-7)
