"""The BADMM guider: its formulas against direct evaluation, and its safeguards."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controllers.types import LinearGaussian
from gps.guiders.guider import DivergedError
from gps.guiders.model_based import badmm
from gps.guiders.model_based.badmm import Badmm, BadmmSettings
from gps.guiders.model_based.samples import Samples, check
from gps.tasks.episodes import LearnerSettings
from gps.tasks.mujoco.reacher import PARTIAL, Reacher, ReacherSettings
from policies import regression

LEARNER = LearnerSettings(hidden=(8,), training=regression.Settings(updates=6, batch_size=16))
SMALL = {"horizon": 6, "train_targets": 3, "test_targets": 4}


@pytest.fixture(scope="module")
def task():
    return Reacher(ReacherSettings(**SMALL), "mujoco")


def settings(**changes) -> BadmmSettings:
    return BadmmSettings(samples=3, rounds=2, learner=LEARNER, **changes)


def iterate(guider, count, seed=0):
    """Run a guider for some iterations; the states, the metrics and the two compiled programs."""
    key = jax.random.key(seed)
    collect, step = jax.jit(guider.collect), jax.jit(guider.update)
    states, rows = [jax.jit(guider.init)(jax.random.fold_in(key, 1000))], []
    for i in range(count):
        collecting, updating = jax.random.split(jax.random.fold_in(key, i))
        samples = collect(states[-1], collecting)
        state, metrics = step(states[-1], samples, updating)
        states.append(state)
        rows.append(metrics)
    return states, rows, (collect, step)


def all_finite(tree) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def trained(task):
    guider = Badmm(task, settings())
    return guider, *iterate(guider, 3)


# formulas


def random_controller(seed, T, nx, nu):
    generator = np.random.default_rng(seed)
    chol = np.tril(0.2 * generator.normal(size=(T, nu, nu)), -1) + np.eye(nu) * generator.uniform(0.2, 0.6, (T, 1, nu))
    draw = (generator.normal(size=(T, nu, nx)), generator.normal(size=(T, nu)), chol)
    return LinearGaussian(*(jnp.asarray(a, jnp.float32) for a in draw))


def test_dual_step_is_the_formula_until_it_meets_its_bound(trained):
    guider = trained[0]
    generator = np.random.default_rng(1)
    T, nu, rate = 4, 2, 0.3
    chol = np.asarray(random_controller(2, T, 3, nu).chol)
    weight = generator.uniform(0.1, 0.5, T).astype(np.float32)
    difference = 0.1 * generator.normal(size=(T, nu, 1)).astype(np.float32)
    start = 0.01 * generator.normal(size=(T, nu, 1)).astype(np.float32)

    stepped = guider._dual_step(
        jnp.asarray(chol), jnp.asarray(weight), jnp.asarray(start), jnp.asarray(difference), rate
    )
    precision = np.linalg.inv(chol @ chol.swapaxes(-1, -2))
    expected = start - rate * weight[:, None, None] * precision @ difference
    np.testing.assert_allclose(stepped, expected, rtol=1e-4, atol=1e-6)

    far = guider._dual_step(
        jnp.asarray(chol), jnp.asarray(weight), jnp.asarray(start), jnp.asarray(1e6 * difference), rate
    )
    whitened = chol.swapaxes(-1, -2) @ np.asarray(far) / weight[:, None, None]
    np.testing.assert_allclose(np.linalg.norm(whitened[..., 0], axis=-1), guider.settings.dual_bound, rtol=1e-4)


def test_learner_targets_minimise_the_lagrangian(trained, task):
    guider, states, _, _ = trained
    state = states[-1]
    samples = jax.jit(guider.collect)(state, jax.random.key(5))
    targets, precisions = guider._targets(state, samples)

    def lagrangian(u, m, t, x):
        """What the learner's mean action u costs: 1/2 nu (u - Kx - k)' C^-1 (u - Kx - k) + u' lambda(x)."""
        p = jax.tree.map(lambda leaf: leaf[m], state.controllers)
        push = state.multipliers.K[m, t] @ x + state.multipliers.k[m, t]
        white = jnp.linalg.solve(p.chol[t], u - p.act(t, x))
        return 0.5 * state.nu[m, t] * (white @ white) + u @ push

    for m, n, t in ((0, 0, 0), (1, 2, 3), (2, 1, 5)):
        u, x = targets[m, n, t], samples.xs[m, n, t]
        gradient = jax.grad(lagrangian)(u, m, t, x)
        elsewhere = jax.grad(lagrangian)(u + 0.1, m, t, x)
        assert jnp.linalg.norm(gradient) < 1e-3 * jnp.linalg.norm(elsewhere)
        hessian = jax.hessian(lagrangian)(u, m, t, x)
        np.testing.assert_allclose(hessian / state.nu[m, t], precisions[m, t], rtol=1e-3, atol=1e-2)


