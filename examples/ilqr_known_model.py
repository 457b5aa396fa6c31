"""Swing up a pendulum whose model is known: trajectory optimisation alone, without learning anything.

Run: python examples/ilqr_known_model.py
"""

import sys

import jax
import jax.numpy as jnp

from controllers import ilqr

STEP = 0.05  # s
HANGING = jnp.array([jnp.pi, 0.0])  # angle from upright (rad), angular velocity (rad/s)


def pendulum(x, u, _t):
    """One semi-implicit Euler step; the torque u (N m) is bounded by its cost alone."""
    angle, velocity = x
    velocity = velocity + STEP * (9.81 * jnp.sin(angle) + u[0])
    return jnp.stack([angle + STEP * velocity, velocity])


def cost(x, u, _t):
    """Stand upright with little torque."""
    return STEP * (1.0 - jnp.cos(x[0]) + 0.02 * u[0] ** 2)


def final_cost(x):
    """End upright and at rest."""
    return 50.0 * (1.0 - jnp.cos(x[0])) + 5.0 * x[1] ** 2


@jax.jit
def plan(x0):
    """Solve from a small constant torque: without one, hanging still is a stationary point."""
    return ilqr.solve(pendulum, cost, x0, 0.1 * jnp.ones((60, 1)), final_cost=final_cost)


solution = plan(HANGING)
print(solution)

# Execute the feedback from another start: the gains correct what the planned actions would not.
controller, x = solution.controller(), HANGING + jnp.array([0.05, 0.0])
for t in range(60):
    x = pendulum(x, controller.act(t, x), t)
print(f"planned end: angle {solution.states[-1, 0]:+.3f} rad, velocity {solution.states[-1, 1]:+.3f} rad/s")
print(f"end of a disturbed run with feedback: angle {x[0]:+.3f} rad, velocity {x[1]:+.3f} rad/s")

if not (solution.converged and abs(solution.states[-1, 0]) < 0.1 and abs(x[0]) < 0.1):
    sys.exit("the pendulum is not upright")
