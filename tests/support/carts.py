"""The smallest MuJoCo task: a cart on a rail goes to a place."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import mujoco
import numpy as np

from gps.entry import Entry
from gps.tasks.mujoco_task import MujocoTask
from gps.tasks.task import Score

XML = """
<mujoco model="cart">
  <worldbody>
    <body name="cart">
      {joint}
      <geom type="box" size="0.1 0.1 0.1" mass="1"/>
      <site name="front" pos="0.1 0 0"/>
    </body>
  </worldbody>
  <actuator>{actuator}</actuator>
  <sensor><framepos name="place" objtype="site" objname="front"/></sensor>
</mujoco>
"""
SLIDE = '<joint name="rail" type="slide" axis="1 0 0" damping="1"/>'
MOTOR = '<motor name="push" joint="rail" ctrllimited="true" ctrlrange="-1 1" gear="5"/>'


def model_of(joint: str = SLIDE, actuator: str = MOTOR) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(XML.format(joint=joint, actuator=actuator))


class Cart(MujocoTask):
    """x = (position, velocity); the context is where to go. It has no skeleton, and attributes can be replaced."""

    score = Score("offset", "m")
    start_noise = 0.01

    def __init__(self, model: mujoco.MjModel | None = None, horizon: int = 6, **changes):
        contexts = np.linspace(-0.5, 0.5, 4)[:, None], np.array([[-0.2], [0.3]])
        super().__init__(model or model_of(), "mujoco", "cart", contexts, horizon, substeps=10)
        for name, value in changes.items():
            setattr(self, name, value)

    def cost(self, x, u, t, context):
        return (x[0] - context[0]) ** 2 + 0.01 * (u @ u)

    def observe(self, x, context, noise):
        return jnp.concatenate([x[:1], context])

    def measure(self, xs, us, context):
        return jnp.abs(xs[-1, 0] - context[0])


def slopes(task):
    """A, B and c of one action of a cart, by differences of its simulator; float64."""

    def step(x, u):
        return np.asarray(task.control_state(task.simulator.step(jnp.concatenate([jnp.zeros(1), x]), u)), float)

    origin = step(jnp.zeros(2), jnp.zeros(1))
    A = np.stack([step(jnp.asarray(e), jnp.zeros(1)) - origin for e in np.eye(2)], axis=1)
    return A, (step(jnp.zeros(2), jnp.ones(1)) - origin)[:, None], origin


@dataclass(frozen=True)
class NoSettings:
    pass


class Undrawable(Cart):
    """Its skeleton has a shape when it is checked, and can not be computed any more when it is drawn."""

    checked = False

    def skeleton(self, x):
        if self.checked:
            raise RuntimeError("no such limb\nanywhere")
        self.checked = True
        return self.positions(x, "cart", "front")


UNDRAWABLE = Entry(NoSettings(), lambda settings, engine, name: Undrawable(), "can not be drawn", engines=True)
