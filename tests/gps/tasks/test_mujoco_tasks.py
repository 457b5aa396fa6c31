"""The catalogue's tasks on MuJoCo: that each is sound, starts where it says and knows success when it sees it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics.actuation import hold
from dynamics.simulator import physics_state
from gps.experiments.lookup import find
from gps.tasks.check import check_task
from gps.tasks.control_task import known_simulator
from gps.tasks.mujoco import arm, door, walker
from gps.tasks.mujoco.arm_reach import ArmReach, ArmReachSettings

SMOOTH = ("pendulum", "cartpole", "acrobot", "point-mass", "arm-reach")  # without contacts
NAMES = (*SMOOTH, "peg", "peg-blind", "peg-noisy", "pusher", "door", "walker")
IN_HOLE = jnp.array([0.0, -0.3356, 0.0, 1.6784, 0.0, 0.2279, 0.0])  # rad: the peg on the bottom of the middle hole


@functools.cache
def task_of(name, engine="mujoco"):
    entry = find("task", name)
    return entry.build(entry.settings, engine, name)


def start_of(task, context):
    return task.control_state(task.initial_state(jax.random.key(0), context))


@pytest.mark.parametrize("name", NAMES)
def test_the_check_finds_nothing(name):
    assert check_task(task_of(name)) == []


@pytest.mark.parametrize("name", SMOOTH)
def test_both_engines_agree(name):
    first, other = task_of(name), task_of(name, "mjx")
    state = np.asarray(first.initial_state(jax.random.key(1), first.train_contexts[0]))
    actions = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, first.nu)), jnp.float32)

    def along(task):
        step = jax.jit(task.simulator.step)
        return functools.reduce(step, actions, jnp.asarray(state))

    assert np.abs(np.asarray(along(first)) - state)[1:].max() > 0.01
    np.testing.assert_allclose(along(first), along(other), atol=2e-4)


# Success.


def still(task, x):
    return jnp.broadcast_to(x, (task.horizon + 1, task.nx)), jnp.zeros((task.horizon, task.nu))


def resting(context):
    return lambda task: (jnp.zeros(task.nx), jnp.asarray(context, jnp.float32))


def pointing(task):
    x = start_of(task, task.train_contexts[0])
    return x, task.position(x, "tip") + jnp.array([0.0, 0.01, 0.0])


def whole_turn(task):
    return jnp.zeros(task.nx).at[0 if task.name == "pendulum" else 1].set(2 * jnp.pi), task.train_contexts[0]


# x at which a task is solved, the context, and the score
SOLVED = {
    "pendulum": (whole_turn, 0.0),
    "cartpole": (whole_turn, 0.0),
    "acrobot": (resting([jnp.pi, 0, 0, 0]), 0.0),
    "point-mass": (lambda task: (jnp.array([0.9, 0.02, 0.0, 0.0]), jnp.array([0.9, 0.03])), 1.0),
    "arm-reach": (pointing, 1.0),
    "peg": (lambda task: (jnp.append(IN_HOLE, jnp.zeros(7)), jnp.array([0.0, 0.005])), 0.5),
    "pusher": (lambda task: (jnp.zeros(8).at[2].set(0.2), jnp.array([0.0, 0.3, 0.02])), 2.0),
    "door": (lambda task: (jnp.zeros(16).at[7].set(0.35), jnp.zeros(3)), np.degrees(0.35)),
}


@pytest.mark.parametrize("name", SOLVED)
def test_success_is_known_and_the_start_is_none(name):
    task, (solution, score) = task_of(name), SOLVED[name]
    x, context = solution(task)
    episode = *still(task, x), context
    assert task.solved(*episode)
    assert float(task.measure(*episode)) == pytest.approx(score, abs=0.02)
    start = *still(task, start_of(task, task.test_contexts[0])), task.test_contexts[0]
    assert not task.solved(*start)
    worse = task.measure(*start) < score if task.score.more_is_better else task.measure(*start) > score + 0.02
    assert worse


@pytest.mark.parametrize("name", sorted(set(SOLVED) - {"door"}))  # whose cost is also about a hand on the handle
def test_a_solved_state_costs_less_than_the_start(name):
    task = task_of(name)
    x, context = SOLVED[name][0](task)
    start = start_of(task, context) if name != "arm-reach" else start_of(task, context).at[0].add(0.2)
    u, t = jnp.zeros(task.nu), jnp.int32(task.horizon - 1)
    assert task.cost(x, u, t, context) < 0.7 * task.cost(start, u, t, context)


def test_guiders_may_be_given_a_model_that_is_off():
    arm, off = (ArmReach(ArmReachSettings(model_error=share), "mujoco") for share in (0.0, 0.3))
    assert known_simulator(arm) is arm.simulator
    given, true = known_simulator(off).model, off.simulator.model
    np.testing.assert_array_equal(true.body_mass, arm.simulator.model.body_mass)
    shares = np.concatenate([true.body_mass[1:] / given.body_mass[1:], true.dof_damping / given.dof_damping])
    np.testing.assert_allclose(np.abs(shares - 1.0), 0.3)
    np.testing.assert_allclose(np.abs(true.actuator_gainprm[:, 0] / given.actuator_gainprm[:, 0] - 1.0), 0.3)
    with pytest.raises(ValueError, match=r"model_error is a share, at least 0 and below 1, not 1.0"):
        ArmReachSettings(model_error=1.0)


@pytest.mark.parametrize(("fell", "went"), [(False, True), (True, True), (False, False)])
def test_a_walk_is_a_metre_without_a_fall(fell, went):
    task = task_of("walker")
    xs, us = still(task, jnp.zeros(task.nx))
    xs = xs.at[:, 0].set(jnp.linspace(0.5, 1.6 if went else 1.4, len(xs)))
    xs = xs.at[50, 1].set(walker.FALLEN - walker.HEIGHT - 0.01) if fell else xs
    assert bool(task.solved(xs, us, task.train_contexts[0])) == (went and not fell)
    assert float(task.measure(xs, us, task.train_contexts[0])) == pytest.approx(1.1 if went else 0.9, rel=1e-5)


def test_a_mass_that_goes_through_a_post_has_failed():
    task = task_of("point-mass")
    goal = jnp.array([0.9, 0.0])
    xs, us = still(task, jnp.append(goal, jnp.zeros(2)))
    assert task.solved(xs, us, goal)
    assert not task.solved(xs.at[20, :2].set(jnp.array([0.4, 0.12])), us, goal)
    np.testing.assert_allclose(task.clearance(jnp.array([0.4, 0.23, 0.0, 0.0]))[0], 0.1, atol=1e-5)


# Where things are.


@pytest.mark.parametrize(
    ("name", "angles", "tip"),
    [
        ("peg", arm.DOWN, (0.55, 0.0, 0.22)),
        ("peg", IN_HOLE, (0.55, 0.0, 0.02)),
        ("door", door.START, (0.675, 0.0, 0.47)),
    ],
)
def test_the_peg_points_down(name, angles, tip):
    model = task_of(name).simulator.model
    data = mujoco.MjData(model)
    data.qpos[:7] = angles
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.site("tip").xpos, tip, atol=1e-4)
    np.testing.assert_allclose(data.site("grip").xpos, np.add(tip, (0.0, 0.0, 0.2)), atol=1e-4)


def test_the_walker_starts_with_its_feet_on_the_ground():
    task = task_of("walker")
    data = mujoco.MjData(task.simulator.model)
    for context in task.train_contexts:
        data.qpos[:] = task.start(context)[0]
        mujoco.mj_forward(task.simulator.model, data)
        lowest = min(contact.dist for contact in data.contact)
        assert -0.03 < lowest < 0.01


def moved(task, context):
    """What MuJoCo says of a start, the mocap bodies moved."""
    model = task.simulator.model
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = task.start(context)
    data.mocap_pos[:] = task.mocap(context)
    mujoco.mj_forward(model, data)
    return data


def test_offsets_of_the_peg_are_from_the_hole_where_the_context_has_it():
    task, context = task_of("peg"), jnp.array([0.07, -0.04])
    data = moved(task, context)
    goal = data.site("goal").xpos
    found = task.offsets(jnp.append(jnp.asarray(arm.DOWN), jnp.zeros(7)), context)
    expected = [data.site("tip").xpos - goal, data.site("grip").xpos - goal - [0, 0, 0.2]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(task.bottom(context), goal, atol=1e-6)


def test_offsets_of_the_door_are_from_its_handle_where_the_context_has_it():
    task, context = task_of("door"), jnp.array([0.03, -0.04, 0.05])
    data = moved(task, context)
    qpos, qvel = task.start(context)
    tip = task.offsets(jnp.append(qpos, qvel), context)[0]
    np.testing.assert_allclose(tip, data.site("tip").xpos - data.site("hold").xpos, atol=1e-5)


def lowered(task, context):
    """Tip of the peg after it was pulled from above the middle hole to the pose on its bottom."""
    model = task.simulator.model
    about = hold(model, np.asarray(IN_HOLE, float), 6.0, task.dt)
    above = jnp.array([0.0, -0.5744, 0.0, 1.7771, 0.0, 0.3681, 0.0])  # tip at the hole's mouth, 0.12 m
    state = physics_state(model, above, jnp.zeros(7), (task.mocap(context), task.mocap_turns(context)))
    step, deviation = jax.jit(task.simulator.step), jnp.append(IN_HOLE, jnp.zeros(7))
    for _ in range(40):
        state = step(state, task.simulator.clip(about.action - about.K @ (task.control_state(state) - deviation)))
    return task.position(task.control_state(state), "tip")


def test_the_peg_goes_into_the_hole_and_is_stopped_beside_it():
    """The block is where the context has it: from 1.5 cm beside its hole, the peg stays on top."""
    task = task_of("peg")
    np.testing.assert_allclose(lowered(task, jnp.zeros(2)), (0.55, 0.0, 0.02), atol=0.005)
    assert lowered(task, jnp.array([0.0, 0.015]))[2] > 0.1
    assert lowered(task, jnp.array([-0.015, 0.0]))[2] > 0.1


# What learners see.


def test_a_blind_learner_sees_nothing_of_the_hole():
    blind, seeing = task_of("peg-blind"), task_of("peg")
    x, none = jnp.append(jnp.asarray(arm.DOWN), jnp.zeros(7)), jnp.zeros(0)
    contexts = jnp.array([[0.0, 0.0], [0.08, -0.05]])
    first, second = (np.asarray(blind.observe(x, context, none)) for context in contexts)
    np.testing.assert_array_equal(first, second)
    assert np.abs(seeing.observe(x, contexts[0], none) - seeing.observe(x, contexts[1], none)).max() > 0.05


def test_a_noisy_learner_sees_points_that_follow_from_noisy_angles():
    task, x = task_of("peg-noisy"), jnp.append(jnp.asarray(arm.DOWN), jnp.ones(7))
    noise, context = jnp.arange(7.0), jnp.array([0.02, 0.01])
    seen = task.observe(x, context, noise)
    turned = x.at[:7].add(0.01 * noise)
    np.testing.assert_allclose(seen[:7], turned[:7], rtol=1e-6)
    np.testing.assert_allclose(seen[9:12], task.position(turned, "tip") - task.bottom(context), atol=1e-6)
    assert seen.size == 15  # no velocities
    assert task.observation_size == 4 * 15