def test_augmented_cost_is_cost_minus_multipliers_plus_penalty(trained, task):
    guider, states, _, _ = trained
    state = states[-1]
    samples = jax.jit(guider.collect)(state, jax.random.key(6))
    _, problem, _ = guider.prepare(state, samples)
    model = jax.tree.map(lambda leaf: leaf[1], problem.models)
    imitated = random_controller(3, task.horizon, task.nx, task.nu)
    generator = np.random.default_rng(4)
    multipliers = badmm.Multipliers(
        jnp.asarray(0.1 * generator.normal(size=(task.horizon, task.nu, task.nx)), jnp.float32),
        jnp.asarray(generator.normal(size=(task.horizon, task.nu)), jnp.float32),
    )
    weight = jnp.asarray(generator.uniform(0.1, 0.4, task.horizon), jnp.float32)
    augmented = badmm._augmented(model, imitated, multipliers, weight)

    dx, du = (0.1 * generator.normal(size=(task.horizon, n)).astype(np.float32) for n in (task.nx, task.nu))
    dz = np.concatenate([dx, du], axis=1)
    xs, us = model.xs[:-1] + dx, model.us + du

    def value(cost):
        return 0.5 * np.einsum("ti,tij,tj->t", dz, cost.H, dz) + (np.asarray(cost.g) * dz).sum(1)

    def rest(xs, us):
        push = np.einsum("tux,tx->tu", multipliers.K, xs) + multipliers.k
        return -np.einsum("tu,tu->t", us, push) - weight * imitated.log_prob(jnp.asarray(xs), jnp.asarray(us))

    expected = value(model.cost) + rest(xs, us) - rest(model.xs[:-1], model.us)
    np.testing.assert_allclose(value(augmented), expected, rtol=2e-3, atol=2e-3)


def test_step_size_grows_with_kept_promises_and_shrinks_with_broken_ones(trained):
    guider = Badmm(trained[0].task, settings(kl_step_multiplier_min=0.05, kl_step_multiplier_max=4.0))
    promised = jnp.asarray([1.0, 1.0, 1.0, -0.5, -0.5])
    gained = jnp.asarray([1.0, 0.5, -4.0, -3.0, -0.5])
    # |promised| / (2 (promised - gained)): all kept -> 4; half -> 1; broken -> 0.1; worse than a promised loss -> 0.1;
    # a loss exactly as promised -> 4
    expected = [4.0, 1.0, 0.1, 0.1, 4.0]
    np.testing.assert_allclose(guider._adapt_step(jnp.ones(5), gained, promised), expected, rtol=1e-5)


