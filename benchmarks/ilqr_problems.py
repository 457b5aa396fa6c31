"""The six problems of `benchmarks/ilqr.py`: dynamics, costs, start states and first actions.

Integrators work on whole vectors. Written component by component and stacked, XLA recomputes the stages of an
RK4 step: the acrobot's Jacobian then takes 13 times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Case:
    """One problem; costs are in task units, states and actions in SI units and radians."""

    name: str
    dynamics: Callable[..., Any]
    cost: Callable[..., Any]
    final_cost: Callable[..., Any]
    x0: np.ndarray  # nx
    us: np.ndarray  # T nu
    spread: np.ndarray  # nx; start states of a batch are x0 + spread * uniform(-1, 1)
    limits: tuple[np.ndarray, np.ndarray] | None = None
    guess: np.ndarray | None = None  # T+1 nx; states of an infeasible start

    def starts(self, n: int, seed: int = 0) -> np.ndarray:
        """n start states for a batch."""
        noise = np.random.default_rng(seed).uniform(-1.0, 1.0, (n, len(self.x0)))
        return self.x0 + self.spread * noise


def rk4(rate: Callable[..., Any], h: float) -> Callable[..., Any]:
    """x' = f(x, u, t) from dx/dt = rate(x, u) by one classical Runge-Kutta step with the action held."""

    def step(x, u, t):
        k1 = rate(x, u)
        k2 = rate(x + 0.5 * h * k1, u)
        k3 = rate(x + 0.5 * h * k2, u)
        k4 = rate(x + h * k3, u)
        return x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)

    return step


def quadratic(goal, q, r, q_final, h: float):
    """h/2 ((x - goal)' diag(q) (x - goal) + u' diag(r) u) and 1/2 (x - goal)' diag(q_final) (x - goal)."""
    goal, q, r, q_final = (np.asarray(a, float) for a in (goal, q, r, q_final))

    def cost(x, u, t):
        d = x - goal
        return 0.5 * h * (d @ (q * d) + u @ (r * u))

    def final_cost(x):
        d = x - goal
        return 0.5 * d @ (q_final * d)

    return cost, final_cost


def pendulum() -> Case:
    """Angle from hanging and its rate; mass 1 kg, length 1 m, damping 0.1; 5 s."""
    h = 0.05

    def rate(x, u):
        return jnp.stack([x[1], u[0] - 9.81 * jnp.sin(x[0]) - 0.1 * x[1]])

    cost, final_cost = quadratic([np.pi, 0.0], [1.0, 0.1], [0.2], [500.0, 50.0], h)
    return Case("pendulum", rk4(rate, h), cost, final_cost, np.zeros(2), np.zeros((100, 1)), np.array([0.5, 0.5]))


def cartpole() -> Case:
    """Position, angle from hanging, their rates; cart 1 kg, pole 0.2 kg at 0.5 m; 4.5 s."""
    h, mc, mp, length, g = 0.03, 1.0, 0.2, 0.5, 9.81

    def rate(x, u):
        s, c = jnp.sin(x[1]), jnp.cos(x[1])
        d = mc + mp * s * s
        cart = (u[0] + mp * s * (length * x[3] ** 2 + g * c)) / d
        pole = (-u[0] * c - mp * length * x[3] ** 2 * c * s - (mc + mp) * g * s) / (length * d)
        return jnp.stack([x[2], x[3], cart, pole])

    cost, final_cost = quadratic([0, np.pi, 0, 0], [0.1, 0.1, 0.1, 0.1], [0.1], [200.0, 200.0, 50.0, 50.0], h)
    us = 0.01 * np.ones((150, 1))
    return Case("cartpole", rk4(rate, h), cost, final_cost, np.zeros(4), us, np.array([0.3, 0.3, 0.3, 0.3]))


