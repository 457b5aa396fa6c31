"""Priors of the local dynamics, by name: what is known of a time step's dynamics before its own samples are heard.

| name      | what it takes dynamics to be                                     | carries over between iterations       |
|-----------|------------------------------------------------------------------|---------------------------------------|
| `pooled`  | the same everywhere                                              | nothing                               |
| `window`  | much the same at neighbouring time steps                         | nothing                               |
| `mixture` | those of the cluster that a step's samples fall into             | transitions, a Gaussian mixture       |
| `neural`  | those of a network of the change of state, linearised there      | transitions, the network              |
| `known`   | those of the simulator, differentiated there                     | nothing                               |

A prior of one's own is one more class that has the methods of `DynamicsPrior`, and one more line in `PRIORS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynamics import buffer, known_model, mixture, neural_prior, prior
from dynamics.buffer import Buffer
from dynamics.prior import Prior, transitions
from dynamics.simulator import joints_size
from gps.errors import UserError
from gps.guiders.model_based.samples import Samples
from gps.tasks.control_task import ControlTask, condition_mocap


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Deviations:
    """The samples of all conditions in deviations from each one's mean trajectory (xs, us)."""

    xs: Float[Array, "M T+1 nx"]
    us: Float[Array, "M T nu"]
    w: Float[Array, "M N T nw"]  # (x, u, x' - x)
    weights: Float[Array, "M N"]

    def pool(self) -> Float[Array, "nw nw"]:
        """Covariance over everything."""
        flat = self.w.reshape(-1, self.w.shape[-1])
        return prior.moments(flat, jnp.repeat(self.weights.reshape(-1), self.w.shape[2]))[1]

    def windows(self) -> Float[Array, "M T nw nw"]:
        """Covariance around each time step, which itself does not count."""
        pool = self.pool()
        return jax.vmap(lambda w, weights: prior.window_scatter(w, weights, pool, _WIDTH))(self.w, self.weights)


class DynamicsPrior(Protocol):
    """A frozen object with pure methods; what it learns is in its state, a pytree of arrays of fixed shapes."""

    certain: bool  # it is right whatever the samples say: they only tell the noise

    def init(self) -> Any:
        """The state before the first iteration."""
        ...

    def update(self, state: Any, samples: Samples) -> Any:
        """The state that has seen these samples too."""
        ...

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        """The prior around each condition's mean trajectory, with a leading (M T), or one for all of them."""
        ...


@dataclass(frozen=True)
class Pooled:
    """See the top of this file."""

    task: ControlTask
    regularization: float
    certain = False

    def init(self) -> Any:
        return ()

    def update(self, state: Any, samples: Samples) -> Any:
        return state

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        return prior.conditioned(deviations.pool(), self.task.nx, self.regularization)


@dataclass(frozen=True)
class Window:
    """See the top of this file."""

    task: ControlTask
    regularization: float
    certain = False

    def init(self) -> Any:
        return ()

    def update(self, state: Any, samples: Samples) -> Any:
        return state

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        return _conditioned(deviations.windows(), self.task.nx, self.regularization)


