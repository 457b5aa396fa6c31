"""PLATO on a cart: its plans against a dense linear-quadratic solution, its labels, and whom the teacher follows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles
from support.carts import Cart, slopes

from dynamics.mujoco_engine import MujocoSimulator
from dynamics.parameters import select
from gps.errors import UserError
from gps.guiders.learner import NetworkSettings
from gps.guiders.model_based.lookahead import Advice, Lookahead
from gps.guiders.model_based.plato import (
    EpisodesSettings,
    ImitatorSettings,
    LookaheadSettings,
    Plato,
    PlatoSettings,
)
from gps.guiders.model_based.start import StartSettings
from policies import regression

T = 8


class Driven(Cart):
    """Linear dynamics and a quadratic cost, whose actions stay inside their limits."""

    start_noise = 0.0

    def cost(self, x, u, t, context):
        return (x[0] - 0.2 * context[0]) ** 2 + 0.1 * x[1] ** 2 + 0.3 * (u @ u)


def settings(**lookahead):
    return PlatoSettings(
        StartSettings("zero"),
        EpisodesSettings(samples=2, kept=2, std=0.05),
        LookaheadSettings(**lookahead),
        ImitatorSettings(NetworkSettings(hidden=(8,)), regression.Settings(updates=50)),
    )


@pytest.fixture(scope="module")
def task():
    return Driven(horizon=T)


@pytest.fixture(scope="module")
def linear(task):
    """A and B of one action."""
    A, B, _ = slopes(task)
    return A, B


def best_actions(linear, x, goal, steps):
    """Of the quadratic cost above over so many steps, by one dense least-squares problem."""
    A, B = linear
    free = [np.linalg.matrix_power(A, t) @ x for t in range(steps)]
    forced = np.zeros((steps, 2, steps))
    for t in range(steps):
        for s in range(t):
            forced[t, :, s : s + 1] = np.linalg.matrix_power(A, t - s - 1) @ B
    weights = np.sqrt([1.0, 0.1])
    rows = (weights[:, None] * forced).reshape(-1, steps)
    wanted = (weights * (np.array([goal, 0.0]) - free)).reshape(-1)
    system = np.concatenate([rows, np.sqrt(0.3) * np.eye(steps)])
    return np.linalg.lstsq(system, np.concatenate([wanted, np.zeros(steps)]), rcond=None)[0]


@pytest.fixture(scope="module")
def collected(task):
    """Two iterations of a teacher that plans at every step, alone and then close to what it has taught."""
    guider = Plato(task, settings(every=1, closeness=1e6))
    collect, update = jax.jit(guider.collect), jax.jit(guider.update)
    states, batches = [jax.jit(guider.init)(jax.random.key(0))], []
    for i in range(3):
        batches.append(collect(states[-1], jax.random.key(2 * i)))
        state, metrics = update(states[-1], batches[-1], jax.random.key(2 * i + 1))
        states.append(state)
    return guider, states, batches, metrics


def test_labels_are_the_best_actions_from_the_states_that_were_visited(collected, task, linear):
    """At each step the first of a whole horizon of actions; the last stage goes on beyond the episode's end."""
    _, _, batches, _ = collected
    for batch in batches[:2]:
        xs, labels = np.asarray(batch.samples.xs, float), np.asarray(batch.labels)
        for m, n, t in ((0, 0, 0), (1, 1, 3), (3, 0, T - 1)):
            goal = 0.2 * float(task.train_contexts[m, 0])
            expected = best_actions(linear, xs[m, n, t], goal, T)[0]
            assert abs(expected) < 1.0
            np.testing.assert_allclose(labels[m, n, t, 0], expected, rtol=2e-3, atol=2e-4)


