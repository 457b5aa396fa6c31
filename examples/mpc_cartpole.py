"""Swing up a cart-pole and hold it under disturbances: iLQR again at every step, in a fixed time.

The plant is heavier than the model, gets random pushes, and one big one when it stands upright.
Run: python examples/mpc_cartpole.py
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from controllers import ilqr, mpc

STEP, HORIZON, SECONDS = 0.04, 50, 8.0  # s per action, actions, s
GOAL = jnp.array([0.0, jnp.pi, 0.0, 0.0])  # position (m), angle from hanging (rad), and their rates


def cartpole(x, u, t, pole=0.2):
    """One midpoint step; cart of 1 kg, pole of `pole` kg with its mass at 0.5 m, force u (N)."""

    def rate(x):
        s, c = jnp.sin(x[1]), jnp.cos(x[1])
        d = 1.0 + pole * s * s
        cart = (u[0] + pole * s * (0.5 * x[3] ** 2 + 9.81 * c)) / d
        spin = (-u[0] * c - 0.5 * pole * x[3] ** 2 * c * s - (1.0 + pole) * 9.81 * s) / (0.5 * d)
        return jnp.stack([x[2], x[3], cart, spin])

    return x + STEP * rate(x + 0.5 * STEP * rate(x))


def cost(x, u, t):
    """Stand upright in the middle, with little force; the angle counts once round."""
    return STEP * (2.0 * (1.0 + jnp.cos(x[1])) + 0.5 * x[0] ** 2 + 0.05 * (x[2:] @ x[2:]) + 0.01 * u[0] ** 2)


def final_cost(x):
    """End upright and at rest."""
    return 20.0 * (1.0 + jnp.cos(x[1])) + 5.0 * x[0] ** 2 + x[2:] @ x[2:]


heavier = jax.jit(lambda x, u: cartpole(x, u, 0, pole=0.25))
rng = np.random.default_rng(0)


def plant(x, u, t):
    """What really happens."""
    push = rng.normal(size=4) * np.array([0.0, 0.0, 0.02, 0.05])
    push += np.array([0.0, 0.0, 0.0, 2.0]) * (t == 125)  # rad/s
    return heavier(x, u) + push


problem = mpc.Problem(cartpole, cost, final_cost, limits=((-10.0,), (10.0,)), iterations=2)
plan = mpc.start(problem, jnp.zeros(4), 0.1 * jnp.ones((HORIZON, 1)))
xs, us, seconds = mpc.simulate(problem, plan, plant, int(SECONDS / STEP))

off = np.abs(np.angle(np.exp(1j * np.asarray(xs[:, 1] - GOAL[1]))))  # rad from upright
print(f"first plan: {ilqr.Status(int(plan.status)).name.lower()}, cost {plan.cost:.3f}")
print(f"upright (within 0.2 rad) for the first time after {STEP * np.argmax(off < 0.2):.1f} s")
print(
    f"pushed at {STEP * 125:.1f} s to {off[126:151].max():.2f} rad; at the end {off[-25:].max():.2f} rad from upright"
)
print("step, ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in mpc.latency(seconds).items()))
if off[100:120].max() > 0.2 or off[-25:].max() > 0.2 or abs(us).max() > 10.0:
    sys.exit("the pole is not held upright")
