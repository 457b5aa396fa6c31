"""MDGPS' two steps against solves of another kind, and whom its limit is measured from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles
from support.carts import Cart, slopes
from support.model_based import changed, in_deviations, iterate, made_up, small_guider
from support.policies import means, stds

from gps.guiders.model_based.mdgps import Mdgps, MdgpsSettings, mdgps
from gps.guiders.model_based.method import Condition
from gps.guiders.model_based.scaffold import PATIENCE
from gps.guiders.model_based.settings import TaughtLearnerSettings, TrustRegionSettings
from gps.runs.evaluate import evaluate
from gps.tasks.mujoco.reacher import Reacher, ReacherSettings
from policies import regression


@pytest.fixture
def trained(trained_methods):
    return trained_methods["mdgps"]


def test_c_step_is_the_optimum_within_the_limit_around_the_learner(task):
    short = Reacher(ReacherSettings(horizon=3, train_targets=2, test_targets=1), "mujoco")
    method = Mdgps(MdgpsSettings(trust_region=TrustRegionSettings(tolerance=1e-3)))
    problems, references, models, absolute = made_up(short, (0, 1))
    before, optimum = [], []
    for m in range(2):
        model, reference = (jax.tree.map(lambda leaf: leaf[m], tree) for tree in (models, absolute))  # noqa: B023
        condition = Condition(model, None, reference, reference, jnp.asarray(0.6), jnp.asarray(1.0))  # pyright: ignore
        step = jax.jit(method.improve)(condition, ())
        assert bool(step.solved)
        ours = in_deviations(model, step.controller)
        assert oracles.trajectory_kl(problems[m], ours, references[m]) == pytest.approx(0.6, rel=5e-3)
        best = oracles.constrained_controller(problems[m], references[m], 0.6, np.zeros(3))
        costs = [oracles.expected_path_cost(problems[m], c) for c in (references[m], ours, best)]
        before.append(costs[0])
        optimum.append(costs[2])
        assert costs[1] == pytest.approx(costs[2], abs=2e-3 * (costs[0] - costs[2]))
        for a, b in zip(ours, best, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-2)
    assert (np.array(before) - np.array(optimum)).max() > 1.0


def test_an_iteration_on_linear_dynamics_moves_a_controller_by_the_limit_from_the_learner_before():
    """In the simulator's own linear dynamics, not those that were fitted; from the second iteration the limit binds.

    The divergence of the next learner from the one before is within it too, but for what the S-step leaves behind.
    """
    task = Cart(horizon=8)
    region = ("trust_region.kl_step=0.05", "local_model.prior=pooled", "learner.training.updates=300")
    guider = small_guider("mdgps", task, "sampling.samples=8", *region)
    states, rows, (collect, _) = iterate(guider, 4)
    prepare = jax.jit(guider.prepare)
    linear = slopes(task)
    for i in (1, 2, 3):
        key, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), i))  # of `iterate`
        _, prepared, _ = prepare(states[i], collect(states[i], key))
        _, later, _ = prepare(states[i + 1], prepared.samples)
        limit = np.asarray(rows[i]["kl_limit"]) * task.horizon
        for m in range(2):
            problem = as_problem(linear, jax.tree.map(lambda leaf: leaf[m], prepared.models))  # noqa: B023
            before, after, taught = (
                [np.asarray(leaf[m], float) for leaf in (who.K, who.k, who.chol)]
                for who in (prepared.learner, states[i + 1].controllers, later.learner)
            )
            assert oracles.trajectory_kl(problem, after, before) == pytest.approx(limit[m], rel=0.05)
            assert oracles.trajectory_kl(problem, taught, before) < 1.3 * limit[m]


def as_problem(linear, model):
    """A problem of the oracles in absolute coordinates: these dynamics, and the starts of a local model."""
    T = len(model.us)
    A, B, c = (np.broadcast_to(part, (T, *part.shape)) for part in linear)
    start = np.asarray(model.initial.mean + model.xs[0], float), np.asarray(model.initial.cov, float)
    noise = np.broadcast_to(1e-8 * np.eye(2), (T, 2, 2))
    return oracles.Problem((A, B, c, noise), None, start)


def test_s_step_imitates_the_controllers_and_takes_their_mean_precision(task, trained):
    """Constant controllers, each with its own precision: the learner's mean is their action."""
    learner = TaughtLearnerSettings(
        trained[0].settings.learner.network, regression.Settings(updates=600, batch_size=64, learning_rate=0.02)
    )
    guider = mdgps(task, dataclasses.replace(trained[0].settings, learner=learner))
    state = trained[1][0]
    samples = trained[3][0](state, jax.random.key(1))
    std = jnp.asarray([0.1, 0.2, 0.4])
    wanted = jnp.asarray([0.3, -0.2])
    controllers = dataclasses.replace(
        state.controllers,
        K=jnp.zeros_like(state.controllers.K),
        k=jnp.broadcast_to(wanted, state.controllers.k.shape),
        chol=std[:, None, None, None] * jnp.broadcast_to(jnp.eye(2), state.controllers.chol.shape),
    )
    taught = guider.teaching.normalized(state.learner, samples)
    state = dataclasses.replace(state, learner=taught, controllers=controllers)
    _, prepared, _ = jax.jit(guider.prepare)(state, samples)
    state, metrics = jax.jit(guider.teach)(state, prepared, jax.random.key(2))
    policy = guider.policy(state)
    actions = means(policy, samples.observations)
    np.testing.assert_allclose(actions, jnp.broadcast_to(wanted, actions.shape), atol=0.02)
    np.testing.assert_allclose(
        stds(policy, samples.observations[0, 0, 0]), np.mean(np.asarray(std) ** -2.0) ** -0.5, rtol=1e-5
    )
    assert float(metrics["learner_error"]) < 0.02


