"""Swing up a cart-pole that is a MuJoCo model: plan through MJX, and through the C engine, which compiles no physics.

Run: python examples/mujoco_swing_up.py
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco

from controllers import ilqr
from dynamics.engines import make_simulator
from dynamics.known_model import known_dynamics
from dynamics.simulator import control_range

MODEL = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("cartpole.xml")))
SUBSTEPS = 2  # physics steps per action
STEP = SUBSTEPS * MODEL.opt.timestep  # s
T = 100
LIMITS = control_range(MODEL)
HANGING = jnp.array([0.0, jnp.pi, 0.0, 0.0])  # cart (m), pole from upright (rad), and their velocities


def cost(x, u, t):
    """Stand upright in the middle with little force; u = 1 is a push of 10 N."""
    return STEP * (1.0 - jnp.cos(x[1]) + 0.2 * x[0] ** 2 + 0.5 * u[0] ** 2)


def final_cost(x):
    """End upright, in the middle and at rest."""
    return 50.0 * (1.0 - jnp.cos(x[1])) + 20.0 * x[0] ** 2 + 5.0 * (x[2] ** 2 + x[3] ** 2)


def plan(dynamics):
    """Solve from a small constant push: without one, hanging still is a stationary point."""
    solve = jax.jit(lambda x0, us: ilqr.solve(dynamics, cost, x0, us, final_cost=final_cost, limits=LIMITS))
    start = time.perf_counter()
    solve = solve.lower(HANGING, jnp.full((T, 1), 0.1)).compile()
    compiled = time.perf_counter()
    solution = jax.block_until_ready(solve(HANGING, jnp.full((T, 1), 0.1)))
    print(f"{solution}; compiled in {compiled - start:.1f} s, solved in {time.perf_counter() - compiled:.2f} s")
    return solution


def execute(dynamics, controller, x0):
    """Where the feedback leads from another start."""

    def step(x, t):
        return dynamics(x, controller.act(t, x), t), None

    return jax.jit(lambda x0: jax.lax.scan(step, x0, jnp.arange(T))[0])(x0)


def upright(x):
    return jnp.cos(x[1]) > 0.995 and abs(x[3]) < 0.5


models = {engine: known_dynamics(make_simulator(MODEL, SUBSTEPS, engine)) for engine in ("mujoco", "mjx")}
for engine, dynamics in models.items():
    print(f"engine {engine}")
    solution = plan(dynamics)
    end = execute(models["mujoco"], solution.controller(), HANGING + jnp.array([0.05, 0.1, 0.0, 0.0]))
    for what, x in (("planned end", solution.states[-1]), ("end of a disturbed run with feedback", end)):
        print(f"  {what}: cart {x[0]:+.3f} m, pole {x[1]:+.3f} rad, {x[3]:+.3f} rad/s")
    if not (solution.converged and upright(solution.states[-1]) and upright(end)):
        sys.exit(f"engine {engine}: the pole is not upright")