def test_the_first_iteration_and_untried_improvements_are_not_judged(trained):
    _, _, rows, _ = trained
    assert bool(jnp.isnan(rows[0]["predicted_improvement"]).all())
    assert bool(jnp.isnan(rows[0]["actual_improvement"]).all())
    assert bool(jnp.isnan(rows[1]["actual_improvement"]).all())  # the learner's turn: no controller was rolled out
    assert bool(jnp.isfinite(rows[2]["actual_improvement"]).any())
    np.testing.assert_array_equal(rows[0]["step_multiplier"], 1.0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("ratio", [0.2 * 0.5, 0.2 * np.sqrt(0.9), 0.2, 0.2 * np.sqrt(1.6), 0.2 * 2.0]),
        ("spread", [0.2, 0.2, 0.2, 0.2, 0.4]),
        ("fixed", [0.2] * 5),
    ],
)
def test_penalty_rules(trained, rule, expected):
    guider = Badmm(trained[0].task, settings(penalty_rule=rule, penalty_target=0.1, penalty_max=0.41))
    kl = jnp.asarray([[0.001, 0.09, 0.1, 0.16, 50.0]])
    np.testing.assert_allclose(guider._adapt_penalty(jnp.full((1, 5), 0.2), kl)[0], expected, rtol=1e-5)
    huge = guider._adapt_penalty(jnp.full((1, 5), 0.4), jnp.full((1, 5), jnp.inf))
    assert (huge <= 0.41).all()


# safeguards


def test_a_condition_with_a_bad_model_keeps_its_controller_and_the_others_improve(trained):
    guider, states, _, _ = trained
    state = states[1]
    samples = jax.jit(guider.collect)(state, jax.random.key(7))
    state, problem, _ = guider.prepare(state, samples)
    broken_H = problem.models.cost.H.at[1, 2, 0, 0].set(jnp.nan)
    models = dataclasses.replace(problem.models, cost=dataclasses.replace(problem.models.cost, H=broken_H))
    trusted = jnp.asarray([True, True, False])
    improved, metrics = jax.jit(guider.improve)(state, dataclasses.replace(problem, models=models, trusted=trusted))

    assert all_finite(improved.controllers)
    assert int(metrics["failed_solves"]) == 1  # the third one was not tried
    for m, kept in ((0, False), (1, True), (2, True)):
        assert np.array_equal(improved.controllers.k[m], problem.old.k[m]) == kept
    assert float(improved.eta[1]) == float(state.eta[1])


def test_local_models_that_contradict_the_samples_are_not_trusted(trained):
    guider, states, _, _ = trained
    samples = jax.jit(guider.collect)(states[1], jax.random.key(8))
    lied = dataclasses.replace(samples, costs=samples.costs.at[0].multiply(0.05))
    _, honest, _ = guider.prepare(states[1], samples)
    _, problem, metrics = guider.prepare(states[1], lied)
    assert bool(honest.trusted.all())
    np.testing.assert_array_equal(problem.trusted, [False, True, True])
    assert int(metrics["untrusted_models"]) == 1


