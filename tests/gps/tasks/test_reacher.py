"""The reaching task: its targets, its geometry, its cost, its episodes, and the noise in what the learner sees."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics.rollout import rollout
from gps.guiders.learner import NetworkSettings
from gps.guiders.model_based.badmm import BadmmSettings, badmm
from gps.guiders.model_based.settings import SamplingSettings, TaughtLearnerSettings
from gps.guiders.model_based.start import StartSettings
from gps.tasks.control_task import episode_cost
from gps.tasks.mujoco.reacher import PARTIAL, START, Reacher, ReacherSettings, draw_apart, sunflower

HORIZON = 7

TASK = Reacher(ReacherSettings(horizon=HORIZON, train_targets=5, test_targets=4), "mujoco")
PARTIAL_TASK = Reacher(dataclasses.replace(PARTIAL, horizon=20, train_targets=8, test_targets=4), "mujoco")

# Targets.


def test_targets_lie_in_the_ring_and_the_test_targets_are_new():
    task = Reacher(ReacherSettings(train_targets=16, test_targets=200, ring=(0.05, 0.19)))
    training, testing = np.asarray(task.train_contexts), np.asarray(task.test_contexts)
    assert (len(training), len(testing)) == (16, 200)
    for targets in (training, testing):
        radii = np.linalg.norm(targets, axis=1)
        assert 0.05 <= radii.min() < 0.08
        assert 0.17 < radii.max() <= 0.19
    apart = np.linalg.norm(training[:, None] - testing, axis=-1).min()
    assert 0.005 < apart < 0.02
    same = np.linalg.norm(testing[:, None] - testing, axis=-1) + np.eye(200)
    assert same.min() > 0  # no test target twice


def test_targets_are_always_the_same():
    """Whatever the engine, the horizon or the noise: runs with different settings can be compared."""
    one, other = Reacher(ReacherSettings(), "mujoco"), Reacher(dataclasses.replace(PARTIAL, horizon=9), "mjx")
    np.testing.assert_array_equal(one.train_contexts, other.train_contexts)
    np.testing.assert_array_equal(one.test_contexts, other.test_contexts)


def test_targets_are_spread_evenly_over_the_ring():
    inner, outer = ring = (0.05, 0.15)
    halfway = np.sqrt((inner**2 + outer**2) / 2)  # halves the ring's area
    for points in (sunflower(400, ring), draw_apart(400, ring, np.zeros((1, 2)))):
        assert abs((np.linalg.norm(points, axis=1) < halfway).sum() - 200) < 40
        angles = np.arctan2(points[:, 1], points[:, 0])
        assert np.abs(np.histogram(angles, 4, (-np.pi, np.pi))[0] - 100).max() < 30


# Geometry.


def test_the_skeleton_is_where_mujoco_has_the_bodies():
    model, rng = TASK.simulator.model, np.random.default_rng(0)
    data = mujoco.MjData(model)
    for x in rng.uniform(-4, 4, size=(20, 4)):
        data.qpos[:] = x[:2]
        mujoco.mj_kinematics(model, data)
        places = [data.body("upper").xpos, data.body("lower").xpos, data.site("fingertip").xpos]
        np.testing.assert_allclose(TASK.skeleton(jnp.asarray(x, jnp.float32)), places, atol=1e-6)
        np.testing.assert_allclose(TASK.point(jnp.asarray(x, jnp.float32)), places[2][:2], atol=1e-6)
        np.testing.assert_allclose([place[2] for place in places], 0.0, atol=1e-12)  # nothing leaves the plane


def test_the_score_is_the_distance_over_the_last_ten_steps_in_centimetres():
    rng = np.random.default_rng(3)
    xs = jnp.asarray(rng.uniform(-2, 2, (15, 4)), jnp.float32)
    context = jnp.array([0.05, -0.12])
    tips = np.stack([TASK.point(x) for x in xs])
    expected = 100 * np.linalg.norm(tips[-10:] - np.asarray(context), axis=1).mean()
    us = jnp.zeros((14, 2))
    np.testing.assert_allclose(TASK.measure(xs, us, context), expected, rtol=1e-5)
    assert not TASK.solved(xs, us, context)
    near = jnp.broadcast_to(xs[0], xs.shape)
    for away, solved in ((0.019, True), (0.021, False)):
        assert TASK.solved(near, us, TASK.point(xs[0]) + jnp.array([away, 0.0])) == solved
    # an episode of fewer steps than ten: all but its start, which no policy has a say in
    expected = 100 * np.linalg.norm(tips[1:5] - np.asarray(context), axis=1).mean()
    np.testing.assert_allclose(TASK.measure(xs[:5], us[:4], context), expected, rtol=1e-5)


def test_the_learner_sees_the_same_when_the_whole_scene_is_turned():
    """Frames are in the upper arm's coordinates; the privileged observation is in the world's."""
    x, context, angle = jnp.array([0.4, 1.3, -2.0, 3.0]), jnp.array([0.05, -0.12]), 2.1
    cos, sin = np.cos(angle), np.sin(angle)
    turned_x, turned = x.at[0].add(angle), jnp.asarray([[cos, -sin], [sin, cos]], jnp.float32) @ context
    frame = TASK.observe(x, context, jnp.zeros(0))
    np.testing.assert_allclose(TASK.observe(turned_x, turned, jnp.zeros(0)), frame, atol=1e-6)
    assert np.abs(TASK.observe(turned_x, context, jnp.zeros(0)) - frame).max() > 0.05
    assert np.abs(TASK.privileged(turned_x, turned) - TASK.privileged(x, context)).max() > 0.05
    # upper arm along the x axis: its coordinates are the world's
    straight = TASK.observe(x.at[0].set(0.0), context, jnp.zeros(0))
    tip = np.array([0.1 + 0.11 * np.cos(1.3), 0.11 * np.sin(1.3)])
    expected = [np.cos(1.3), np.sin(1.3), *context, *(tip - np.asarray(context)), -2.0, 3.0]
    np.testing.assert_allclose(straight, expected, atol=1e-6)


# Cost.


@pytest.mark.parametrize("changes", [{}, {"velocity_weight": 0.2, "distance_weight": 3.0}])
def test_derivatives_of_the_cost_are_those_of_finite_differences(changes):
    rng, h = np.random.default_rng(1), 1e-5
    with jax.enable_x64(True):
        task = Reacher(ReacherSettings(**changes))
        context = jnp.array([0.07, 0.11])

        def cost(z):
            return task.cost(z[:4], z[4:], 3, context) + 2.0 * task.final_cost(z[:4], context)

        gradient, hessian = jax.jit(jax.grad(cost)), jax.jit(jax.hessian(cost))
        for z in rng.uniform(-2, 2, size=(5, 6)):
            steps = h * np.eye(6)
            differences = [(float(cost(z + e)) - float(cost(z - e))) / (2 * h) for e in steps]
            np.testing.assert_allclose(gradient(z), differences, rtol=1e-6, atol=1e-6)
            second = [(gradient(z + e) - gradient(z - e)) / (2 * h) for e in steps]
            np.testing.assert_allclose(hessian(z), second, rtol=1e-5, atol=1e-5)
            assert gradient(z).dtype == jnp.float64


def test_the_cost_is_least_at_the_target_and_counts_every_action():
    x = jnp.array([0.3, 1.1, 0.0, 0.0])
    tip = TASK.point(x)
    away = [float(TASK.final_cost(x, tip + jnp.array([d, 0.0]))) for d in (0.0, 0.001, 0.01, 0.1, 0.2)]
    assert away[0] == pytest.approx(0.0, abs=1e-6)
    assert (np.diff(away) > 0).all()
    still = TASK.cost(x, jnp.zeros(2), 0, tip)
    dear = [TASK.cost(x, u, 0, tip) - still for u in (jnp.array([0.5, 0.0]), jnp.array([0.0, 0.5]), jnp.full(2, 0.5))]
    assert dear[0] > 0
    np.testing.assert_allclose([dear[1], dear[2]], [dear[0], 2 * dear[0]], rtol=1e-4)


# Episodes.


@pytest.mark.parametrize("engine", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
def test_an_episode_by_hand_is_a_rollout_with_the_same_actions(engine):
    """And both are what MuJoCo's own loop does; rewards are negative costs, the terminal cost among the last."""
    task = Reacher(TASK.settings, engine)
    actions = np.random.default_rng(2).uniform(-1.5, 1.5, size=(HORIZON, 2)).astype(np.float32)  # some are clipped
    reset, step = jax.jit(task.reset), jax.jit(task.step)
    state = reset(jax.random.key(4))
    context = state.data["context"]
    states, rewards, dones = [state.data["state"]], [], []
    assert (state.reward, state.done) == (0, 0)
    assert context.tolist() in task.train_contexts.tolist()
    for action in actions:
        state = step(state, action)
        states.append(state.data["state"])
        rewards.append(float(state.reward))
        dones.append(float(state.done))
    assert dones == [0.0] * (HORIZON - 1) + [1.0]

    trajectory = jax.jit(lambda s, us: rollout(task.simulator, lambda m, t, s, u: (m, u), s, us))(states[0], actions)
    np.testing.assert_allclose(trajectory.states, states, rtol=1e-6, atol=1e-6)
    xs = trajectory.states[:, 1:5]
    np.testing.assert_array_equal(trajectory.actions, actions.clip(-1.0, 1.0))
    total = episode_cost(task, xs, trajectory.actions, context)
    assert sum(rewards) == pytest.approx(-float(total), rel=1e-5)
    for t in range(HORIZON):
        applied = trajectory.actions[t]
        cost = task.cost(xs[t], applied, t, context) + (t == HORIZON - 1) * task.final_cost(xs[-1], context)
        assert rewards[t] == pytest.approx(-float(cost), rel=1e-5)

    data = mujoco.MjData(task.simulator.model)
    data.qpos[:], data.qvel[:] = states[0][1:3], states[0][3:5]
    for t, action in enumerate(actions):
        data.ctrl[:] = np.clip(action, -1, 1)
        for _ in range(5):
            mujoco.mj_step(task.simulator.model, data)
        np.testing.assert_allclose(states[t + 1], [data.time, *data.qpos, *data.qvel], rtol=1e-4, atol=1e-4)
    assert data.time == pytest.approx(HORIZON * task.dt)


