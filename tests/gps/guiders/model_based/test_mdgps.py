"""The MDGPS guider: its two steps against solves of another kind, whom its limit is measured from, its safeguards."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from gps.guiders.model_based import trajectories
from gps.guiders.model_based.mdgps import Mdgps, MdgpsSettings, Problem
from gps.guiders.model_based.samples import LocalModel
from gps.runs.evaluate import evaluate
from gps.tasks.doors.tiger import TigerDoor, TigerDoorSettings
from gps.tasks.episodes import LearnerSettings
from gps.tasks.mujoco.reacher import PARTIAL, Reacher, ReacherSettings
from policies import regression

LEARNER = LearnerSettings(hidden=(8,), training=regression.Settings(updates=6, batch_size=16))
SMALL: dict[str, Any] = {"horizon": 6, "train_targets": 3, "test_targets": 4}


@pytest.fixture(scope="module")
def task():
    return Reacher(ReacherSettings(**SMALL), "mujoco")


def settings(**changes) -> MdgpsSettings:
    return MdgpsSettings(**{"samples": 3, "learner": LEARNER, **changes})


def iterate(guider, count, seed=0):
    """Run a guider for some iterations; the states, the metrics and the two compiled programs."""
    key = jax.random.key(seed)
    collect, step = jax.jit(guider.collect), jax.jit(guider.update)
    states, rows = [jax.jit(guider.init)(jax.random.fold_in(key, 1000))], []
    for i in range(count):
        collecting, updating = jax.random.split(jax.random.fold_in(key, i))
        state, metrics = step(states[-1], collect(states[-1], collecting), updating)
        states.append(state)
        rows.append(metrics)
    return states, rows, (collect, step)


def all_finite(tree) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def trained(task):
    guider = Mdgps(task, settings())
    return guider, *iterate(guider, 3)


@pytest.fixture(scope="module")
def phases(trained):
    """The parts of an iteration: prepare, improve."""
    return jax.jit(trained[0].prepare), jax.jit(trained[0].improve)


@pytest.fixture(scope="module")
def programs(task, trained, phases):
    """Of each step rule: the guider, collect, prepare, update. "classic" is off-policy."""
    classic = Mdgps(task, settings(step_rule="classic", sampling="controllers"))
    return {
        "global": (trained[0], trained[3][0], phases[0], trained[3][1]),
        "classic": (classic, *(jax.jit(f) for f in (classic.collect, classic.prepare, classic.update))),
    }


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, jnp.float32) for leaf in leaves]), *trees)


# the two steps


def made_up(task, seeds):
    """Linear-quadratic problems as numpy has them, their references, and both as the guider has them."""
    problems = [oracles.random_problem(seed, task.horizon, task.nx, task.nu) for seed in seeds]
    references = [oracles.random_controller(seed, task.horizon, task.nx, task.nu) for seed in seeds]
    models, absolute = [], []
    for seed, problem, (K, k, chol) in zip(seeds, problems, references, strict=True):
        rng = np.random.default_rng(seed)
        xs, us = rng.normal(size=(task.horizon + 1, task.nx)), rng.normal(size=(task.horizon, task.nu))
        parts: Any = Gaussian(*problem.initial), LinearDynamics(*problem.dynamics), QuadraticCost(*problem.cost)
        centre: Any = xs, us
        models.append(LocalModel(*centre, *parts))
        controller: Any = K, k + us - np.einsum("tux,tx->tu", K, xs[:-1]), chol
        absolute.append(LinearGaussian(*controller))
    return problems, references, stack(models), stack(absolute)


def in_deviations(models, controllers, m):
    """K, k, chol of condition m in the deviations that `made_up` states its problems in."""
    xs, us, K, k, chol = (
        np.asarray(leaf[m], np.float64)
        for leaf in (models.xs, models.us, controllers.K, controllers.k, controllers.chol)
    )
    return K, k + np.einsum("tux,tx->tu", K, xs[:-1]) - us, chol


def test_c_step_is_the_optimum_within_the_limit_around_the_linearized_learner():
    task = Reacher(ReacherSettings(horizon=3, train_targets=2, test_targets=1), "mujoco")
    guider = Mdgps(task, settings(kl_step=0.4, kl_tolerance=1e-3, std_floor=1e-6))
    problems, references, models, absolute = made_up(task, (0, 1))
    state = guider.init(jax.random.key(0))
    state = dataclasses.replace(state, step=jnp.asarray(0.5))
    # how far the old controllers are plays no part: they are far from the reference, and from what comes out
    problem = Problem(state.samples, models, absolute, jnp.ones(2, bool))
    state, metrics = jax.jit(guider.improve)(state, problem)

    np.testing.assert_allclose(metrics["kl_limit"], 0.2, rtol=1e-6)
    for m in range(2):
        ours = in_deviations(models, state.controllers, m)
        assert oracles.trajectory_kl(problems[m], ours, references[m]) == pytest.approx(0.6, rel=5e-3)
    best = oracles.constrained_controller(problems[0], references[0], 0.6, np.zeros(3))
    ours = in_deviations(models, state.controllers, 0)
    before, after, optimum = (oracles.expected_path_cost(problems[0], c) for c in (references[0], ours, best))
    assert before - optimum > 1.0
    assert after == pytest.approx(optimum, abs=2e-3 * (before - optimum))
    for a, b in zip(ours, best, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2)


def test_objective_is_the_expected_cost(task):
    problems, references, models, absolute = made_up(task, (0, 1))
    expected = [oracles.expected_path_cost(p, c) for p, c in zip(problems, references, strict=True)]
    np.testing.assert_allclose(trajectories.objective(models, absolute), expected, rtol=1e-4)


def test_s_step_imitates_the_controllers_and_takes_their_mean_precision(task):
    """Constant controllers, each with its own precision: the learner's mean is their action."""
    training = regression.Settings(updates=600, batch_size=64, learning_rate=0.02)
    guider = Mdgps(task, settings(learner=LearnerSettings(hidden=(8,), training=training)))
    state = guider.init(jax.random.key(0))
    samples = jax.jit(guider.collect)(state, jax.random.key(1))
    stds = jnp.asarray([0.1, 0.2, 0.4])
    wanted = jnp.asarray([0.3, -0.2])
    controllers = dataclasses.replace(
        state.controllers,
        k=jnp.broadcast_to(wanted, state.controllers.k.shape),
        chol=stds[:, None, None, None] * jnp.broadcast_to(jnp.eye(2), state.controllers.chol.shape),
    )
    learner = trajectories.acquainted(state.learner, samples)
    state = dataclasses.replace(state, learner=learner, controllers=controllers, samples=samples)
    state, metrics = jax.jit(guider.teach)(state, jax.random.key(2))
    policy = guider.policy(state)
    np.testing.assert_allclose(policy.mean(samples.observations), jnp.broadcast_to(wanted, (3, 3, 6, 2)), atol=0.02)
    np.testing.assert_allclose(policy.std, np.mean(np.asarray(stds) ** -2.0) ** -0.5, rtol=1e-5)
    assert float(metrics["learner_error"]) < 0.02


