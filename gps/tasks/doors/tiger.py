"""Two doors and a tiger, in one or two steps: `tiger-door` and `tiger-door-alt`, on which imitation alone fails.

In `tiger-door` a guider that sees the tiger opens the right door at once, and never shows a learner that does not
see it how to listen first. In `tiger-door-alt` the learner can find out nothing at all: what the best guider does,
averaged over what the learner can not see, is worth less than the learner's best action.

| task           | guider's optimum | learner's optimum | a learner that imitates the best guider |
|----------------|------------------|-------------------|-----------------------------------------|
| tiger-door     | 1                | 1 - listen_cost   | 0.5                                     |
| tiger-door-alt | 1.5              | 1                 | 0.75                                    |

Source:
    Li, Xie and Lu, "Guided Policy Optimization under Partial Observability", arXiv 2505.15418. The paper
    describes the tasks in words; that an episode ends after two steps of any kind is a choice made here.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gps.tasks.task import ActionSpace, State

LISTEN = 2  # the action; 0 and 1, left and right, are where the tiger is and which door an action opens
ALT_REWARDS = ((2.0, 0.0), (0.0, 1.0))  # of state A and B, for action a1 and a2


@dataclass(frozen=True)
class TigerDoorSettings:
    """The task's only number."""

    listen_cost: float = 0.1  # reward lost by listening; below 1/2, so that it is worth more than guessing a door

    def __post_init__(self):
        if not 0 <= self.listen_cost < 0.5:
            raise ValueError(
                f"listen_cost must be at least 0 and less than 0.5, what guessing a door loses, not {self.listen_cost}"
            )


@dataclass(frozen=True)
class TigerDoorAltSettings:
    """There is nothing to set."""


class TigerDoor:
    """See `Environment`. The tiger is behind the left or the right door with probability 1/2 each.

    Actions: 0 opens the left door, 1 the right one, 2 listens. Opening a door ends the episode, with reward 1
    if the tiger is not behind it and 0 if it is. Listening has reward -listen_cost, and shows the learner from then
    on where the tiger is. The second step ends the episode whatever is done, so that listening twice has a
    return of -2 listen_cost; this end is no truncation, as the observation tells that it is the second step.

    The learner sees one of (nothing yet, tiger left, tiger right) as a one-hot vector, the guider also where the
    tiger is.
    """

    actions = ActionSpace(3, discrete=True)
    observation_size = 3
    privileged_size = 2
    horizon = 2
    calls_host = False

    def __init__(self, settings: TigerDoorSettings, name: str = "tiger-door"):
        self.name = name
        self.settings = settings

    def reset(self, key: PRNGKeyArray) -> State:
        """Put the tiger behind a door."""
        data = {"tiger": jax.random.randint(key, (), 0, 2), "listened": jnp.zeros((), bool)}
        zero = jnp.zeros(())
        return State(data, self._obs(data), zero, zero, {}, {"truncation": zero})

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Open a door, or listen; see the class."""
        tiger, listened = state.data["tiger"], state.data["listened"]
        listens = action == LISTEN
        cost = self.settings.listen_cost
        reward = jnp.array([[0.0, 1.0, -cost], [1.0, 0.0, -cost]])[tiger, action]
        done = (~listens | listened).astype(float)
        data = {"tiger": tiger, "listened": listened | listens}
        return State(data, self._obs(data), reward, done, {}, {"truncation": jnp.zeros(())})

    def _obs(self, data) -> dict[str, Float[Array, " size"]]:
        heard = jnp.where(data["listened"], 1 + data["tiger"], 0)
        return {"state": jax.nn.one_hot(heard, 3), "privileged_state": jax.nn.one_hot(data["tiger"], 2)}


class TigerDoorAlt:
    """See `Environment`. One step in state A or B, each with probability 1/2, which only the guider sees.

    Action 0 has reward 2 in state A, action 1 has reward 1 in state B, and anything else has none. The learner
    sees a constant.
    """

    actions = ActionSpace(2, discrete=True)
    observation_size = 1
    privileged_size = 2
    horizon = 1
    calls_host = False

    def __init__(self, settings: TigerDoorAltSettings, name: str = "tiger-door-alt"):
        self.name = name
        self.settings = settings

    def reset(self, key: PRNGKeyArray) -> State:
        """Draw the state."""
        hidden, zero = jax.random.randint(key, (), 0, 2), jnp.zeros(())
        return State({"hidden": hidden}, self._obs(hidden), zero, zero, {}, {"truncation": zero})

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Take the reward of the action in the hidden state; the episode ends."""
        hidden = state.data["hidden"]
        reward = jnp.asarray(ALT_REWARDS)[hidden, action]
        return State({"hidden": hidden}, self._obs(hidden), reward, jnp.ones(()), {}, {"truncation": jnp.zeros(())})

    def _obs(self, hidden) -> dict[str, Float[Array, " size"]]:
        return {"state": jnp.ones(1), "privileged_state": jax.nn.one_hot(hidden, 2)}