def test_observations_of_an_episode_are_of_its_states():
    reset, step = jax.jit(TASK.reset), jax.jit(TASK.step)
    state = reset(jax.random.key(1))
    for _ in range(3):
        x, context = state.data["state"][1:5], state.data["context"]
        np.testing.assert_allclose(state.obs["state"], TASK.observe(x, context, jnp.zeros(0)), atol=1e-6)
        np.testing.assert_allclose(state.obs["privileged_state"], TASK.privileged(x, context), atol=1e-6)
        state = step(state, jnp.array([0.8, -0.5]))


def test_episodes_start_for_all_training_targets():
    contexts = jax.jit(jax.vmap(lambda key: TASK.reset(key).data["context"]))(jax.random.split(jax.random.key(0), 500))
    drawn, counts = np.unique(np.asarray(contexts), axis=0, return_counts=True)
    np.testing.assert_array_equal(drawn, np.unique(np.asarray(TASK.train_contexts), axis=0))
    assert np.abs(counts - 100).max() < 40


def test_starts_are_noisy_in_pose_and_velocity_alike():
    states = jax.vmap(TASK.initial_state, in_axes=(0, None))(jax.random.split(jax.random.key(3), 4000), jnp.zeros(2))
    assert not np.any(states[:, 0])  # time
    deviations = np.asarray(states[:, 1:5]) - [*START, 0.0, 0.0]
    covariance = np.cov(deviations.T) / 0.02**2
    np.testing.assert_allclose(covariance, np.eye(4), atol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(deviations.mean(0), 0.0, atol=5 * 0.02 / np.sqrt(4000))


# What the partially observed variant hides.


def test_the_partial_variant_hides_velocities_and_turns_angles_by_its_noise():
    x, context, noise = jnp.array([0.4, 1.3, -2.0, 3.0]), jnp.array([0.05, -0.12]), jnp.array([1.5, -0.5])
    frame = PARTIAL_TASK.observe(x, context, noise)
    assert frame.shape == (PARTIAL_TASK.frame_size,)
    for velocities in ([0.0, 0.0], [9.0, -7.0]):
        np.testing.assert_array_equal(PARTIAL_TASK.observe(x.at[2:].set(jnp.array(velocities)), context, noise), frame)
        assert np.any(TASK.observe(x.at[2:].set(jnp.array(velocities)), context, jnp.zeros(0))[6:] != x[2:])
    turned = TASK.observe(x + jnp.array([0.015, -0.005, 0.0, 0.0]), context, jnp.zeros(0))
    np.testing.assert_allclose(frame, turned[:6], atol=1e-6)
    assert PARTIAL_TASK.privileged(x, context)[-2:].tolist() == [-2.0, 3.0]


def angle_errors(frames: np.ndarray, xs: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """What noise moved the learner's joint angles, from its frames (... 6), the states and the targets."""
    elbow = np.arctan2(frames[..., 1], frames[..., 0]) - xs[..., 1]
    seen = np.arctan2(frames[..., 3], frames[..., 2])  # of the target in the upper arm's coordinates
    shoulder = np.arctan2(contexts[..., 1], contexts[..., 0]) - seen - xs[..., 0]
    return (np.stack([shoulder, elbow], axis=-1) + np.pi) % (2 * np.pi) - np.pi


def assert_independent(errors: np.ndarray, others: np.ndarray):
    """Columns are uncorrelated with one another, with those of `others`, and from row to row."""
    rows, columns = errors.shape
    both = np.corrcoef(np.concatenate([errors, others], axis=1).T)[:columns] - np.eye(
        columns, columns + others.shape[1]
    )
    assert np.abs(both).max() < 6 / np.sqrt(rows)
    assert abs(np.corrcoef(errors[:-1].ravel(), errors[1:].ravel())[0, 1]) < 5 / np.sqrt(errors.size)


def test_noise_in_collected_samples_is_independent():
    """Over joints, time steps, samples and conditions, and of the start pose and the exploration."""
    samples = 40
    learner = TaughtLearnerSettings(network=NetworkSettings(hidden=(4,)))
    start = StartSettings(controller="zero")  # without feedback, so that actions are exploration alone
    settings = BadmmSettings(sampling=SamplingSettings(samples=samples), start=start, learner=learner)
    guider = badmm(PARTIAL_TASK, settings)
    collected = jax.jit(guider.collect)(guider.init(jax.random.key(0)), jax.random.key(1))
    xs, observations = np.asarray(collected.xs), np.asarray(collected.observations)
    M, T = 8, 20
    assert observations.shape == (M, samples, T, 6 * 6)
    contexts = np.asarray(PARTIAL_TASK.train_contexts)[:, None, None]
    errors = angle_errors(observations[..., -6:], xs[:, :, :-1], contexts)
    np.testing.assert_allclose(errors.std((0, 1, 2)), 0.01, rtol=0.03)
    np.testing.assert_allclose(errors.mean((0, 1, 2)), 0.0, atol=5 * 0.01 / np.sqrt(M * samples * T))
    starts = xs[:, :, 0].reshape(M * samples, 4)
    actions = np.asarray(collected.us).reshape(M * samples, T * 2)
    # a row is a sample, its columns are the errors of its steps and joints
    assert_independent(errors.reshape(M * samples, T * 2), np.concatenate([starts, actions], axis=1))
    assert_independent(actions, starts)
    # the learner is shown the last six frames, each with the noise that it had when it was new
    for back in range(1, 6):
        older = observations[:, :, back:, 6 * (5 - back) : 6 * (6 - back)]
        np.testing.assert_array_equal(older, observations[:, :, :-back, -6:])


def test_noise_in_an_episode_is_independent():
    """Of the environment's own steps: a key that is used twice shows here."""
    episodes, steps = 400, 6

    def episode(key):
        state = PARTIAL_TASK.reset(key)

        def step(state, _):
            following = PARTIAL_TASK.step(state, jnp.zeros(2))
            return following, (following.obs["state"], following.data["state"])

        _, (observations, states) = jax.lax.scan(step, state, None, length=steps)
        first = (state.obs["state"], state.data["state"])
        return (*first, observations, states, state.data["context"])

    keys = jax.random.split(jax.random.key(7), episodes)
    first, start, observations, states, contexts = map(np.asarray, jax.jit(jax.vmap(episode))(keys))
    assert np.array_equal(first, np.tile(first[:, -6:], 6))  # before the first frame, the first one stands in
    np.testing.assert_array_equal(observations[:, 1:, :-6], observations[:, :-1, 6:])
    frames = np.concatenate([first[:, None, -6:], observations[:, :, -6:]], axis=1)
    xs = np.concatenate([start[:, None], states], axis=1)[:, :, 1:5]
    errors = angle_errors(frames, xs, contexts[:, None])
    np.testing.assert_allclose(errors.std((0, 1)), 0.01, rtol=0.06)
    assert_independent(errors.reshape(episodes, -1), start[:, 1:5])
