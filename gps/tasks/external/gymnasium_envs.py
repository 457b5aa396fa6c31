"""Any environment of Gymnasium by its name, `gymnasium:CartPole-v1`, for model-free guiders. Needs that extra.

The state of an episode holds its seed and its actions so far, from which the host finds or repeats the episode: see
`gps.tasks.external.replays`. So `reset` and `step` are functions as for any other task, and a run resumes bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gps.errors import described
from gps.settings import SettingsError, check_at_least
from gps.tasks.external.adapter import missing
from gps.tasks.partial import Partial
from gps.tasks.task import State, TaskError

LONGEST = 100_000  # numbers of all actions of an episode, which go to the host in each step
TRIED = 64  # steps of the episode that is repeated to see whether an environment is deterministic


@dataclass(frozen=True)
class GymnasiumSettings:
    """What the learner sees of an environment, and how long an episode is."""

    horizon: int = 0  # most actions in an episode; 0: the environment's own limit
    hidden: tuple[int, ...] = ()  # entries of the flat observation that only the guider sees, such as velocities
    sigma: float = 0.0  # standard deviation of the noise on what the learner sees

    def __post_init__(self):
        check_at_least(self, 0, "horizon", "sigma")


def gymnasium_task(settings: GymnasiumSettings, name: str) -> GymnasiumTask | Partial:
    """An environment that Gymnasium knows; its name stands behind the first colon of the task's.

    Errors:
        SettingsError where Gymnasium is not installed; else as `task_of`.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise missing(name, "Gymnasium", "gymnasium", error) from error
    known, limit = name.partition(":")[2], settings.horizon or None
    return task_of(lambda: gymnasium.make(known, limit, disable_env_checker=True), settings, name)


def task_of(make: Callable[[], Any], settings: GymnasiumSettings, name: str) -> GymnasiumTask | Partial:
    """An environment of one's own; observed in part, where something is hidden or there is noise.

    Args:
        make: makes an environment; it is called many times.
        settings: see there.
        name: the task's.

    Errors:
        SettingsError where none can be made, for spaces that a policy can not take, for an environment without a time
        limit and for one that is not deterministic.
    """
    whole = GymnasiumTask(make, name, settings.horizon)
    size = whole.observation_size
    if beyond := [i for i in settings.hidden if not 0 <= i < size]:
        raise SettingsError(f"task.hidden must be entries from 0 to {size - 1} of the observation, not {beyond}")
    if not settings.hidden and not settings.sigma:
        return whole
    return Partial(whole, tuple(i for i in range(size) if i not in settings.hidden), settings.sigma)


