"""The tasks of benchmarks/ppo.py, and the JAX implementations of PPO that ours is compared with: rejax and Brax's own.

Nothing of what differs is hidden: see the docstring of benchmarks/ppo.py.
"""

from __future__ import annotations

import functools
import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gps.guiders.model_free.settings import PpoSettings
from gps.tasks.task import ActionSpace, State

VALUE_WEIGHT = 0.5  # of half the squared error, as ours
PACKAGES = ("rejax", "gymnax", "six", "brax")  # gymnax imports six and does not say so
HIDDEN = (64, 64)


def missing() -> list[str]:
    """The packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


class GymnaxCartPole:
    """CartPole-v1 of gymnax as a `gps.tasks.task.Environment`, its time limit told from its termination.

    Args:
        privileged: a guider sees the whole state, and a learner no velocities.
    """

    name = "gymnax-cartpole"
    actions = ActionSpace(2, discrete=True)
    calls_host = False

    def __init__(self, privileged: bool = False):
        import gymnax  # pyright: ignore[reportMissingImports]

        self.observation_size, self.privileged_size = (2, 4) if privileged else (4, 0)
        self.foreign, self.params = gymnax.make("CartPole-v1")
        self.horizon = self.params.max_steps_in_episode

    def reset(self, key: jax.Array) -> State:
        """Start an episode."""
        obs, foreign = self.foreign.reset_env(key, self.params)
        foreign = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), foreign)
        zero = jnp.zeros(())
        return State({"foreign": foreign, "key": key}, self._seen(obs), zero, zero, {}, {"truncation": zero})

    def step(self, state: State, action: jax.Array) -> State:
        """Act for one step; dynamics and reset of CartPole draw nothing from the key that a step is given."""
        key = state.data["key"]
        obs, foreign, reward, terminated, _ = self.foreign.step_env(key, state.data["foreign"], action, self.params)
        late = foreign.time >= self.horizon
        done, truncation = (terminated | late).astype(jnp.float32), (late & ~terminated).astype(jnp.float32)
        data = {"foreign": foreign, "key": key}
        return State(data, self._seen(obs), jnp.asarray(reward, jnp.float32), done, {}, {"truncation": truncation})

    def _seen(self, obs: jax.Array) -> dict[str, jax.Array]:
        return {"state": obs[::2], "privileged_state": obs} if self.privileged_size else {"state": obs}


class _FiveValues:
    """gymnax's environment with the five results of a step that rejax 0.1.3 takes apart; gymnax 1.0 gives six."""

    def __init__(self, environment: Any):
        self.environment = environment
        self.reset, self.default_params = environment.reset, environment.default_params
        self.action_space, self.observation_space = environment.action_space, environment.observation_space

    def step(self, *inputs: Any) -> tuple[Any, ...]:
        """Terminated and truncated as one."""
        obs, state, reward, terminated, truncated, info = self.environment.step(*inputs)
        return obs, state, reward, terminated | truncated, info


class Rejax:
    """rejax's PPO on CartPole: `init(key)`, `train(state)` for some updates, and the return that it has come to."""

    def __init__(self, ppo: PpoSettings):
        import gymnax  # pyright: ignore[reportMissingImports]
        from rejax.algos import PPO  # pyright: ignore[reportMissingImports]

        environment, params = gymnax.make("CartPole-v1")
        self.ppo = PPO.create(
            env=_FiveValues(environment),
            env_params=params,
            agent_kwargs={"hidden_layer_sizes": HIDDEN, "activation": "tanh"},
            num_envs=ppo.environments,
            num_steps=ppo.unroll,
            num_epochs=ppo.epochs,
            num_minibatches=ppo.minibatches,
            learning_rate=ppo.learning_rate,
            max_grad_norm=ppo.gradient_norm,
            gamma=ppo.discount,
            gae_lambda=ppo.trace,
            clip_eps=ppo.clip,
            ent_coef=ppo.entropy,
            vf_coef=VALUE_WEIGHT,
        )
        self.updates = ppo.updates

    def init(self, key: jax.Array) -> Any:
        """The state before training."""
        return jax.tree.map(jnp.asarray, self.ppo.init_state(key))

    def train(self, state: Any, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        """Some updates without any evaluation; the state has its own key."""
        return jax.lax.fori_loop(0, self.updates, lambda _, ts: self.ppo.train_iteration(ts), state), {}

    def reached(self, state: Any) -> float:
        """Mean return of 128 episodes, with sampled actions."""
        from rejax.evaluate import evaluate  # pyright: ignore[reportMissingImports]

        act = self.ppo.make_act(state)
        return float(evaluate(act, jax.random.key(1), self.ppo.env, self.ppo.env_params, 128)[1].mean())


def brax_pendulum(episode: int) -> tuple[Any, Any]:
    """Brax's inverted double pendulum, itself and as an `Environment` that the learner sees whole."""
    from gps.tasks.external.brax_envs import BraxSettings, brax_task

    settings = BraxSettings("inverted_double_pendulum", "spring", episode, sigma=0.0, hide_velocity=False)
    task = brax_task(settings, name="brax-inverted-double-pendulum").environment
    return task.foreign, task  # pyright: ignore[reportAttributeAccessIssue]


def brax_train(
    foreign: Any, ppo: PpoSettings, episode: int, chunks: int, between: Callable[[], None]
) -> list[tuple[float, float]]:
    """Brax's PPO for `chunks` times `ppo.updates` updates; `between` is called after each chunk.

    Returns:
        Wall and CPU seconds of each chunk, the first with its compilation.
    """
    times: list[tuple[float, float]] = []
    began = [time.perf_counter(), time.process_time()]

    def after(steps: int, metrics: Any) -> None:
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        between()
        began[:] = time.perf_counter(), time.process_time()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from brax.training.agents.ppo import networks  # pyright: ignore[reportMissingImports]
        from brax.training.agents.ppo.train import train  # pyright: ignore[reportMissingImports]

        train(
            foreign,
            num_timesteps=chunks * ppo.updates * ppo.environments * ppo.unroll,
            num_envs=ppo.environments,
            episode_length=episode,
            learning_rate=ppo.learning_rate,
            entropy_cost=ppo.entropy,
            discounting=ppo.discount,
            unroll_length=ppo.unroll,
            batch_size=ppo.environments // ppo.minibatches,
            num_minibatches=ppo.minibatches,
            num_updates_per_batch=ppo.epochs,
            normalize_observations=ppo.normalize,
            reward_scaling=ppo.reward_scale,
            clipping_epsilon=ppo.clip,
            gae_lambda=ppo.trace,
            max_grad_norm=ppo.gradient_norm,
            vf_loss_coefficient=VALUE_WEIGHT,
            network_factory=functools.partial(
                networks.make_ppo_networks,
                policy_hidden_layer_sizes=HIDDEN,
                value_hidden_layer_sizes=HIDDEN,
                activation=jnp.tanh,
            ),
            num_evals=chunks + 1,
            run_evals=False,
            progress_fn=after,
        )
    return times