HOSTILE = {
    "huge steps and exploration": {
        "kl_step": 1e4,
        "start_std": 20.0,
        "penalty": 10.0,
        "dual_rate": 50.0,
        "dual_rate_gain": 5.0,
        "dual_bound": 1e4,
        "model_tolerance": 1e9,
        "penalty_rule": "spread",
    },
    "vanishing noise, weights and limits": {
        "std_floor": 1e-6,
        "start_std": 1e-5,
        "kl_step": 1e-5,
        "penalty": 1e-8,
        "penalty_min": 1e-10,
        "penalty_target": 1e-9,
        "prior_strength": 1e-6,
        "regularization": 0.0,
        "sampling": "learner",
    },
    "a learner that explodes": {
        "learner": dataclasses.replace(LEARNER, training=regression.Settings(learning_rate=1e6, updates=20))
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_never_nan_under_hostile_settings(name, task):
    guider = Badmm(task, dataclasses.replace(settings(), **HOSTILE[name]))
    states, _, _ = iterate(guider, 5)
    for state in states:
        assert all_finite(state)
    assert int(states[-1].iteration) == 5
    assert all(bool((state.controllers.chol.diagonal(axis1=-2, axis2=-1) > 0).all()) for state in states)


def test_diverged_samples_do_not_count_and_a_condition_without_sound_ones_is_named(trained, task):
    guider, states, _, _ = trained
    samples = jax.jit(guider.collect)(states[0], jax.random.key(9))
    lost = dataclasses.replace(samples, weights=samples.weights.at[1, 2].set(0.0))
    garbage = dataclasses.replace(lost, xs=lost.xs.at[1, 2].set(123.0), us=lost.us.at[1, 2].set(-7.0))
    key = jax.random.key(10)
    step = jax.jit(guider.update)
    for a, b in zip(*(jax.tree.leaves(step(states[0], s, key)[0].controllers) for s in (lost, garbage)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    check(lost)
    gone = Samples(samples.xs, samples.us, samples.observations, samples.costs, samples.weights.at[2].set(0.0))
    with pytest.raises(DivergedError, match=r"all 3 samples of condition\(s\) \[2\] diverged"):
        check(gone)


def still_learner(state):
    """A learner that always takes the action zero."""
    policy = dataclasses.replace(state.learner.policy, std=jnp.full(2, 1e-6))
    policy = dataclasses.replace(policy, params=jax.tree.map(jnp.zeros_like, policy.params))
    return dataclasses.replace(state, learner=dataclasses.replace(state.learner, policy=policy))


@pytest.mark.parametrize(
    ("sampling", "learners_turns"),
    [("controllers", []), ("learner", [1, 2, 3, 4, 5]), ("both", [2, 5])],
)
def test_who_collects(task, sampling, learners_turns):
    guider = Badmm(task, settings(sampling=sampling, learner_every=3))
    state = still_learner(guider.init(jax.random.key(0)))
    collect = jax.jit(guider.collect)
    for i in range(6):
        us = collect(dataclasses.replace(state, iteration=jnp.asarray(i)), jax.random.key(i)).us
        if i in learners_turns:
            assert float(jnp.abs(us).max()) < 1e-4
        else:
            assert float(us.std()) == pytest.approx(guider.settings.start_std, rel=0.2)


def test_the_learner_takes_over_where_it_does_better_and_elsewhere_its_samples_do_not_count(trained, task):
    guider = Badmm(task, settings(sampling="both", learner_every=3))
    state = dataclasses.replace(trained[1][2], iteration=jnp.asarray(2))
    samples = jax.jit(guider.collect)(state, jax.random.key(3))
    means = samples.costs.mean(1)
    state = dataclasses.replace(state, cost=means * jnp.asarray([1.1, 0.9, 1.1]))
    new, problem, metrics = guider.prepare(state, samples)

    assert int(metrics["learner_took_over"]) == 2
    np.testing.assert_array_equal(problem.counts, [True, False, True])
    np.testing.assert_array_equal(problem.samples.xs[1], state.samples.xs[1])
    np.testing.assert_array_equal(problem.samples.xs[2], samples.xs[2])
    np.testing.assert_allclose(new.cost, jnp.where(problem.counts, means, state.cost), rtol=1e-6)
    # where it took over, the trust region is measured from the learner: its mean action at the samples' mean state
    x = samples.xs[0, :, 2].mean(0)
    o = samples.observations[0, :, 2].mean(0)
    np.testing.assert_allclose(problem.old.act(2, x)[0], guider.policy(new).mean(o), atol=0.02)
    np.testing.assert_array_equal(problem.old.k[1], state.controllers.k[1])
    improved, _ = jax.jit(guider.improve)(new, problem)
    np.testing.assert_array_equal(improved.controllers.k[1], state.controllers.k[1])


# errors before anything is compiled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "samples must be at least 2"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"kl_step": 0.0}, "kl_step must be positive"),
        ({"kl_step": float("nan")}, "kl_step must be positive"),
        ({"kl_step": float("inf")}, "kl_step must be finite"),
        ({"kl_tolerance": 1.0}, "kl_tolerance is relative and must be below 1"),
        ({"penalty": 100.0}, "penalty must be between"),
        ({"sampling": "leaner"}, "did you mean 'learner'"),
        ({"kl_step_multiplier_max": 0.5}, "must enclose 1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        BadmmSettings(**changes)


def test_differentiation_through_noise_and_memory_is_refused():
    partial = Reacher(dataclasses.replace(PARTIAL, **SMALL), "mujoco")
    with pytest.raises(ValueError, match="use 'regression'"):
        Badmm(partial, settings(linearization="differentiation"))