class GymnasiumTask:
    """An `Environment` of what `make` makes; see the top of this file.

    Where it raises something, all that follows is NaN, until `require_working` says so.

    Args:
        make: makes an environment.
        name: the task's.
        horizon: most steps of an episode; 0 takes the limit of the environment's `spec`.

    Errors:
        As `task_of`.
    """

    calls_host = True
    privileged_size = 0

    def __init__(self, make: Callable[[], Any], name: str, horizon: int = 0):
        from gps.tasks.external.replays import Replays
        from gps.tasks.external.spaces import Actions, Observations

        try:
            env = make()
        except Exception as error:  # whatever somebody's environment may raise
            raise SettingsError(f"task {name}: the environment can not be made: {described(error)}") from error
        self.name = name
        self.horizon = horizon or getattr(env.spec, "max_episode_steps", None) or 0
        if not self.horizon:
            raise SettingsError(f"task {name}: the environment has no time limit of its own: set task.horizon")
        observations = Observations(env.observation_space, name)
        actions = Actions(env.action_space, name)
        self.actions = actions.space
        self.observation_size = observations.size
        self._width = 1 if self.actions.discrete else self.actions.size  # numbers of an action
        if self.horizon * self._width > LONGEST:
            raise SettingsError(
                f"task {name}: each state keeps the actions of its episode so far, at most {LONGEST} numbers, and "
                f"{self.horizon} actions are {self.horizon * self._width}: lower task.horizon"
            )
        self._replays = Replays(make, observations, actions, self.horizon)
        self._failure = ""
        self._asking = threading.Lock()  # two programs may call back at the same time
        self._require_deterministic()

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode of a seed drawn at random."""
        seed = jax.random.bits(key, (), jnp.uint32)
        actions = jnp.zeros((self.horizon, self._width), jnp.uint32)
        seen = _on_host(self._begin, seed[None], self.observation_size)
        return _state(
            {"seed": seed, "t": jnp.zeros((), jnp.int32), "actions": actions}, seen, *jnp.zeros(3, jnp.float32)
        )

    def step(self, state: State, action: Array) -> State:
        """Act once; an action beyond [-1, 1] is taken at its limit."""
        data = state.data
        if self.actions.discrete:
            bits = action.astype(jnp.int32).view(jnp.uint32)[None]
        else:
            bits = jnp.clip(action, -1.0, 1.0).astype(jnp.float32).view(jnp.uint32)
        # what is no observation makes an action of which nobody knows what an environment would do
        over = (state.done > 0) | ~jnp.isfinite(state.obs["state"]).all()
        about = jnp.stack([data["seed"], data["t"].astype(jnp.uint32), over.astype(jnp.uint32)])
        seen = state.obs["state"].view(jnp.uint32)
        row = jnp.concatenate([about, bits, seen, data["actions"].reshape(-1)])
        answer = _on_host(self._go_on, row, self.observation_size + 3)
        reward, terminated, truncated = answer[-3:]
        t = data["t"] + 1
        after = {"seed": data["seed"], "t": t, "actions": data["actions"].at[data["t"]].set(bits)}
        late = jnp.maximum(truncated, (t >= self.horizon).astype(jnp.float32))
        return _state(after, answer[:-3], reward, terminated, late)

    def require_working(self) -> None:
        """Raise TaskError where the environment raised something since this was last asked."""
        with self._asking:
            failure, self._failure = self._failure, ""
        if failure:
            raise TaskError(failure)

    # On the host, where no jax may be used: rows of a batch.

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        started: dict[int, Any] = {}  # where episodes begin anew, many rows are the same

        def one(row):
            seed = int(row[0])
            if seed not in started:
                started[seed] = self._replays.begin(seed)
            return started[seed]

        return self._answers(rows, self.observation_size, one)

    def _go_on(self, rows: np.ndarray) -> np.ndarray:
        no, na = self.observation_size, self._width
        over = np.concatenate([np.zeros(no + 1), [1.0, 0.0]])

        def one(row):
            seed, t = int(row[0]), int(row[1])
            if row[2]:
                return over
            action, seen, past = np.split(row[3:], [na, na + no])
            seen, *rest = self._replays.go_on(seed, past[: t * na].reshape(t, na), action, seen)
            return np.concatenate([seen, rest])

        return self._answers(rows, no + 3, one)

    def _answers(self, rows: np.ndarray, size: int, one: Callable[[np.ndarray], Any]) -> np.ndarray:
        answers = np.full((len(rows), size), np.nan, np.float32)
        with self._asking:
            self._replays.expect(len(rows))
            for row, answer in zip(rows, answers, strict=True):
                if self._failure:
                    break
                try:
                    answer[:] = one(row)
                except Exception as error:  # raised from here, it would be shown with a trace of jax's
                    where = "reset" if len(row) == 1 else f"step {row[1] + 1} of the episode"
                    self._failure = f"task {self.name}: {where} of seed {row[0]}: {described(error)}"
        return answers

    def _require_deterministic(self) -> None:
        try:
            step = self._replays.difference(min(TRIED, self.horizon))
        except Exception as error:
            raise SettingsError(f"task {self.name}: a first episode of it: {described(error)}") from error
        if step is not None:
            what = f"step {step}" if step else "its reset"
            raise SettingsError(
                f"task {self.name}: the environment is not deterministic: with the same seed and actions {what} gave "
                "something else, so that its episodes can not be repeated"
            )


def _state(data: dict[str, Array], seen: Array, reward: Array, terminated: Array, late: Array) -> State:
    return State(
        data=data,
        obs={"state": seen},
        reward=reward,
        done=jnp.maximum(terminated, late),
        info={"truncation": late * (1 - terminated)},
    )


def _on_host(function: Callable[[np.ndarray], np.ndarray], row: Array, size: int) -> Float[Array, " size"]:
    """What `function` of all rows that `vmap` makes of this one answers to it."""

    def answers(given):
        rows = np.asarray(given)
        return function(rows.reshape(-1, rows.shape[-1])).reshape(*rows.shape[:-1], size)

    return jax.pure_callback(answers, jax.ShapeDtypeStruct((size,), jnp.float32), row, vmap_method="expand_dims")
