"""What every task on a MuJoCo model shares: episodes, frames, start states, and reading of the state by name.

A task of one's own inherits from `MujocoTask`, gives it a model and contexts, and says what it costs, what the learner
sees and how an episode is judged:

    class Pointing(MujocoTask):
        score = Score("distance", "cm")
        start_noise = 0.02

        def __init__(self, settings, engine, name):
            super().__init__(load("pointing.xml", __file__), engine, name, (train, test), horizon=50, substeps=5)

        def residual(self, x, u, t, context): ...  # of the cost 1/2 |residual|^2; gps.tasks.costs has parts of it
        def observe(self, x, context, noise): ...
        def measure(self, xs, us, context): ...
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, PRNGKeyArray

from controllers.expand import LeastSquares
from dynamics.action_range import with_unit_actions
from dynamics.engines import make_simulator, resolve_engine
from dynamics.kinematics import BALL, FREE, Kinematics, configuration, coordinates
from dynamics.parameters import misjudged
from dynamics.simulator import Simulator, joints_size, mocap_poses, physics_state
from gps.tasks.task import ActionSpace, Score, State


def load(file: str, beside: str) -> mujoco.MjModel:
    """The model of an MJCF file that lies beside a module, whose `__file__` it takes."""
    return mujoco.MjModel.from_xml_path(str(Path(beside).with_name(file)))


class MujocoTask(ABC):
    """A `ControlTask` (and so an `Environment`) but for its cost, what its learner sees, and its measure.

    This is the one class of the project that others inherit from: it is abstract, and what it adds to a task does not
    depend on the task. Its defaults can be replaced: where episodes start, what the guider sees, and the controllers'
    state, which is x = (coordinates of the joints, velocities, activations): positions in rad or m as MuJoCo has them,
    with a rotation vector instead of each quaternion (see `dynamics.kinematics`).

    An action of -1 or 1 is an end of its actuator's control range, whatever that is: `simulator.model` is the given
    model with its actuators scaled (see `dynamics.action_range`).

    Args:
        contexts: what to train on (M nc), and, disjoint from it, what to test on.
        horizon: actions in an episode.
        substeps: physics steps of an action.

    Errors:
        ValueError for an actuator without a control range, or one that can not be scaled.
    """

    score: Score
    history = 1  # frames that the learner sees at once
    start_noise = 0.0  # rad or m, and the same per second: standard deviation of the start around `start`
    model_error = 0.0  # share by which each mass, damping and gain is off from the model that guiders are given
    noise_size = 0  # standard normal numbers that `observe` takes in each step

    def __init__(self, model: mujoco.MjModel, engine: str, name: str, contexts: tuple, horizon: int, substeps: int):
        self.name, self.horizon = name, horizon
        model = with_unit_actions(model)
        self.simulator = make_simulator(model, substeps, engine)
        self.calls_host = resolve_engine(engine) == "mujoco"
        self.kinematics = Kinematics(model)
        self.train_contexts, self.test_contexts = (jnp.asarray(points, float) for points in contexts)
        self.dt = substeps * float(model.opt.timestep)
        self.nx, self.nu = 2 * model.nv + model.na, model.nu
        self.actions = ActionSpace(model.nu)

    @abstractmethod
    def observe(self, x: Float[Array, " nx"], context: Float[Array, " nc"], noise: Array) -> Float[Array, " frame"]:
        """See `ControlTask.observe`."""

    @abstractmethod
    def measure(self, xs: Float[Array, "T+1 nx"], us: Float[Array, "T nu"], context: Float[Array, " nc"]) -> Array:
        """See `ControlTask.measure`."""

    # What a task may replace.

    @cached_property
    def known(self) -> Simulator:
        """See `gps.tasks.control_task.known_simulator`: the simulator, or with a `model_error` one that is off."""
        if self.model_error == 0.0:
            return self.simulator
        model = misjudged(self.simulator.model, self.model_error)
        return make_simulator(model, self.simulator.substeps, "mujoco" if self.calls_host else "mjx")

    @cached_property
    def cost(self) -> Callable[..., Array]:
        """See `ControlTask.cost`: 1/2 |residual|^2. Tasks whose cost is no sum of squares have a method `cost`."""
        return LeastSquares(self.residual)

    @cached_property
    def final_cost(self) -> Callable[..., Array]:
        """See `ControlTask.final_cost`: likewise, of `final_residual`."""
        return LeastSquares(self.final_residual)

    def residual(self, x: Float[Array, " nx"], u: Float[Array, " nu"], t, context: Float[Array, " nc"]) -> Array:
        """Residuals (nr) of the stage cost; `gps.tasks.costs` has parts of them."""
        raise NotImplementedError(f"task {self.name} must have a method `residual(x, u, t, context)`, or `cost`")

    def final_residual(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Array:
        """Residuals (nr) of the terminal cost: none."""
        del context
        return 0.0 * x[:1]

    def privileged(self, x: Float[Array, " nx"], context: Float[Array, " nc"]) -> Array:
        """What a model-free guider sees: everything, without noise."""
        return jnp.concatenate([x, context])

    def start(self, context: Float[Array, " nc"]) -> tuple[Float[Array, " nq"], Float[Array, " nv"]]:
        """Positions and velocities around which an episode starts: the model's own, at rest."""
        del context
        model = self.simulator.model
        return jnp.asarray(model.qpos0, float), jnp.zeros(model.nv)

    def mocap(self, context: Float[Array, " nc"]) -> Float[Array, "nmocap 3"]:
        """Positions of the mocap bodies in an episode, in m: the model's own. So a context moves geometry."""
        del context
        return jnp.asarray(mocap_poses(self.simulator.model)[0], float)

    def mocap_turns(self, context: Float[Array, " nc"]) -> Float[Array, "nmocap 4"]:
        """Their quaternions: the model's own."""
        del context
        return jnp.asarray(mocap_poses(self.simulator.model)[1], float)

    def draw(self, key: PRNGKeyArray) -> Float[Array, " nc"]:
        """The context of an episode of `reset`: one of those of training."""
        return self.train_contexts[jax.random.randint(key, (), 0, len(self.train_contexts))]

    def initial_state(self, key: PRNGKeyArray, context: Float[Array, " nc"]) -> Float[Array, " nstate"]:
        """See `ControlTask.initial_state`."""
        model = self.simulator.model
        qpos, qvel = self.start(context)
        moved, faster = self.start_noise * jax.random.normal(key, (2, model.nv))
        qpos = configuration(model, coordinates(model, qpos) + moved)
        return physics_state(model, qpos, qvel + faster, (self.mocap(context), self.mocap_turns(context)))

    def control_state(self, state: Float[Array, " nstate"]) -> Float[Array, " nx"]:
        """See `ControlTask.control_state`."""
        model = self.simulator.model
        qpos, rest = jnp.split(state[1 : joints_size(model)], [model.nq])
        return jnp.concatenate([coordinates(model, qpos), rest])

    # Reading of a state x.

    def qpos(self, x: Float[Array, " nx"]) -> Float[Array, " nq"]:
        """All positions, as MuJoCo has them."""
        model = self.simulator.model
        return configuration(model, x[: model.nv])

    def joint(self, x: Float[Array, " nx"], name: str) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Coordinates of a joint and their velocities: one for a hinge or a slide, three for a ball, six for a free."""
        model = self.simulator.model
        at = model.joint(name).dofadr[0]
        size = {FREE: 6, BALL: 3}.get(int(model.joint(name).type[0]), 1)
        return x[at : at + size], x[model.nv + at : model.nv + at + size]

    def position(self, x: Float[Array, " nx"], name: str) -> Float[Array, "3"]:
        """World position of a site or a body, in metres; differentiable."""
        return self.positions(x, name)[0]

    def positions(self, x: Float[Array, " nx"], *names: str) -> Float[Array, "n 3"]:
        """World positions of several."""
        return self.kinematics.positions(self.qpos(x), *names)

    def sensor(self, state: Float[Array, " nstate"], name: str) -> Float[Array, " n"]:
        """What a sensor shows in a physics state; the C engine has no derivative of it."""
        sensor = self.simulator.model.sensor(name)
        return self.simulator.sensors(state)[sensor.adr[0] : sensor.adr[0] + sensor.dim[0]]

    # The environment.

    @cached_property
    def frame_size(self) -> int:
        """Size of one frame."""
        x, context = jnp.zeros(self.nx), self.train_contexts[0]
        return jax.eval_shape(self.observe, x, context, jnp.zeros(self.noise_size)).size

    @cached_property
    def observation_size(self) -> int:
        """Size of what the learner sees."""
        return self.history * self.frame_size

    @cached_property
    def privileged_size(self) -> int:
        """Size of what the guider sees."""
        return jax.eval_shape(self.privileged, jnp.zeros(self.nx), self.train_contexts[0]).size

    def reset(self, key: PRNGKeyArray) -> State:
        """Start an episode in a condition that `draw` draws."""
        pick, start, noise, rest = jax.random.split(key, 4)
        context = self.draw(pick)
        state = self.initial_state(start, context)
        frames = jnp.tile(self._frame(noise, state, context), (self.history, 1))
        data = {"state": state, "context": context, "frames": frames, "t": jnp.zeros((), jnp.int32), "key": rest}
        zero = jnp.zeros(())
        return State(data, self._obs(data), zero, zero, {}, {"truncation": zero})

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """Act once; the reward is the negative cost of the step, at the last one of the end as well."""
        data = state.data
        context, t = data["context"], data["t"]
        noise, rest = jax.random.split(data["key"])
        action = self.simulator.clip(action)
        following = self.simulator.step(data["state"], action)
        x, x_next = self.control_state(data["state"]), self.control_state(following)
        done = t + 1 >= self.horizon
        cost = self.cost(x, action, t, context) + jnp.where(done, self.final_cost(x_next, context), 0.0)
        frames = jnp.concatenate([data["frames"][1:], self._frame(noise, following, context)[None]])
        data = {"state": following, "context": context, "frames": frames, "t": t + 1, "key": rest}
        ended = done.astype(jnp.float32)  # by the time limit, which no observation shows
        return State(data, self._obs(data), -cost, ended, {}, {"truncation": ended})

    def _frame(self, key, state, context):
        return self.observe(self.control_state(state), context, jax.random.normal(key, (self.noise_size,)))

    def _obs(self, data):
        x = self.control_state(data["state"])
        return {"state": data["frames"].reshape(-1), "privileged_state": self.privileged(x, data["context"])}