def test_feedback_between_plans_is_that_of_the_regulator(task, linear):
    """Two actions after the plan was made, from another state: what a plan from there would do."""
    guider = Plato(task, settings())
    look = Lookahead(task, guider.model.dynamics, horizon=T, every=4, iterations=2, std=0.1)
    x, context = jnp.array([0.3, -0.2]), task.train_contexts[1]
    nominal = jax.tree.map(lambda a: a[1], guider.init(jax.random.key(0)).nominal)
    found = jax.jit(
        lambda: look.plan(look.begin(nominal), nominal, x, (context, jnp.asarray(0), ()), jnp.asarray(True))
    )
    plan, sound = found()
    assert sound
    moved = np.array([0.25, 0.1])
    advice = look.advise(plan, jnp.asarray(2), jnp.asarray(moved))
    expected = best_actions(linear, moved, 0.2 * float(context[0]), T - 2)[0]
    np.testing.assert_allclose(advice.mean[0], expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(advice.chol, [[0.1]], rtol=1e-5)


def test_the_teacher_acts_alone_and_then_as_its_learner_where_that_is_all_that_counts(collected):
    guider, states, batches, metrics = collected
    alone, close = batches[0], batches[2]
    deviation = np.asarray(alone.samples.us - alone.labels)
    assert 0.03 < deviation.std() < 0.07  # its noise, 0.05
    policy = guider.policy(states[2])
    imitated = jax.vmap(jax.vmap(jax.vmap(policy.mean)))(close.samples.observations)
    std = float(policy.moments(policy.start_memory(), close.samples.observations[0, 0, 0])[2][0])
    deviation = np.asarray(close.samples.us - imitated)
    assert abs(deviation.mean()) < 0.4 * std
    assert 0.7 < deviation.std() / std < 1.3  # the learner's own noise
    assert metrics["kl_to_learner"].max() < 1e-2
    assert metrics["failed_plans"] == 0


def test_the_divergence_is_from_a_learner_that_remembers_the_episode(task):
    """Recomputed from what was recorded; of a learner that forgets at each step it would be another."""
    recurrent = ImitatorSettings(NetworkSettings(hidden=(8,), memory=4), regression.Settings(updates=50))
    guider = Plato(task, dataclasses.replace(settings(every=4, closeness=0.0), learner=recurrent))
    collect, state = jax.jit(guider.collect), jax.jit(guider.init)(jax.random.key(0))
    state, _ = jax.jit(guider.update)(state, collect(state, jax.random.key(1)), jax.random.key(2))
    batch = collect(state, jax.random.key(3))
    policy = guider.policy(state)

    def expected(observations):
        mean, std = policy.distribution.action_moments(policy.along(observations))
        parts = batch.labels, 1.0 / batch.precisions, mean.reshape(batch.labels.shape), std.reshape(batch.labels.shape)
        rows = zip(*(np.asarray(part, float).reshape(-1, 1) for part in parts), strict=True)
        kl = [oracles.gaussian_kl(u, S[:, None], m, s[:, None] ** 2) for u, S, m, s in rows]
        return np.reshape(kl, batch.labels.shape[:3]).mean(-1)

    observations = batch.samples.observations
    np.testing.assert_allclose(batch.kl, expected(observations), rtol=1e-3)
    assert np.abs(expected(observations[..., None, :]) / np.asarray(batch.kl) - 1.0).max() > 5e-3


def test_the_last_iterations_are_kept(collected):
    _, states, batches, _ = collected
    assert [float(state.kept.samples.weights.sum()) for state in states] == [0, 8, 16, 16]
    np.testing.assert_array_equal(states[-1].kept.labels[:, :2], batches[1].labels)
    np.testing.assert_array_equal(states[-1].kept.labels[:, 2:], batches[2].labels)


def test_plans_follow_the_parameters_that_are_identified(task, linear):
    """The known cart is pushed too weakly: so are the first plans, and no others."""
    model = task.simulator.model
    weak = select(model, ["actuator_gain:push"]).adjusted(model, np.log([0.7]))
    wrong = Driven(horizon=T, known=MujocoSimulator(weak, task.simulator.substeps))
    guider = Plato(wrong, settings(every=1, model="identified"))
    collect, update = jax.jit(guider.collect), jax.jit(guider.update)
    state, errors = jax.jit(guider.init)(jax.random.key(0)), []
    for i in range(2):
        batch = collect(state, jax.random.key(i))
        x, goal = np.asarray(batch.samples.xs[0, 0, 2], float), 0.2 * float(task.train_contexts[0, 0])
        errors.append(float(batch.labels[0, 0, 2, 0]) / best_actions(linear, x, goal, T)[0] - 1.0)
        state, _ = update(state, batch, jax.random.key(i))
    assert abs(errors[0]) > 0.05
    assert abs(errors[1]) < 2e-3


def test_plans_follow_a_network_that_has_seen_the_episodes(task, linear):
    """The teacher holds still at first; the network learns from those episodes, and the learner forgets them."""
    guider = Plato(task, settings(every=1, model="neural", closeness=0.0))
    collect, update = jax.jit(guider.collect), jax.jit(guider.update)
    state, batches = jax.jit(guider.init)(jax.random.key(0)), []
    for i in range(3):
        batches.append(collect(state, jax.random.key(i)))
        state, _ = update(state, batches[-1], jax.random.key(i))
        assert [float(weight) for weight in state.kept.samples.weights.sum(0)] == [[0] * 4, [0, 0, 4, 4], [4] * 4][i]
    np.testing.assert_array_equal(batches[0].labels, 0.0)
    assert all(batch.failed.sum() == 0 for batch in batches)
    labels, expected = [], []
    for m, n, t in ((0, 0, 0), (1, 1, 3), (2, 0, 1), (3, 0, 5)):
        goal = 0.2 * float(task.train_contexts[m, 0])
        labels.append(float(batches[2].labels[m, n, t, 0]))
        expected.append(best_actions(linear, np.asarray(batches[2].samples.xs[m, n, t], float), goal, T)[0])
    np.testing.assert_allclose(labels, expected, atol=0.1 * np.abs(expected).max())


def test_the_teacher_close_to_the_learner_minimises_both_divergences():
    """Against the divergences, written out in float64, of Gaussians around it."""
    rng = np.random.default_rng(0)
    factor, mean, other, std, weight = (
        rng.normal(size=(3, 3)),
        rng.normal(size=3),
        rng.normal(size=3),
        [0.4, 1.0, 2.0],
        0.7,
    )
    S = 0.2 * factor @ factor.T + 0.1 * np.eye(3)
    with jax.enable_x64():
        near = Advice(jnp.asarray(mean), jnp.linalg.cholesky(S)).closer_to(jnp.asarray(other), jnp.asarray(std), weight)

    def objective(m, L):
        ours = m, L @ L.T
        learner = oracles.gaussian_kl(*ours, other, np.diag(np.square(std)))
        return oracles.gaussian_kl(*ours, mean, S) + weight * learner

    m, L = np.asarray(near.mean), np.asarray(near.chol)
    for _ in range(50):
        step = 1e-3 * rng.normal(size=(3, 4))
        assert objective(m + step[:, 0], L + np.tril(step[:, 1:])) >= objective(m, L)


@pytest.mark.parametrize(
    ("lookahead", "message"),
    [
        ({"horizon": 20}, "guider.lookahead.horizon = 20 looks beyond the end of cart, which has 8 actions"),
        ({"horizon": 4, "every": 6}, "guider.lookahead.every = 6: a plan of 4 actions ends before the next"),
    ],
)
def test_plans_that_do_not_fit_are_refused(task, lookahead, message):
    with pytest.raises(UserError, match=message):
        Plato(task, settings(**lookahead))


def test_a_network_in_place_of_the_model_does_not_start_from_the_model(task):
    given = dataclasses.replace(settings(model="neural"), start=StartSettings("ilqr"))
    with pytest.raises(UserError, match=r"guider.start.controller = 'ilqr' plans on the known model"):
        Plato(task, given)


def test_a_task_that_can_not_be_planned_on_is_refused():
    task = Cart()
    task.control_state = lambda state: state[1:2]
    with pytest.raises(
        UserError, match=r"model = 'known': 'plato' plans on the task's model, and .*another `control_s"
    ):
        Plato(task, settings())