def car() -> Case:
    """Parking from Tassa, Mansard and Todorov (ICRA 2014): x, y, heading, speed; steering angle and acceleration.

    Wheelbase 2 m, 0.03 s a step, steering within 0.5 rad, acceleration within 2 m/s^2, 15 s.
    """
    h, wheelbase = 0.03, 2.0

    def dynamics(x, u, t):
        front = h * x[3]
        back = wheelbase + front * jnp.cos(u[0]) - jnp.sqrt(wheelbase**2 - (front * jnp.sin(u[0])) ** 2)
        turn = jnp.arcsin(jnp.sin(u[0]) * front / wheelbase)
        return x + jnp.stack([back * jnp.cos(x[2]), back * jnp.sin(x[2]), turn, h * u[1]])

    def smooth_abs(x, p):
        return jnp.sqrt(x * x + p * p) - p

    weights, widths = np.array([0.1, 0.1, 1.0, 0.3]), np.array([0.1, 0.1, 0.01, 1.0])
    action_weights = np.array([1e-2, 1e-4])

    def cost(x, u, t):
        return action_weights @ (u * u) + 1e-3 * smooth_abs(x[:2], 0.1).sum()

    def final_cost(x):
        return weights @ smooth_abs(x, widths)

    us = 0.1 * np.random.default_rng(0).standard_normal((500, 2))
    limits = (np.array([-0.5, -2.0]), np.array([0.5, 2.0]))
    x0 = np.array([1.0, 1.0, 1.5 * np.pi, 0.0])
    return Case("car", dynamics, cost, final_cost, x0, us, np.array([0.3, 0.3, 0.3, 0.1]), limits)


def quadrotor() -> Case:
    """Planar: x, z, pitch and their rates; two thrusts; 1 kg, arm 0.25 m, inertia 0.03 kg m^2; 5 s to a point."""
    h, mass, arm, inertia, g = 0.05, 1.0, 0.25, 0.03, 9.81

    def rate(x, u):
        s, c = jnp.sin(x[2]), jnp.cos(x[2])
        lift = (u[0] + u[1]) / mass
        return jnp.concatenate([x[3:], jnp.stack([-lift * s, lift * c - g, arm / inertia * (u[0] - u[1])])])

    hover = 0.5 * mass * g
    goal = np.array([3.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    q, q_final = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 0.1]), np.array([100.0, 100.0, 100.0, 10.0, 10.0, 10.0])

    def cost(x, u, t):
        d, e = x - goal, u - hover
        return 0.5 * h * (d @ (q * d) + 0.1 * e @ e)

    def final_cost(x):
        d = x - goal
        return 0.5 * d @ (q_final * d)

    T, x0 = 100, np.array([0.0, 0.0, np.pi, 0.0, 0.0, 0.0])  # it starts upside down
    guess = np.linspace(x0, goal, T + 1)
    us = np.full((T, 2), hover)
    return Case("quadrotor", rk4(rate, h), cost, final_cost, x0, us, np.full(6, 0.3), guess=guess)


def acrobot() -> Case:
    """Angles (first from hanging, second relative) and rates; links of 1 m and 1 kg, torque at the elbow; 6 s."""
    h, g, inertia = 0.03, 9.81, 1.0 / 12.0

    def rate(x, u):
        q1, q2, v1, v2 = x[0], x[1], x[2], x[3]
        s2, c2 = jnp.sin(q2), jnp.cos(q2)
        d11 = 2.0 * inertia + 0.25 + 1.25 + c2
        d12 = inertia + 0.25 + 0.5 * c2
        d22 = inertia + 0.25
        b1 = 0.5 * s2 * v2 * (2.0 * v1 + v2) - g * (1.5 * jnp.sin(q1) + 0.5 * jnp.sin(q1 + q2)) - 0.1 * v1
        b2 = u[0] - 0.5 * s2 * v1**2 - g * 0.5 * jnp.sin(q1 + q2) - 0.1 * v2
        det = d11 * d22 - d12 * d12
        return jnp.stack([v1, v2, (d22 * b1 - d12 * b2) / det, (d11 * b2 - d12 * b1) / det])

    cost, final_cost = quadratic([np.pi, 0, 0, 0], [0.1, 0.1, 0.1, 0.1], [0.1], [500.0, 500.0, 100.0, 100.0], h)
    us = 0.1 * np.ones((200, 1))
    return Case("acrobot", rk4(rate, h), cost, final_cost, np.zeros(4), us, np.full(4, 0.1))


def linear() -> Case:
    """A stable random linear system with quadratic cost, nx 26 and nu 7."""
    rng = np.random.default_rng(0)
    nx, nu, T = 26, 7, 100
    A = rng.standard_normal((nx, nx))
    A = 0.99 * A / np.abs(np.linalg.eigvals(A)).max()
    B = 0.1 * rng.standard_normal((nx, nu))

    def dynamics(x, u, t):
        return A @ x + B @ u

    def cost(x, u, t):
        return 0.5 * (x @ x + 0.1 * u @ u)

    def final_cost(x):
        return 5.0 * x @ x

    return Case("linear", dynamics, cost, final_cost, rng.standard_normal(nx), np.zeros((T, nu)), np.ones(nx))


CASES = {make.__name__: make for make in (pendulum, cartpole, car, quadrotor, acrobot, linear)}
