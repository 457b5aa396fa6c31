"""A task of your own: a cart is to be held at the middle of a track by a learner that sees its position, with noise.

The guider sees position and velocity; the learner has to remember (a GRU) to know how fast the cart is. All that a
task needs is `reset` and `step`; with the `Entry` at the end, everything that there is works on it:

    PYTHONPATH=examples gps train own_task:CART --guider gpo-clip
    PYTHONPATH=examples gps compare own_task:CART --guiders gpo-clip ppo-asym ppo --seeds 3

Run: python examples/own_task.py
"""

import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gps.entry import Entry
from gps.experiments.experiment import Experiment
from gps.runs import train
from gps.runs.folder import RunExistsError, RunFolder
from gps.tasks.task import ActionSpace, State


@dataclass(frozen=True)
class CartSettings:
    sigma: float = 0.05  # m, standard deviation of the noise on the position that the learner sees
    force: float = 2.0  # m/s^2, of the largest action


class Cart:
    """x'' = force * action in steps of 0.1 s; the reward is -(x^2 + 0.1 v^2)."""

    actions = ActionSpace(1)
    observation_size, privileged_size = 1, 2
    horizon = 50
    calls_host = False

    def __init__(self, settings: CartSettings, name: str):
        self.settings, self.name = settings, name

    def reset(self, key):
        starting, key = jax.random.split(key)
        return self._state(jax.random.uniform(starting, (2,), minval=-1.0), jnp.zeros((), jnp.int32), 0.0, key)

    def step(self, state, action):
        x, v = state.data["x"]
        v = v + 0.1 * self.settings.force * jnp.clip(action[0], -1.0, 1.0)
        x = x + 0.1 * v
        return self._state(jnp.stack([x, v]), state.data["t"] + 1, -(x**2 + 0.1 * v**2), state.data["key"])

    def _state(self, x, t, reward, key):
        seeing, key = jax.random.split(key)
        obs = {"state": x[:1] + self.settings.sigma * jax.random.normal(seeing, (1,)), "privileged_state": x}
        late = (t >= self.horizon).astype(jnp.float32)  # the time limit ends an episode, and nothing else
        return State({"x": x, "t": t, "key": key}, obs, jnp.asarray(reward), late, {}, {"truncation": late})


CART = Entry(CartSettings(), Cart, "a cart whose velocity has to be remembered")


def main() -> int:
    experiment = Experiment.resolve(
        {
            "run": {"task": "own_task:CART", "guider": "gpo-clip", "iterations": 30, "evaluate_every": 5},
            "guider": {
                "learner": {"network": {"hidden": [32], "memory": 32}},
                "ppo": {"unroll": 50, "updates": 2, "minibatches": 4, "learning_rate": 1e-3},
            },
        }
    )
    try:
        summary = train.train(RunFolder.create("runs/own-task", experiment))
    except RunExistsError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"return of the learner {summary['learner_return']:.2f}, after {summary['env_steps']} steps")
    return 0 if summary["learner_return"] > -6.0 else 1  # without memory it comes to -15


if __name__ == "__main__":
    sys.exit(main())
