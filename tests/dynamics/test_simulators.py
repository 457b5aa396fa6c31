"""Both engines against MuJoCo called directly, against each other, and with states that no engine can digest."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dynamics.engines import make_simulator, resolve_engine
from dynamics.mujoco_engine import MujocoSimulator
from dynamics.simulator import physics_state

T = 50
ENGINES = ["mujoco", "mjx"]


def torques():
    """Some of them beyond the control range of -1 to 1."""
    return np.random.default_rng(0).uniform(-1.5, 1.5, (T, 2))


def start():
    return np.array([0.0, 0.3, 1.6, -0.5, 1.0])


def by_hand(model, state, actions, substeps):
    """States after each action, by mj_step alone."""
    data = mujoco.MjData(model)
    data.time = state[0]
    data.qpos[:], data.qvel[:], data.act[:] = np.split(state[1:], [model.nq, model.nq + model.nv])
    states = []
    for action in actions:
        data.ctrl[:] = action
        for _ in range(substeps):
            mujoco.mj_step(model, data)
        states.append(np.concatenate([[data.time], data.qpos, data.qvel, data.act]))
    return np.stack(states)


def along(simulator, state, actions):
    """States after each action, in one program."""

    def step(state, action):
        following = simulator.step(state, action)
        return following, following

    return np.asarray(jax.jit(lambda s, a: jax.lax.scan(step, s, a)[1])(jnp.asarray(state), jnp.asarray(actions)))


@pytest.fixture(scope="module")
def trajectories(arms):
    """50 steps with random torques: by mj_step, and by each engine in single precision inside one scan."""
    arm = arms["mujoco"].simulator
    direct = by_hand(arm.model, start(), torques(), arm.substeps)
    return direct, {name: along(arms[name].simulator, start(), torques()) for name in ENGINES}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rollout_is_what_mujoco_computes(trajectories, engine):
    """The engine in C rounds 50 states to single precision, MJX computes 250 physics steps in it.

    Velocities of 5 rad/s are rounded to 5e-7, and this damped arm lets errors decay: what was seen is 2e-6, and
    ten times that is the tolerance.
    """
    direct, ours = trajectories
    assert np.abs(direct[:, 3:]).max() > 5.0  # the arm moves fast enough for its links to couple
    np.testing.assert_allclose(ours[engine], direct, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize(("engine", "tolerance"), [("mujoco", 0.0), ("mjx", 1e-12)])
def test_in_double_precision_a_rollout_is_what_mujoco_computes_to_rounding(arms, engine, tolerance):
    with jax.enable_x64(True):
        simulator = make_simulator(arms[engine].simulator.model, 5, engine)
        ours = along(simulator, start(), torques())
    direct = by_hand(simulator.model, start(), torques(), 5)
    np.testing.assert_allclose(ours, direct, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("engine", ENGINES)
def test_actuators_with_a_state_and_without_limits(actuated, engine):
    """The state has an activation at its end, and only the limited actuator is clipped."""
    model = mujoco.MjModel.from_xml_string(actuated)
    actions = np.random.default_rng(1).uniform(-3.0, 3.0, (10, 2))
    state = np.asarray(physics_state(model, jnp.array([0.1, -0.2]), jnp.array([0.3, 0.4])))
    np.testing.assert_allclose(state, [0.0, 0.1, -0.2, 0.3, 0.4, 0.0], rtol=1e-6)
    ours = along(make_simulator(model, 2, engine), state, actions)
    np.testing.assert_allclose(ours, by_hand(model, state.astype(float), actions, 2), atol=1e-5)
    assert np.abs(ours[:, 5]).max() > 0.01
    np.testing.assert_array_equal(make_simulator(model, 2, engine).clip(jnp.array([-5.0, -5.0])), [-1.0, -5.0])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_fingertip_sensor_is_forward_kinematics_or_nan(arms, engine):
    """Of a state that has diverged nothing can be sensed."""
    arm = arms[engine]
    xs = np.random.default_rng(2).uniform(-4.0, 4.0, (20, 4))
    states = jnp.asarray(np.concatenate([np.zeros((20, 1)), xs], axis=1), jnp.float32)
    states = states.at[7].set(BROKEN["not a number"][0]).at[11].set(BROKEN["huge"][0])
    seen = np.asarray(jax.jit(jax.vmap(arm.simulator.sensors))(states))
    expected = np.concatenate([jax.vmap(arm.point)(states[:, 1:]), np.zeros((20, 1))], axis=1)
    expected[[7, 11]] = np.nan
    np.testing.assert_allclose(seen, expected, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_actions_are_clipped_to_the_control_range(arms, steps, engine):
    state = jnp.asarray(start(), jnp.float32)
    one = steps[0][engine]
    inside = one(state, jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(one(state, jnp.array([7.0, -1.01])), inside)
    assert np.abs(one(state, jnp.array([0.9, -1.0])) - inside).max() > 1e-3
    np.testing.assert_array_equal(arms[engine].simulator.clip(jnp.array([7.0, -0.4])), jnp.array([1.0, -0.4]))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_action_is_held_for_all_substeps(arms, steps, engine):
    """Five physics steps of 0.01 s are 0.05 s."""
    simulator = make_simulator(arms["mujoco"].simulator.model, 1, "mujoco")
    state, action = jnp.asarray(start(), jnp.float32), jnp.asarray(torques()[0], jnp.float32)
    fine = along(simulator, state, np.repeat(action[None], 5, axis=0))
    np.testing.assert_allclose(fine[:, 0], [0.01, 0.02, 0.03, 0.04, 0.05], rtol=1e-5)
    np.testing.assert_allclose(steps[0][engine](state, action), fine[-1], atol=2e-6)


@pytest.mark.parametrize(("engine", "tolerance"), [("mujoco", 0.0), ("mjx", 1e-6)])
def test_a_batch_of_batches_is_its_members(steps, engine, tolerance):
    rng = np.random.default_rng(3)
    states = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32).at[..., 0].set(0.0)
    actions = jnp.asarray(rng.uniform(-1, 1, (2, 3, 2)), jnp.float32)
    one, many = steps[0][engine], steps[1][engine](states, actions)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(many[i, j], one(states[i, j], actions[i, j]), atol=tolerance)


def test_a_batch_of_actions_from_one_state_is_its_members(arms, steps):
    """The callback is given a state without the batch axis that the actions have."""
    state, actions = jnp.asarray(start(), jnp.float32), jnp.asarray(torques()[:3], jnp.float32)
    many = jax.jit(jax.vmap(arms["mujoco"].simulator.step, in_axes=(None, 0)))(state, actions)
    np.testing.assert_array_equal(many, [steps[0]["mujoco"](state, action) for action in actions])


BROKEN = {
    "not a number": (np.array([0.0, 0.3, np.nan, 0.0, 0.0]), np.zeros(2)),
    "infinite": (np.array([0.0, 0.3, 1.6, np.inf, 0.0]), np.zeros(2)),
    "huge": (np.array([0.0, 0.3, 1.6, 0.0, -2e6]), np.zeros(2)),
    "beyond the limit, on its way back": (np.array([0.0, 1e6 + 1.0, 1.6, -100.0, 0.0]), np.zeros(2)),
    "action not a number": (start(), np.array([0.0, np.nan])),
    "too fast for the engine": (np.array([0.0, 0.3, 1.6, 3e5, 0.0]), np.zeros(2)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", BROKEN)
def test_a_diverged_member_is_nan_from_there_on_and_alone(steps, engine, what, capfd, tmp_path, monkeypatch):
    """MuJoCo itself would start again from its initial state, print a warning, and write MUJOCO_LOG.TXT."""
    monkeypatch.chdir(tmp_path)
    states = jnp.asarray(np.tile(start(), (2, 3, 1)), jnp.float32)
    actions = jnp.asarray(torques()[:6].reshape(2, 3, 2), jnp.float32)
    sound = np.asarray(steps[1][engine](states, actions))
    broken_state, broken_action = BROKEN[what]
    states, actions = states.at[1, 0].set(broken_state), actions.at[1, 0].set(broken_action)
    after = steps[1][engine](states, actions)
    again = np.asarray(steps[1][engine](after, jnp.zeros((2, 3, 2))))
    after = np.asarray(after)
    others = np.array([[True, True, True], [False, True, True]])
    assert np.isnan(after[1, 0]).all()
    assert np.isnan(again[1, 0]).all()
    np.testing.assert_array_equal(after[others], sound[others])
    assert np.isfinite(again[others]).all()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_a_simulation_that_mujoco_breaks_off_is_nan(arms):
    """It stops at an acceleration of 1e10; with a timestep this small the state is still within its limit then."""
    model = copy.deepcopy(arms["mujoco"].simulator.model)
    model.opt.timestep = 1e-6
    state = jnp.array([0.0, 0.0, 1.6, 3e5, 0.0])
    assert np.isnan(make_simulator(model, 5, "mujoco").step(state, jnp.zeros(2))).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_users_model_is_left_alone(actuated, engine):
    def saved(model):
        buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, buffer)
        return buffer

    model = mujoco.MjModel.from_xml_string(actuated)
    before = saved(model)
    simulator = make_simulator(model, 2, engine)
    step = simulator.step if engine == "mujoco" else jax.make_jaxpr(simulator.step)
    step(physics_state(model, jnp.zeros(2), jnp.ones(2)), jnp.ones(2))
    np.testing.assert_array_equal(saved(model), before)


def test_auto_is_the_engine_in_c_on_a_cpu(arms):
    assert resolve_engine("auto") == "mujoco"
    assert isinstance(make_simulator(arms["mjx"].simulator.model, 5), MujocoSimulator)


@pytest.mark.parametrize("engine", ENGINES)
def test_known_engines_are_themselves(engine):
    assert resolve_engine(engine) == engine


def test_an_unknown_engine_is_named_with_the_nearest(arms):
    model = arms["mujoco"].simulator.model
    with pytest.raises(ValueError, match=r"'mujuco'; did you mean 'mujoco'\? \(known: auto, mujoco, mjx\)"):
        make_simulator(model, 5, "mujuco")
    with pytest.raises(ValueError, match=r"'bullet' \(known: auto, mujoco, mjx\)"):
        make_simulator(model, 5, "bullet")


@pytest.mark.parametrize("substeps", [0, -1])
def test_less_than_one_substep_is_refused(arms, substeps):
    with pytest.raises(ValueError, match=f"substeps must be at least 1, not {substeps}"):
        make_simulator(arms["mujoco"].simulator.model, substeps, "mujoco")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_whose_actuators_remember_is_refused(actuated, engine):
    """A delayed actuator keeps its last controls, which are no part of (time, qpos, qvel, act)."""
    delayed = actuated.replace('<motor joint="hinge" ', '<motor joint="hinge" delay="0.02" nsample="3" ')
    with pytest.raises(ValueError, match=r"keeps 14 numbers .* only 6: remove its plugins and actuator delays"):
        make_simulator(mujoco.MjModel.from_xml_string(delayed), 1, engine)