@dataclass(frozen=True)
class ClusterMixture:
    """See the top of this file."""

    task: ControlTask
    regularization: float
    points: int = 4000  # transitions that it is fitted to
    clusters: int = 20  # at most
    certain = False

    def init(self) -> tuple[Buffer, mixture.Mixture]:
        nw = _size(self.task)
        return buffer.empty(self.points, nw), mixture.none_yet(self.clusters, nw)

    def update(self, state: Any, samples: Samples) -> Any:
        kept = _added(state[0], samples, self.points // 2)
        key = jax.random.fold_in(jax.random.key(0), kept.added)
        return kept, mixture.fit(kept.points, kept.weights, state[1], key)

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        """Moments of the clusters, weighed by the mean responsibilities of a time step's samples."""
        fitted = state[1]
        w = transitions(samples.xs, samples.us)
        shares, _ = mixture.responsibilities(mixture.whitening(fitted), w.reshape(-1, w.shape[-1]))
        shares = jnp.einsum("mn,mntk->mtk", samples.share, shares.reshape(*w.shape[:-1], -1))
        scatter = jax.vmap(jax.vmap(lambda share: mixture.moments(fitted, share)[1]))(shares)
        return _conditioned(scatter, self.task.nx, self.regularization)


@dataclass(frozen=True)
class Network:
    """See the top of this file."""

    task: ControlTask
    regularization: float
    points: int = 20_000  # transitions that it is trained on, the last ones
    certain = False

    def init(self) -> tuple[Buffer, neural_prior.Trained]:
        start = neural_prior.start(jax.random.key(0), self.task.nx, self.task.nu)
        return buffer.empty(self.points, _size(self.task)), start

    def update(self, state: Any, samples: Samples) -> Any:
        kept = _added(state[0], samples, self.points // 4)
        key = jax.random.fold_in(jax.random.key(1), kept.added)
        return kept, neural_prior.train(state[1], kept.points, kept.weights, key)

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        at = jnp.concatenate([deviations.xs[:, :-1], deviations.us], axis=-1)
        return _believed(jax.vmap(jax.vmap(state[1].network.slope))(at), deviations)


@dataclass(frozen=True)
class Known:
    """See the top of this file.

    Errors:
        ValueError for a task whose controllers' state is not the physics state without time.
    """

    task: ControlTask
    regularization: float
    certain = True

    def __post_init__(self):
        require_known(self.task)

    def init(self) -> Any:
        return ()

    def update(self, state: Any, samples: Samples) -> Any:
        return state

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        def along(xs, us, context):
            A, B = known_model.jacobians(self.task.simulator, xs[:-1], us, condition_mocap(self.task, context))
            return jnp.concatenate([A - jnp.eye(self.task.nx), B], axis=-1)

        slope = jax.vmap(along)(deviations.xs, deviations.us, self.task.train_contexts)
        # where the simulator itself diverges, the model is one that nobody trusts
        return _believed(jnp.where(jnp.isfinite(slope), slope, 0.0), deviations)


def require_known(task: ControlTask) -> None:
    """Raise ValueError where the simulator's derivatives are not those of the controllers' state."""
    model = task.simulator.model
    x = jnp.arange(1.0, joints_size(model))
    mocap = condition_mocap(task, task.train_contexts[0])
    u = jnp.zeros((1, model.nu))
    jax.eval_shape(lambda x: known_model.jacobians(task.simulator, x, u, mocap), x[None])  # or ValueError
    state = jnp.concatenate([jnp.zeros(1), x, mocap])
    if not np.array_equal(task.control_state(state), x):
        raise ValueError(
            "controllers must have the physics state (qpos, qvel, act) as theirs, and task "
            f"{task.name} has another `control_state`"
        )


PRIORS = {"pooled": Pooled, "window": Window, "mixture": ClusterMixture, "neural": Network, "known": Known}


def make(name: str, task: ControlTask, regularization: float) -> DynamicsPrior:
    """The prior of a name in `PRIORS`, for a task."""
    try:
        return PRIORS[name](task, regularization)
    except ValueError as error:
        hint = ": take 'window', 'mixture' or 'neural'"
        raise UserError(f"guider.local_model.prior = {name!r}: {error}{hint}") from error


def _believed(slope: Float[Array, "M T nx nz"], deviations: Deviations) -> Prior:
    """A prior with this slope; what it has seen, and its error, are those of the samples around each time step."""
    nx = slope.shape[-2]
    scatter = deviations.windows()
    nz = scatter.shape[-1] - nx

    def one(slope, scatter):
        unexplained = jnp.concatenate([-slope, jnp.eye(nx, dtype=slope.dtype)], axis=1)
        noise = unexplained @ scatter @ unexplained.T
        noise = prior.least_noise(0.5 * (noise + noise.T), jnp.diagonal(scatter)[nz:])
        return Prior(slope, scatter[:nz, :nz], noise)

    return jax.vmap(jax.vmap(one))(slope, scatter)


def _conditioned(scatter: Float[Array, "M T nw nw"], nx: int, regularization: float) -> Prior:
    return jax.vmap(jax.vmap(lambda s: prior.conditioned(s, nx, regularization)))(scatter)


def _added(kept: Buffer, samples: Samples, most: int) -> Buffer:
    w = transitions(samples.xs, samples.us)
    weights = jnp.broadcast_to(samples.weights[..., None], w.shape[:-1])
    return buffer.add(kept, w.reshape(-1, w.shape[-1]), weights.reshape(-1), most)


def _size(task: ControlTask) -> int:
    return 2 * task.nx + task.nu


_WIDTH = 2.0  # time steps, standard deviation of the weights of neighbours