# whom the limit is measured from


def test_the_first_limit_is_measured_from_the_explorers_and_later_ones_from_the_learner(trained, phases, task):
    guider, states, _, (collect, _) = trained
    prepare, _ = phases
    _, problem, _ = prepare(states[0], collect(states[0], jax.random.key(1)))
    np.testing.assert_array_equal(problem.reference.k, states[0].controllers.k)
    np.testing.assert_array_equal(problem.reference.chol[..., 0, 0], np.float32(guider.settings.start_std))

    samples = collect(states[2], jax.random.key(3))
    new, problem, _ = prepare(states[2], samples)
    policy, context = guider.policy(new), task.train_contexts[1]
    x = samples.xs[1, :, 2]

    def mean(x):
        return policy.mean(task.observe(x, context, jnp.zeros(0)))

    slopes = jax.jit(jax.vmap(lambda d: (jax.vmap(mean)(x + d) - jax.vmap(mean)(x - d)) / 2e-2))(
        1e-2 * jnp.eye(task.nx)
    )
    np.testing.assert_allclose(problem.reference.K[1, 2], slopes.mean(1).T, atol=2e-3)
    # linear in x, it is the mean over the samples of what the learner does
    at_mean = problem.reference.K[1, 2] @ x.mean(0) + problem.reference.k[1, 2]
    np.testing.assert_allclose(at_mean, policy.mean(samples.observations[1, :, 2]).mean(0), atol=1e-4)
    np.testing.assert_allclose(problem.reference.chol[1, 2], np.diag(policy.std), rtol=1e-6)


def test_where_frames_are_noisy_and_stacked_the_learner_is_linearized_by_regression():
    partial = Reacher(dataclasses.replace(PARTIAL, **SMALL), "mujoco")
    with pytest.raises(ValueError, match="use 'regression'"):
        Mdgps(partial, settings(linearization="differentiation"))
    states, rows, _ = iterate(Mdgps(partial, settings()), 2)
    assert all_finite(states[-1])
    assert bool((rows[-1]["kl_ratio"] <= 1.021).all())
    assert not np.allclose(states[-1].controllers.k, states[1].controllers.k)


@pytest.mark.parametrize(
    ("sampling", "learners_turns"), [("controllers", []), ("learner", [1, 2, 3, 4, 5]), ("both", [2, 5])]
)
def test_who_collects(task, sampling, learners_turns):
    turns = [i for i in range(6) if bool(trajectories.by_learner(task, sampling, 3, jnp.asarray(i)).all())]
    assert turns == learners_turns


