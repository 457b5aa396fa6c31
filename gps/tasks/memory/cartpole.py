"""Balance a pole on a cart without seeing velocities: `stateless-cartpole`, and `noisy-stateless-cartpole`.

Rules, observations and rewards are those of `popgym.envs.position_only_cartpole` and `noisy_position_only_cartpole` in
the Python package popgym 1.0.7 (Morad et al., "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
2023; the paper's Stateless Cartpole); the physics those of gymnasium's CartPole-v1, after Barto, Sutton and Anderson,
"Neuronlike adaptive elements that can solve difficult learning control problems", 1983.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gps.settings import check_at_least
from gps.tasks.task import ActionSpace, State

GRAVITY = 9.8  # m/s^2
POLE_MASS, TOTAL_MASS = 0.1, 1.1  # kg
LENGTH = 0.5  # m, half the pole
FORCE = 10.0  # N
TIME_STEP = 0.02  # s
LIMIT = np.array([2.4, math.radians(12)], np.float32)  # m and rad: beyond them the episode ends
START = 0.05  # the start state's four numbers are uniform in +- this


@dataclass(frozen=True)
class CartPoleSettings:
    """How long to balance and how badly one sees."""

    horizon: int = 200  # actions in an episode
    noise_sigma: float = 0.0  # m and rad, standard deviation of the noise in both numbers that the learner sees

    def __post_init__(self):
        check_at_least(self, 1, "horizon")
        check_at_least(self, 0, "noise_sigma")


class StatelessCartPole:
    """Push the cart left (0) or right (1) at each step; 1/horizon a step, also the last one.

    The episode ends where the cart leaves +-2.4 m or the pole +-12 degrees, and is truncated after `horizon` steps.

    obs["state"] (2): the cart's position in m and the pole's angle in rad. Where there is noise, it is added to both,
    and the sum is clipped to twice the limits.

    obs["privileged_state"] (4): position, velocity, angle and angular velocity, in m, rad and s, without noise.
    """

    actions = ActionSpace(2, discrete=True)
    calls_host = False
    observation_size = 2
    privileged_size = 4

    def __init__(self, settings: CartPoleSettings, name: str = "stateless-cartpole-easy"):
        self.name = name
        self.settings = settings
        self.horizon = settings.horizon

    def reset(self, key: PRNGKeyArray) -> State:
        """Start near the upright pole in the middle."""
        draw, rest = jax.random.split(key)
        return self.start(jax.random.uniform(draw, (4,), minval=-START, maxval=START), rest)

    def start(self, physical: Float[Array, "4"], key: PRNGKeyArray) -> State:
        """Begin an episode in this physical state; the key is for the noise."""
        data = {"physical": jnp.asarray(physical, jnp.float32), "t": jnp.zeros((), jnp.int32), "key": key}
        return self._state(data, reward=jnp.zeros(()))

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Push for 0.02 s."""
        data = state.data
        physical = accelerate(data["physical"], jnp.where(action == 1, FORCE, -FORCE))
        data = {"physical": physical, "t": data["t"] + 1, "key": data["key"]}
        return self._state(data, reward=jnp.asarray(1 / self.horizon, jnp.float32))

    def observe(self, physical: Float[Array, "4"], noise: Float[Array, "2"]) -> Float[Array, "2"]:
        """What the learner sees with this standard normal noise."""
        seen = physical[::2] + self.settings.noise_sigma * noise
        return jnp.clip(seen, -2 * LIMIT, 2 * LIMIT) if self.settings.noise_sigma > 0 else seen

    def _state(self, data, reward) -> State:
        physical, noise = data["physical"], jnp.zeros(2)
        if self.settings.noise_sigma > 0:
            draw, rest = jax.random.split(data["key"])
            data, noise = {**data, "key": rest}, jax.random.normal(draw, (2,))
        fallen = (jnp.abs(physical[::2]) > LIMIT).any()
        late = data["t"] >= self.horizon
        obs = {"state": self.observe(physical, noise), "privileged_state": physical}
        # Upstream sets both flags where the pole falls at the last step; the limit is then not what ended the episode.
        truncated = (late & ~fallen).astype(jnp.float32)
        return State(data, obs, reward, (fallen | late).astype(jnp.float32), {}, {"truncation": truncated})


def accelerate(physical: Float[Array, "4"], force: Float[Array, ""]) -> Float[Array, "4"]:
    """One explicit Euler step of the frictionless cart and pole.

    With total mass M, pole mass m and half length l: a = (F + m l w^2 sin q) / M, the angular acceleration is
    (g sin q - a cos q) / (l (4/3 - m cos^2 q / M)) and the cart's is a - m l cos q / M times it.
    """
    velocity, angle, spin = physical[1], physical[2], physical[3]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    pushed = (force + POLE_MASS * LENGTH * spin**2 * sin) / TOTAL_MASS
    angular = (GRAVITY * sin - cos * pushed) / (LENGTH * (4 / 3 - POLE_MASS * cos**2 / TOTAL_MASS))
    linear = pushed - POLE_MASS * LENGTH * angular * cos / TOTAL_MASS
    return physical + TIME_STEP * jnp.stack([velocity, linear, spin, angular])