def test_the_first_limit_is_measured_from_the_explorers_and_later_ones_from_the_learner(
    trained, phases_of_methods, task
):
    guider, states, _, (collect, _) = trained
    prepare, _ = phases_of_methods["mdgps"]
    _, prepared, _ = prepare(states[0], collect(states[0], jax.random.key(1)))
    np.testing.assert_array_equal(prepared.reference.k, states[0].controllers.k)
    np.testing.assert_array_equal(prepared.reference.chol[..., 0, 0], np.float32(guider.settings.start.std))

    samples = collect(states[2], jax.random.key(3))
    new, prepared, _ = prepare(states[2], samples)
    policy, context = guider.policy(new), task.train_contexts[1]
    x = samples.xs[1, :, 2]
    mean = jax.jit(jax.vmap(lambda x: policy.mean(task.observe(x, context, jnp.zeros(0)))))
    slopes = jnp.stack([(mean(x + d) - mean(x - d)) / 2e-2 for d in 1e-2 * jnp.eye(task.nx)], axis=-1)
    np.testing.assert_allclose(prepared.reference.K[1, 2], slopes.mean(0), atol=2e-3)
    # linear in x, it is the mean over the samples of what the learner does
    at_mean = prepared.reference.K[1, 2] @ x.mean(0) + prepared.reference.k[1, 2]
    np.testing.assert_allclose(at_mean, means(policy, samples.observations[1, :, 2]).mean(0), atol=1e-4)
    np.testing.assert_allclose(
        prepared.reference.chol[1, 2], np.diag(stds(policy, samples.observations[1, 0, 2])), rtol=1e-5
    )


def test_one_step_for_all_conditions_by_the_promises_that_were_kept(trained):
    """(1 + 3) / (2 (1 + 3 - what was gained)) by the sums over conditions that can be judged, the third not."""
    guider, states, _, (collect, _) = trained
    assert guider.method.one_step
    state, samples = states[2], collect(states[2], jax.random.key(4))
    prepare = jax.jit(guider.prepare)
    after, _, metrics = prepare(state, samples)
    promised = np.array([1.0, 3.0, 0.0], np.float32)
    for broken in (1.0, 0.25):
        before = after.objective + jnp.asarray([broken, broken, 5.0])
        judged, _, metrics = prepare(
            changed(state, objective=before, promised=before - promised, step=np.full(3, 0.5)), samples
        )
        gained = 2 * broken
        factor = np.clip(4 / (2 * (4 - gained)), 0.1, 5.0)
        np.testing.assert_allclose(judged.step, np.clip(0.5 * factor, 0.1, 1.0), rtol=1e-3)
        np.testing.assert_array_equal(np.isnan(metrics["predicted_improvement"]), [False, False, True])


@pytest.fixture(scope="module")
def learned():
    """A guider of a small arm after six iterations, its compiled programs, and the score of a policy."""
    task = Reacher(ReacherSettings(horizon=20, train_targets=6, test_targets=4), "mujoco")
    guider = small_guider(
        "mdgps",
        task,
        "sampling.samples=2",
        "learner.network.hidden=[32]",
        "learner.training.updates=200",
        "learner.training.batch_size=64",
    )
    value = jax.jit(lambda policy: evaluate(task, policy, task.train_contexts, jax.random.key(9)).score.mean())
    return guider, *iterate(guider, 6), value


def test_the_arm_is_learned(learned):
    guider, states, _, _, value = learned
    assert value(guider.policy(states[-1])) < 0.2 * value(guider.policy(states[0]))


def test_the_arm_is_learned_after_a_bad_first_iteration(learned):
    """Controllers and learner are thrown far off, so that next to no local model is faithful."""
    guider, states, _, (collect, step), value = learned
    noise = jax.random.normal(jax.random.key(3), states[1].controllers.k.shape)
    controllers = dataclasses.replace(states[1].controllers, k=states[1].controllers.k + 5.0 * noise)
    learner = states[1].learner
    params = jax.tree.map(lambda a: 4.0 * a, learner.policy.params)
    learner = dataclasses.replace(learner, policy=dataclasses.replace(learner.policy, params=params))
    state = dataclasses.replace(states[1], controllers=controllers, learner=learner)
    bad, rows = value(guider.policy(state)), []
    for i in range(20):
        state, metrics = step(state, collect(state, jax.random.key(20 + i)), jax.random.key(40 + i))
        rows.append(metrics)
    untrusted, returned = ([int(row[name]) for row in rows] for name in ("untrusted_models", "returned_controllers"))
    last = PATIENCE - 1  # what can not be improved is sampled again, and no more often than that
    assert min(untrusted[: last + 1]) >= 4
    assert sum(returned[:last]) == 0
    assert returned[last] >= 4
    assert sum(untrusted[last + 1 :]) <= 3
    assert value(guider.policy(state)) < 0.3 * bad