def test_the_learner_collects_when_it_is_its_turn(task):
    """A learner that always takes the action zero shows in the samples."""
    guider = Mdgps(task, settings(sampling="learner"))
    state = guider.init(jax.random.key(0))
    still = dataclasses.replace(
        state.learner.policy, std=jnp.full(2, 1e-6), params=jax.tree.map(jnp.zeros_like, state.learner.policy.params)
    )
    state = dataclasses.replace(state, learner=dataclasses.replace(state.learner, policy=still))
    collect = jax.jit(guider.collect)
    assert float(collect(state, jax.random.key(1)).us.std()) == pytest.approx(guider.settings.start_std, rel=0.2)
    later = dataclasses.replace(state, iteration=jnp.asarray(1))
    assert float(jnp.abs(collect(later, jax.random.key(1)).us).max()) < 1e-4


# the size of the step


def test_one_step_for_all_conditions_by_the_promises_that_were_kept(trained):
    guider = Mdgps(trained[0].task, settings(kl_step_multiplier_min=0.05, kl_step_multiplier_max=4.0))
    promised = jnp.asarray([1.0, 3.0, 100.0])
    judged = jnp.asarray([True, True, False])
    for gained, factor in (([1.0, 1.0, 0.0], 1.0), ([-2.0, -2.0, 0.0], 0.25), ([1.5, 2.0, 0.0], 4.0)):
        # (1 + 3) / (2 (1 + 3 - what was gained))
        step = guider._adapt_step(jnp.ones(()), jnp.asarray(gained), promised, judged)
        np.testing.assert_allclose(step, factor, rtol=1e-5)
    nobody = guider._adapt_step(jnp.asarray(0.7), jnp.zeros(3), promised, jnp.zeros(3, bool))
    np.testing.assert_allclose(nobody, 0.7)


@pytest.mark.parametrize("rule", ["classic", "global"])
def test_promises_are_what_the_models_say_and_are_judged_by_the_next_ones(rule, programs):
    guider, collect, prepare, update = programs[rule]
    objective, linearized = jax.jit(trajectories.objective), jax.jit(guider._linearized)

    def judge(state, samples):
        return state.controllers if rule == "classic" else linearized(state.learner, samples)

    start = jax.jit(guider.init)(jax.random.key(0))
    samples = collect(start, jax.random.key(1))
    _, problem, metrics = prepare(start, samples)
    assert bool(jnp.isnan(metrics["predicted_improvement"]).all())
    state, _ = update(start, samples, jax.random.key(2))
    models = problem.models
    promised = objective(models, start.controllers) - objective(models, judge(state, samples))
    np.testing.assert_allclose(state.promised, promised, rtol=1e-3, atol=1e-4)

    samples = collect(state, jax.random.key(3))
    new, problem, metrics = prepare(state, samples)
    gained = state.objective - objective(problem.models, judge(new, samples))
    np.testing.assert_array_equal(metrics["predicted_improvement"], state.promised)
    np.testing.assert_allclose(metrics["actual_improvement"], gained, rtol=1e-3, atol=1e-4)
    total, kept = float(state.promised.sum()), float(metrics["actual_improvement"].sum())
    factor = abs(total) / (2 * max(total - kept, 1e-4 * abs(total)))
    np.testing.assert_allclose(new.step, np.clip(factor, 0.1, 1.0), rtol=1e-4)


# safeguards


@pytest.mark.parametrize("iteration", [0, 1])
def test_a_condition_that_failed_keeps_its_controller_and_the_others_improve(iteration, trained, phases):
    guider, states, _, (collect, _) = trained
    before = dataclasses.replace(states[1], iteration=jnp.asarray(iteration, jnp.int32))
    samples = collect(before, jax.random.key(7))
    state, problem, _ = phases[0](before, samples)
    broken_H = problem.models.cost.H.at[1, 2, 0, 0].set(jnp.nan)
    models = dataclasses.replace(problem.models, cost=dataclasses.replace(problem.models.cost, H=broken_H))
    trusted = jnp.asarray([True, True, False])
    problem = dataclasses.replace(problem, models=models, trusted=trusted)
    improved, metrics = phases[1](state, problem)

    assert all_finite(improved.controllers)
    assert int(metrics["failed_solves"]) == 1  # the third one was not tried
    # the controllers' own samples go on to be taught; along the learner's a controller that was kept means nothing
    for m, kept in ((0, False), (1, True), (2, True)):
        assert np.array_equal(improved.controllers.k[m], before.controllers.k[m]) == kept
        taught = before.samples if kept and iteration > 0 else samples
        np.testing.assert_array_equal(improved.samples.xs[m], taught.xs[m])
    assert float(improved.eta[1]) == float(state.eta[1])
    promised, metrics = jax.jit(guider.promise)(improved, problem)
    np.testing.assert_array_equal(promised.promised[1:], 0.0)  # nothing to be judged by
    assert bool(jnp.isfinite(metrics["kl_to_learner"][0]))


