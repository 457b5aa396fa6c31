"""Tasks as Gymnasium environments: as its own check wants them, and with the numbers of the task."""

from __future__ import annotations

import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from support.toys import Clock

from gps.experiments.gymnasium import GymnasiumEnv, gymnasium_env
from gps.settings import SettingsError


@pytest.mark.parametrize("name", ["reacher", "tiger-door"])
def test_gymnasium_is_content(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for harmless in (".*no render.*", ".*not within.*infinity", ".*Box observation space m.*imum value is"):
            warnings.filterwarnings("ignore", harmless)
        check_env(gymnasium_env(name), skip_render_check=True)


def test_an_episode_is_the_tasks_own_to_its_time_limit():
    env = gymnasium_env("reacher", horizon=3)
    observation, info = env.reset(seed=7)
    task, step = env.task, jax.jit(env.task.step)
    state = jax.jit(task.reset)(jax.random.key(int(np.random.Generator(np.random.PCG64(7)).integers(2**32))))
    for t in range(3):
        np.testing.assert_allclose(observation, state.obs["state"], atol=1e-6)
        np.testing.assert_allclose(info["privileged_state"], state.obs["privileged_state"], atol=1e-6)
        action = np.array([0.5, -1.0 + t], np.float32)
        state = step(state, action)
        observation, reward, terminated, truncated, info = env.step(action)
        assert reward == pytest.approx(float(state.reward), rel=1e-5)
        assert (terminated, truncated) == (False, t == 2)


def test_what_diverges_is_truncated_and_repeats_what_was_there_before():
    class Breaking(Clock):
        def step(self, state, action):
            state = super().step(state, action)
            return type(state)(state.data, state.obs, state.reward * np.nan, state.done, state.metrics, state.info)

    env = GymnasiumEnv(Breaking())
    first, _ = env.reset(seed=0)
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert (reward, terminated, truncated) == (0.0, False, True)
    np.testing.assert_array_equal(observation, first)


def test_gymnasium_makes_them_by_name():
    one = gymnasium.make("gps/tiger-door")
    many = gymnasium.make_vec("gps/tiger-door", num_envs=2, vectorization_mode="sync")
    observation, _ = one.reset(seed=3)
    observations, _ = many.reset(seed=[5, 3])
    np.testing.assert_array_equal(observations[1], observation)
    np.testing.assert_array_equal(observation, gymnasium_env("tiger-door").reset(seed=3)[0])
    assert gymnasium.make("gps/reacher", horizon=7).unwrapped.task.horizon == 7


def test_mistakes_are_named():
    with pytest.raises(RuntimeError, match="reacher: reset comes before the first step"):
        gymnasium_env("reacher").step(np.zeros(2))
    with pytest.raises(SettingsError, match="unknown task 'reachr'; did you mean 'reacher'"):
        gymnasium_env("reachr")


@pytest.fixture
def sb3():
    """Stable-Baselines3, which needs torch and is installed where .ci/run says; one thread, as others are busy too."""
    package = pytest.importorskip("stable_baselines3")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield package
    torch.set_num_threads(threads)


def test_stable_baselines_checks_our_tasks_and_learns_one(sb3):
    """To listen first, which is the best that can be done without knowing where the tiger is."""
    from stable_baselines3.common.env_checker import check_env as check_as_sb3

    check_as_sb3(gymnasium_env("reacher", horizon=3))
    env = gymnasium_env("tiger-door")
    check_as_sb3(env)
    model = sb3.PPO("MlpPolicy", env, n_steps=128, batch_size=128, learning_rate=0.01, seed=0, device="cpu")

    def mean_return(episodes=40):
        total = 0.0
        for seed in range(episodes):
            observation, _ = env.reset(seed=seed)
            over = False
            while not over:
                action, _ = model.predict(observation, deterministic=True)
                observation, reward, terminated, truncated, _ = env.step(action)
                total, over = total + reward, terminated or truncated
        return total / episodes

    assert mean_return() < 0.7
    model.learn(768)
    assert mean_return() == pytest.approx(0.9)
