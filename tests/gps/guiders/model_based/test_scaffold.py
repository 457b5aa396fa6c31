"""What all model-based methods share: who collects, what counts, promises, and safeguards."""

import dataclasses
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_based import METHODS, SMALL, acted_otherwise, all_finite, changed, iterate, small_guider
from support.policies import means

from gps.guiders.guider import DivergedError
from gps.guiders.model_based import local_model
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.scaffold import PATIENCE
from gps.guiders.model_based.step_size import adapt_step
from gps.settings import SettingsError
from gps.tasks.doors.tiger import TigerDoor, TigerDoorSettings
from gps.tasks.mujoco.reacher import PARTIAL, Reacher

in_models = jax.jit(jax.vmap(LocalModel.expected_cost))


def test_an_iteration_is_pure_compiled_once_and_within_its_limit(trained):
    guider, states, rows, (collect, step) = trained
    assert guider.steps_per_iteration == 3 * 3 * 6
    assert (collect._cache_size(), step._cache_size()) == (1, 1)
    for first, last in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[-1]), strict=True):
        assert (first.shape, first.dtype) == (last.shape, last.dtype)
    collecting, updating = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    again, _ = step(states[0], collect(states[0], collecting), updating)
    for a, b in zip(jax.tree.leaves(states[1]), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(states[1].controllers.k, states[0].controllers.k)
    for row in rows:
        assert all(jnp.shape(value) in ((), (3,)) for value in row.values())
        assert {column.key for column in guider.columns} <= set(row)
        assert bool((row["kl_ratio"] <= 1.021).all())
        assert int(row["failed_solves"] + row["failed_fits"] + row["diverged_samples"]) == 0


def test_the_limit_decays_from_iteration_to_iteration(name, task):
    _, rows, _ = iterate(small_guider(name, task, "trust_region.decay=0.5", "trust_region.kl_step=0.8"), 3)
    limits = np.stack([row["kl_limit"] / row["step_size"] for row in rows])
    np.testing.assert_allclose(limits, np.broadcast_to([[0.8], [0.4], [0.2]], (3, 3)), rtol=1e-5)


# who collects, and what counts


def still(state):
    """The state with a learner that always takes the action zero."""
    policy = dataclasses.replace(state.learner.policy, params=jax.tree.map(jnp.zeros_like, state.learner.policy.params))
    policy = policy.with_std(jnp.asarray(np.full(2, 1e-2, np.float32)))
    return dataclasses.replace(state, learner=dataclasses.replace(state.learner, policy=policy))


@pytest.mark.parametrize(
    ("by", "learners_turns"), [("controllers", []), ("learner", [1, 2, 3, 4, 5]), ("both", [2, 5])]
)
def test_who_collects(task, by, learners_turns):
    guider = small_guider("mdgps", task, f"sampling.by={by}", "sampling.learner_every=3")
    state = still(guider.init(jax.random.key(0)))
    collect = jax.jit(guider.collect)
    for i in range(6):
        us = collect(changed(state, iteration=i), jax.random.key(i)).us
        expected = 1e-2 if i in learners_turns else guider.settings.start.std
        assert float(us.std()) == pytest.approx(expected, rel=0.2)


def test_the_learner_takes_over_where_it_does_better_and_elsewhere_its_samples_do_not_count(trained_methods, task):
    guider = small_guider("badmm", task, "sampling.by=both", "sampling.learner_every=3")
    state = changed(trained_methods["badmm"][1][2], iteration=2)
    duals = jax.tree.map(lambda a: a + 0.1, state.duals)
    samples = jax.jit(guider.collect)(state, jax.random.key(3))
    state = changed(state, duals=duals, cost=samples.cost * jnp.asarray([1.1, 0.9, 1.1]))
    new, prepared, metrics = jax.jit(guider.prepare)(state, samples)

    assert int(metrics["learner_took_over"]) == 2
    np.testing.assert_array_equal(prepared.evidence.counts, [True, False, True])
    np.testing.assert_array_equal(prepared.samples.xs[1], state.samples.xs[1])
    np.testing.assert_array_equal(prepared.samples.xs[2], samples.xs[2])
    np.testing.assert_allclose(new.cost, jnp.where(prepared.evidence.counts, samples.cost, state.cost), rtol=1e-6)
    # where it took over, the trust region is measured from the learner: its mean action over the samples
    x, actions = samples.xs[0, :, 2].mean(0), means(guider.policy(new), samples.observations[0, :, 2])
    at_mean = prepared.reference.K[0, 2] @ x + prepared.reference.k[0, 2]
    np.testing.assert_allclose(at_mean, actions.mean(0), atol=1e-3)
    np.testing.assert_array_equal(prepared.reference.k[1], state.controllers.k[1])
    # multipliers belong to the trajectory that was given up; penalty weights stay
    np.testing.assert_array_equal(new.duals.offset[0], 0.0)
    np.testing.assert_array_equal(new.duals.offset[1], duals.offset[1])
    np.testing.assert_array_equal(new.duals.rho, duals.rho)
    improved, _ = jax.jit(guider.improve)(new, prepared, prepared.reference)
    np.testing.assert_array_equal(improved.controllers.k[1], state.controllers.k[1])


def test_local_models_that_contradict_the_samples_are_not_trusted(trained, phases):
    _, states, _, (collect, _) = trained
    samples = collect(states[1], jax.random.key(8))
    _, honest, _ = phases[0](states[1], samples)
    _, prepared, metrics = phases[0](states[1], acted_otherwise(samples, 0))
    assert bool(honest.evidence.faithful.all())
    np.testing.assert_array_equal(prepared.evidence.faithful, [False, True, True])
    assert int(metrics["untrusted_models"]) == 1
    larger = dataclasses.replace(samples, costs=1e3 * samples.costs + 5.0)
    np.testing.assert_allclose(larger.cost_scale, 1e3 * samples.cost_scale, rtol=1e-4)


def test_dynamics_are_judged_in_the_cost_of_the_model(trained, phases):
    """Against numpy: what spread costs in truth, which quadratics overstate near a goal, is not the dynamics' fault."""
    guider, states, _, (collect, _) = trained
    samples = collect(states[1], jax.random.key(8))
    cheaper = changed(samples, costs=samples.costs - 4.0 * samples.cost_scale[:, None, None] / samples.costs.shape[-1])
    assert bool(phases[0](states[1], cheaper)[1].evidence.faithful.all())
    fit = jax.jit(partial(local_model.fit, guider.task, settings=guider.settings.local_model, prior=guider.prior))
    fitted, _ = fit(samples, state=states[1].prior)
    costs = jax.vmap(LocalModel.sampled_cost)(fitted.models, samples.xs, samples.us, samples.share)
    model = jax.tree.map(lambda a: np.asarray(a[1], np.float64), fitted.models)
    total = 0.0
    for xs, us, share in zip(samples.xs[1], samples.us[1], samples.share[1], strict=True):
        z = np.concatenate([xs[:-1] - model.xs[:-1], us - model.us], axis=1)
        last = np.asarray(xs[-1]) - model.xs[-1]
        steps = 0.5 * np.einsum("ti,tij,tj->t", z, model.cost.H, z) + (model.cost.g * z).sum(1) + model.cost.c
        end = 0.5 * last @ model.cost.H_final @ last + model.cost.g_final @ last + model.cost.c_final
        total += float(share) * (steps.sum() + end)
    np.testing.assert_allclose(costs[1], total, rtol=1e-4)


def test_where_a_model_is_not_faithful_the_controller_collects_next_with_a_smaller_step(trained, phases):
    """Whoever's turn it is: there is no state from which controllers are never asked again."""
    guider, states, _, (collect, _) = trained
    state = still(changed(states[2], iteration=3, step=np.ones(3), promised=states[2].objective, strayed=np.zeros(3)))
    new, _, _ = phases[0](state, acted_otherwise(collect(state, jax.random.key(8)), 0))
    np.testing.assert_array_equal(new.untrusted, [1, 0, 0])
    shrunk = [0.5 ** (1 / 3)] * 3 if guider.method.one_step else [0.5, 1.0, 1.0]
    np.testing.assert_allclose(new.step, shrunk, rtol=1e-6)
    turn = changed(new, iteration=5)  # the learner's, of either guider
    spread = collect(turn, jax.random.key(9)).us.std((1, 2, 3))
    loud = float(jnp.sqrt((turn.controllers.chol[0] ** 2).sum((-1, -2)).mean() / 2))
    assert float(spread[0]) > 0.5 * loud > 0.05
    np.testing.assert_allclose(spread[1:], 1e-2, rtol=0.3)
    trusted, _, _ = phases[0](turn, collect(turn, jax.random.key(9)))
    assert int(trusted.untrusted[0]) == 0


def test_where_models_stay_unfaithful_the_last_sound_controller_returns(trained, phases):
    _, states, _, (collect, _) = trained
    other = jax.tree.map(lambda a: 1.5 * a, states[2].controllers)
    state = changed(states[2], sound=other, untrusted=[PATIENCE - 1, 1, 0])
    new, _, metrics = phases[0](state, acted_otherwise(collect(state, jax.random.key(8)), 0, 1))
    np.testing.assert_array_equal(new.untrusted, [1, 2, 0])
    assert int(metrics["returned_controllers"]) == 1
    np.testing.assert_array_equal(new.controllers.k[0], other.k[0])
    np.testing.assert_array_equal(new.controllers.k[1], states[2].controllers.k[1])
    np.testing.assert_array_equal(new.sound.k[:2], other.k[:2])


def test_diverged_samples_do_not_count_and_a_condition_without_sound_ones_is_named(trained):
    guider, states, _, (collect, step) = trained
    samples = collect(states[0], jax.random.key(9))
    lost = dataclasses.replace(samples, weights=samples.weights.at[1, 2].set(0.0))
    garbage = dataclasses.replace(lost, xs=lost.xs.at[1, 2].set(123.0), us=lost.us.at[1, 2].set(-7.0))
    key = jax.random.key(10)
    for a, b in zip(*(jax.tree.leaves(step(states[0], s, key)[0].controllers) for s in (lost, garbage)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    guider.check(lost)
    with pytest.raises(DivergedError, match=r"all 3 samples of condition\(s\) \[2\] diverged"):
        guider.check(dataclasses.replace(samples, weights=samples.weights.at[2].set(0.0)))


# promises and the size of the step


def test_a_step_grows_with_kept_promises_and_shrinks_with_broken_ones():
    promised = jnp.asarray([1.0, 1.0, 1.0, -0.5, -0.5, 0.0])
    gained = jnp.asarray([1.0, 0.5, -4.0, -3.0, -0.5, 1.0])
    # |promised| / (2 (promised - gained)): all kept -> 4; half -> 1; broken -> 0.1; worse than a promised loss -> 0.1;
    # a loss exactly as promised, or nothing promised -> as it was
    expected = [4.0, 1.0, 0.1, 0.1, 1.0, 1.0]
    np.testing.assert_allclose(adapt_step(jnp.ones(6), gained, promised, (0.05, 4.0)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("badmm", ["sampling.by=controllers"]),
        ("mdgps", ["step_rule=classic", "sampling.by=controllers"]),
        ("mdgps", ["step_rule=global"]),
    ],
)
def test_promises_are_what_the_models_say_and_the_next_samples_test_them(task, name, changes):
    guider = small_guider(name, task, *changes)
    collect, prepare, update = (jax.jit(f) for f in (guider.collect, guider.prepare, guider.update))
    linearized = jax.jit(guider.teaching.linearized)

    def promiser(state, samples):
        if guider.method.learner_promises:
            return linearized(state.learner.policy, samples)
        return state.controllers

    start = jax.jit(guider.init)(jax.random.key(0))
    samples = collect(start, jax.random.key(1))
    _, prepared, metrics = prepare(start, samples)
    assert bool(jnp.isnan(metrics["predicted_improvement"]).all())
    np.testing.assert_array_equal(metrics["step_size"], 1.0)
    state, _ = update(start, samples, jax.random.key(2))
    before = start.controllers  # an untrained learner stands for nothing
    np.testing.assert_allclose(state.objective, in_models(prepared.models, before), rtol=1e-3, atol=1e-4)
    expected = in_models(prepared.models, promiser(state, samples))
    np.testing.assert_allclose(state.promised, expected, rtol=1e-3, atol=1e-4)

    samples = collect(state, jax.random.key(3))
    new, prepared, metrics = prepare(state, samples)
    gained = state.objective - in_models(prepared.models, promiser(new, samples))
    promised = state.objective - state.promised
    assert bool(prepared.evidence.trusted.all())
    np.testing.assert_array_equal(metrics["predicted_improvement"], promised)
    np.testing.assert_allclose(metrics["actual_improvement"], gained, rtol=1e-3, atol=1e-4)
    total = (lambda x: x.sum()) if guider.method.one_step else (lambda x: x)
    short = np.maximum(total(promised) - total(gained), 1e-4 * np.abs(total(promised)))
    factor = np.clip(np.abs(total(promised)) / (2 * short), 0.1, np.where(total(promised) > 0, 5.0, 1.0))
    if guider.method.learner_leads:  # and not larger than what the learner has followed
        factor = np.minimum(factor, 1.0 / np.maximum(state.strayed.mean(), 1e-3))
    np.testing.assert_allclose(new.step, np.broadcast_to(np.clip(factor, 0.1, 1.0), 3), rtol=1e-3)


def test_a_step_from_the_learner_is_at_most_what_it_has_followed(trained, phases):
    """By the KL of its controllers to it, in units of their limit; one that is pulled back has multipliers for that."""
    guider, states, rows, (collect, _) = trained
    np.testing.assert_array_equal(states[1].strayed, 0.0)  # an untrained learner had far to go
    for state, row in zip(states[2:], rows[1:], strict=True):
        measured = np.asarray(row["kl_to_learner"] / row["kl_limit"])
        known = np.isfinite(measured)
        np.testing.assert_allclose(state.strayed[known], measured[known], rtol=1e-4)
    followed = changed(states[2], iteration=3, step=np.full(3, 0.4), promised=states[2].objective, strayed=np.zeros(3))
    samples = collect(followed, jax.random.key(8))
    for strayed, largest in (([0.0, 0.0, 0.0], 0.4), ([4.0, 1.0, 1.0], 0.2), ([0.1, 0.1, 0.1], 0.4)):
        new, _, _ = phases[0](changed(followed, strayed=strayed), samples)
        np.testing.assert_allclose(new.step, largest if guider.method.learner_leads else 0.4, rtol=1e-6)


def test_a_promise_is_measured_by_the_samples_that_it_was_made_on_too(trained, phases):
    """Where much was gained, the new samples cost little and vary little: kept promises would count least of all."""
    guider, states, _, (collect, _) = trained
    state = still(changed(states[2], iteration=2))
    samples = collect(state, jax.random.key(8))
    large = 2.0 * guider.settings.local_model.tolerance * samples.cost_scale.max()
    for scale, judged in ((1e-3, False), (1e3, True)):
        last = changed(state.samples, costs=scale * state.samples.costs)
        before = changed(state, promised=state.objective - large, samples=last)
        _, prepared, metrics = phases[0](before, samples)
        assert bool(prepared.evidence.trusted.any())
        expected = np.asarray(prepared.evidence.trusted) & judged
        np.testing.assert_array_equal(np.isfinite(metrics["predicted_improvement"]), expected)


def test_no_condition_alone_says_more_of_the_common_step_than_that_it_be_a_tenth(trained, phases):
    guider, states, _, (collect, _) = trained
    state = still(changed(states[2], iteration=2, step=np.full(3, 0.8), strayed=np.zeros(3)))
    samples = collect(state, jax.random.key(8))
    _, prepared, _ = phases[0](state, samples)
    now = in_models(prepared.models, state.controllers if guider.name == "badmm" else prepared.learner)
    promise = 0.1 * samples.cost_scale.min()
    objective = now + promise * jnp.asarray([-1000.0, 1.0, 1.0])  # the last two gain what was promised, the first loses
    last = changed(state.samples, costs=1e3 * state.samples.costs)
    before = changed(state, objective=objective, promised=objective - promise, samples=last)
    new, _, metrics = phases[0](before, samples)
    assert bool(jnp.isfinite(metrics["predicted_improvement"]).all())
    # sums of 3 promised and of 1 + 1 - 4 gained: 3 / (2 (3 + 2)) = 0.3; alone, the first asks for the tenth
    expected = [0.8 * 0.3] * 3 if guider.method.one_step else [0.1, 1.0, 1.0]
    np.testing.assert_allclose(new.step, expected, rtol=1e-2)


def test_a_promise_of_the_controllers_waits_while_the_learner_collects(trained_methods):
    _, _, rows, _ = trained_methods["badmm"]
    assert bool(jnp.isnan(rows[0]["actual_improvement"]).all())
    assert bool(jnp.isnan(rows[1]["actual_improvement"]).all())  # the learner's turn: no controller was rolled out
    assert bool(jnp.isfinite(rows[2]["actual_improvement"]).any())


# safeguards


def test_a_condition_that_failed_keeps_its_controller_and_the_others_improve(trained, phases):
    _, states, _, (collect, _) = trained
    samples = collect(states[0], jax.random.key(7))
    state, prepared, _ = phases[0](states[0], samples)
    broken_H = prepared.models.cost.H.at[1, 2, 0, 0].set(jnp.nan)
    models = dataclasses.replace(prepared.models, cost=dataclasses.replace(prepared.models.cost, H=broken_H))
    evidence = dataclasses.replace(prepared.evidence, faithful=jnp.asarray([True, True, False]))
    prepared = dataclasses.replace(prepared, models=models, evidence=evidence)
    improved, metrics = phases[1](state, prepared, prepared.reference)

    assert all_finite(improved.controllers)
    assert int(metrics["failed_solves"]) == 1  # the third one was not tried
    for m, kept in ((0, False), (1, True), (2, True)):
        assert np.array_equal(improved.controllers.k[m], state.controllers.k[m]) == kept
    assert float(improved.eta[1]) == float(state.eta[1])


LOUD = ["trust_region.kl_step=1e4", "start.std=20.0", "local_model.tolerance=1e9"]
QUIET = [
    "sampling.std_floor=1e-6",
    "start.std=1e-5",
    "trust_region.kl_step=1e-5",
    "local_model.prior_strength=1e-6",
    "local_model.regularization=0.0",
]
EXPLODING = ["learner.training.learning_rate=1e6", "learner.training.updates=20"]
HOSTILE = {
    "badmm, huge": [
        *LOUD,
        "penalty.start=10.0",
        "penalty.rule=spread",
        "multipliers.rate=50.0",
        "multipliers.gain_rate=5.0",
        "multipliers.bound=1e4",
    ],
    "badmm, vanishing": [
        *QUIET,
        "penalty.start=1e-8",
        "penalty.least=1e-10",
        "penalty.target=1e-9",
        "sampling.by=learner",
    ],
    "mdgps, huge and exploding": [*LOUD, *EXPLODING],
    "mdgps, vanishing": [*QUIET, "sampling.by=controllers"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_never_nan_under_hostile_settings(case, task):
    guider = small_guider(case.split(",")[0], task, *HOSTILE[case])
    states, _, _ = iterate(guider, 5)
    for state in states:
        assert all_finite(state)
    assert int(states[-1].iteration) == 5
    assert all(bool((state.controllers.chol.diagonal(axis1=-2, axis2=-1) > 0).all()) for state in states)


# errors before anything is compiled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sampling.samples=0", "samples must be at least 1"),
        ("trust_region.kl_step=0.0", "kl_step must be positive"),
        ("trust_region.kl_step=nan", "kl_step must be positive"),
        ("trust_region.kl_step=inf", "kl_step must be finite"),
        ("trust_region.decay=1.1", "decay must be at most 1, not 1.1"),
        ("trust_region.tolerance=1.0", "tolerance is relative and must be below 1"),
        ("trust_region.step_max=0.5", "must enclose 1"),
        ("sampling.by=leaner", "did you mean 'learner'"),
        ("learner.network.hiden=[3]", "did you mean 'hidden'"),
        ("learner.network.distribution=categorical", "does not fit reacher, whose actions are 2 numbers"),
    ],
)
def test_bad_settings_are_named(name, change, message, task):
    with pytest.raises((SettingsError, ValueError), match=message):
        small_guider(name, task, change).init(jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("badmm", "rounds=0", "rounds must be at least 1"),
        ("badmm", "penalty.start=100.0", "start must be between least = 0.0001 and largest = 10"),
        ("mdgps", "step_rule=clasic", "did you mean 'classic'"),
    ],
)
def test_bad_settings_of_a_method_are_named(name, change, message, task):
    with pytest.raises(SettingsError, match=message):
        small_guider(name, task, change)


def test_a_task_without_a_control_side_is_refused(name):
    with pytest.raises(ValueError, match=rf"'{name}' optimises trajectories.*tiger-door is not"):
        small_guider(name, cast(Any, TigerDoor(TigerDoorSettings())))


def test_where_the_learner_is_no_function_of_the_state_it_is_not_differentiated(name, task):
    partial = Reacher(dataclasses.replace(PARTIAL, **SMALL), "mujoco")
    differentiate = "learner.linearization=differentiation"
    with pytest.raises(ValueError, match=r"stacks \d+ frames with \d+ noise inputs; use 'regression'"):
        small_guider(name, partial, differentiate)
    with pytest.raises(ValueError, match=r"memory = 4; use 'regression'"):
        small_guider(name, task, differentiate, "learner.network.memory=4")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_learner_with_memory_is_taught_whole_episodes(name):
    """On noisy single frames; the learner's action depends on what it saw before."""
    partial = Reacher(dataclasses.replace(PARTIAL, history=1, **SMALL), "mujoco")
    guider = small_guider(name, partial, "learner.network.memory=4")
    states, rows, _ = iterate(guider, 3)
    assert all_finite(states[-1])
    assert bool((rows[-1]["kl_ratio"] <= 1.021).all())
    assert not np.allclose(states[-1].controllers.k, states[1].controllers.k)
    policy, seen = guider.policy(states[-1]), states[-1].samples.observations[0, 0]
    along = policy.distribution.moments(policy.along(seen[None]))[0][0]
    assert np.abs(along - means(policy, seen)).max() > 1e-3