def test_local_models_that_contradict_the_samples_are_not_trusted(trained, phases):
    _, states, _, (collect, _) = trained
    samples = collect(states[1], jax.random.key(8))
    lied = dataclasses.replace(samples, costs=samples.costs.at[0].multiply(0.05))
    _, honest, _ = phases[0](states[1], samples)
    _, problem, metrics = phases[0](states[1], lied)
    assert bool(honest.trusted.all())
    np.testing.assert_array_equal(problem.trusted, [False, True, True])
    assert int(metrics["untrusted_models"]) == 1


def test_a_learner_far_from_the_controllers_samples_is_nothing_to_measure_a_limit_from(programs):
    guider, collect, prepare, _ = programs["classic"]
    state = jax.jit(guider.init)(jax.random.key(0))
    samples = collect(state, jax.random.key(1))
    for std, trusted in ((0.3, True), (100.0, False)):
        policy = dataclasses.replace(state.learner.policy, std=jnp.full(2, std))
        learner = dataclasses.replace(state.learner, policy=policy)
        later = dataclasses.replace(state, learner=learner, iteration=jnp.asarray(1, jnp.int32))
        assert bool((prepare(later, samples)[1].trusted == trusted).all())


HOSTILE = {
    "huge steps and exploration": {"kl_step": 1e4, "start_std": 20.0, "model_tolerance": 1e9},
    "vanishing noise and limits": {
        "std_floor": 1e-6,
        "start_std": 1e-5,
        "kl_step": 1e-5,
        "prior_strength": 1e-6,
        "regularization": 0.0,
    },
    "a learner that explodes": {
        "learner": dataclasses.replace(LEARNER, training=regression.Settings(learning_rate=1e6, updates=20))
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.parametrize("sampling", ["learner", "controllers"])
def test_never_nan_under_hostile_settings(name, sampling, task):
    guider = Mdgps(task, dataclasses.replace(settings(sampling=sampling), **HOSTILE[name]))
    states, _, _ = iterate(guider, 5)
    for state in states:
        assert all_finite(state)
    assert int(states[-1].iteration) == 5
    assert all(bool((state.controllers.chol.diagonal(axis1=-2, axis2=-1) > 0).all()) for state in states)


# the contract, and what is learned


def test_an_iteration_is_pure_compiled_once_and_within_its_limit(trained, task):
    guider, states, rows, (collect, step) = trained
    assert guider.steps_per_iteration == 3 * 3 * 6
    assert (collect._cache_size(), step._cache_size()) == (1, 1)
    for first, last in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[-1]), strict=True):
        assert (first.shape, first.dtype) == (last.shape, last.dtype)
    again, _, _ = iterate(guider, 1)
    for a, b in zip(jax.tree.leaves(states[1]), jax.tree.leaves(again[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(states[1].learner.policy.std, states[0].learner.policy.std)
    for row in rows:
        assert all(jnp.shape(value) in ((), (3,)) for value in row.values())
        assert bool((row["kl_ratio"] <= 1.021).all())
        assert int(row["failed_solves"] + row["failed_fits"] + row["diverged_samples"]) == 0


def test_the_arm_is_learned():
    task = Reacher(ReacherSettings(horizon=20, train_targets=6, test_targets=4), "mujoco")
    learner = LearnerSettings(hidden=(32,), training=regression.Settings(updates=200, batch_size=64))
    guider = Mdgps(task, MdgpsSettings(learner=learner))
    states, _, _ = iterate(guider, 6)
    judge = jax.jit(lambda policy: evaluate(task, policy, task.train_contexts, jax.random.key(9)).score.mean())
    first, last = judge(guider.policy(states[0])), judge(guider.policy(states[-1]))
    assert last < 0.2 * first


# errors before anything is compiled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "samples must be at least 2"),
        ({"kl_step": 0.0}, "kl_step must be positive"),
        ({"kl_step": float("inf")}, "kl_step must be finite"),
        ({"kl_tolerance": 1.0}, "kl_tolerance is relative and must be below 1"),
        ({"sampling": "leaner"}, "did you mean 'learner'"),
        ({"step_rule": "clasic"}, "did you mean 'classic'"),
        ({"kl_step_multiplier_max": 0.5}, "must enclose 1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        MdgpsSettings(**changes)


def test_a_task_without_a_control_side_is_refused():
    with pytest.raises(ValueError, match=r"'mdgps' optimises trajectories.*tiger-door is not"):
        Mdgps(cast(Any, TigerDoor(TigerDoorSettings())), settings())
