"""Park a car 3 m to its right, with limits on steering and acceleration; then from other starts, by feedback.

Run: python examples/ilqr_standalone.py [--out ilqr_car.png]
"""

import argparse
import sys

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from controllers import ilqr

T, STEP, WHEELBASE = 100, 0.1, 2.0  # steps, s, m
LOW, HIGH = jnp.array([-0.4, -1.2]), jnp.array([0.4, 1.2])  # of the steering angle (rad) and the acceleration (m/s^2)
START = jnp.array([0.5, 3.0, 0.0, 0.0])  # x and y of the rear axle (m), heading (rad), speed (m/s)
SPREAD = jnp.array([0.3, 0.3, 0.2, 0.0])  # the other starts are off by this at most


def car(x, u, t):
    """The front axle rolls for one step where its wheels point, and the rear axle follows."""
    front = STEP * x[3]
    rear = WHEELBASE + front * jnp.cos(u[0]) - jnp.sqrt(WHEELBASE**2 - (front * jnp.sin(u[0])) ** 2)
    turn = jnp.arcsin(jnp.sin(u[0]) * front / WHEELBASE)
    return x + jnp.stack([rear * jnp.cos(x[2]), rear * jnp.sin(x[2]), turn, STEP * u[1]])


def cost(x, u, t):
    """Steer and accelerate little."""
    return STEP * (0.5 * u[0] ** 2 + 0.1 * u[1] ** 2)


def final_cost(x):
    """Stand at the origin, along the x axis."""
    return 100.0 * x @ x


def execute(controller, start):
    """States under the feedback, with its actions cut to the limits."""

    def step(x, t):
        following = car(x, jnp.clip(controller.act(t, x), LOW, HIGH), t)
        return following, following

    return jnp.concatenate([start[None], jax.lax.scan(step, start, jnp.arange(T))[1]])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="ilqr_car.png", help="the figure (default: %(default)s)")
out = parser.parse_args().out

plan = ilqr.solve(car, cost, START, jnp.zeros((T, 2)), final_cost=final_cost, limits=(LOW, HIGH))
starts = START + SPREAD * jax.random.uniform(jax.random.key(0), (20, 4), minval=-1.0)
runs = jax.jit(jax.vmap(execute, in_axes=(None, 0)))(plan.controller(), starts)
miss, misses = jnp.linalg.norm(plan.states[-1]), jnp.linalg.norm(runs[:, -1], axis=-1)
print(plan)
print(f"the plan ends {miss:.3f} from the goal, {len(runs)} disturbed runs with feedback {misses.max():.3f} at most")

figure = Figure(figsize=(9, 3.6), layout="constrained")
road, steering, acceleration = figure.subplot_mosaic("AAB;AAC").values()
road.set(aspect="equal", xlabel="x (m)", ylabel="y (m)", title="plan, and disturbed runs with its feedback")
for x, y, heading, _ in plan.states[::10]:
    pose = {"angle": float(jnp.degrees(heading)), "rotation_point": (float(x), float(y))}
    road.add_patch(Rectangle((x - 0.5, y - 0.7), WHEELBASE + 1.0, 1.4, fill=False, edgecolor="0.8", **pose))
road.plot(*runs[:, :, :2].T, color="tab:orange", linewidth=0.5)
road.plot(*plan.states[:, :2].T, color="tab:blue")
for i, (axes, name) in enumerate([(steering, "steering (rad)"), (acceleration, "acceleration (m/s²)")]):
    axes.step(STEP * jnp.arange(T), plan.actions[:, i], where="post")
    axes.hlines([LOW[i], HIGH[i]], 0.0, STEP * T, colors="0.4", linestyles="--")
    axes.set(xlabel="time (s)", ylabel=name)
figure.savefig(out, dpi=150)

kept = ((plan.actions >= LOW) & (plan.actions <= HIGH)).all()
if not (plan.converged and kept and miss < 0.05 and misses.max() < 0.2):
    sys.exit("the car is not parked")
