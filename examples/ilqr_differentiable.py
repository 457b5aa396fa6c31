"""Find the mass that an expert moves, and the price it puts on torque, from its torques: inverse optimal control.

The expert swings a pendulum up from four starts. Its torques solve an optimal control problem with two unknown
parameters; Gauss-Newton steps on the difference between the torques that we compute and those that we saw find them.
The derivative of a solution in the parameters comes from the implicit function theorem: it takes one Riccati sweep
for each of them instead of a pass through the iterations of the solver.

Run: python examples/ilqr_differentiable.py
"""

import sys

import jax
import jax.numpy as jnp

from controllers import ilqr

T, STEP = 50, 0.05  # steps, s
STARTS = jnp.array([[2.0, 0.0], [-1.5, 1.0], [1.0, 2.0], [-1.0, -1.0]])  # angle from upright (rad), its rate (rad/s)
TRUTH, GUESS = jnp.array([1.4, 0.03]), jnp.array([0.5, 0.3])  # mass (kg), price of torque (cost per N²m² and s)
NOISE = 0.05  # N m, of the torques that we saw


def pendulum(x, u, t, params):
    """One semi-implicit Euler step of a mass on a rod of 1 m."""
    rate = x[1] + STEP * (9.81 * jnp.sin(x[0]) + u[0] / params[0])
    return jnp.stack([x[0] + STEP * rate, rate])


def cost(x, u, t, params):
    """Stand upright, with little torque."""
    return STEP * (1.0 - jnp.cos(x[0]) + 0.1 * x[1] ** 2 + params[1] * u[0] ** 2)


def final_cost(x, params):
    return 10.0 * (1.0 - jnp.cos(x[0])) + x[1] ** 2


@jax.jit
def plan(params):
    """A solution from each start."""

    def alone(x0):
        return ilqr.solve(pendulum, cost, x0, jnp.zeros((T, 1)), final_cost=final_cost, params=params)

    return jax.vmap(alone)(STARTS)


@jax.jit
def gauss_newton(logs, seen):
    """A step in the logarithms of the parameters, at most by 1, their standard errors, and the solutions before it."""

    def difference(logs):
        solution = plan(jnp.exp(logs))
        return (solution.actions - seen).ravel(), solution

    J, solution = jax.jacfwd(difference, has_aux=True)(logs)  # for descent, `jax.grad` of its square costs one sweep
    inverse = jnp.linalg.inv(J.T @ J)
    step = -inverse @ J.T @ (solution.actions - seen).ravel()
    return jnp.clip(step, -1.0, 1.0), NOISE * jnp.sqrt(jnp.diag(inverse)), solution


expert = plan(TRUTH)
seen = expert.actions + NOISE * jax.random.normal(jax.random.key(0), expert.actions.shape)
print(f"expert: {expert}")

logs, step, error = jnp.log(GUESS), jnp.ones(2), jnp.zeros(2)
for iteration in range(20):
    step, error, solution = gauss_newton(logs, seen)
    (mass, price), off = jnp.exp(logs), jnp.sqrt(((solution.actions - seen) ** 2).mean())
    print(f"{iteration}: mass {mass:.4f}, price {price:.5f}, torques off by {off:.3f} N m; {solution}")
    if (abs(step) < 0.2 * error).all():
        break
    logs = logs + step

for name, value, part, truth in zip(("mass", "price"), jnp.exp(logs), error, TRUTH, strict=True):
    print(f"{name}: {value:.5f} ± {value * part:.5f}, in truth {truth:.5f}")
if not ((abs(step) < error) & (abs(logs - jnp.log(TRUTH)) < 4.0 * error)).all():
    sys.exit("the parameters are not found")
