"""Priors of the local dynamics, by name: what is known of a time step's dynamics before its own samples are heard.

| name         | what it takes dynamics to be                                      | carries over between iterations   |
|--------------|-------------------------------------------------------------------|-----------------------------------|
| `pooled`     | the same everywhere                                               | nothing                           |
| `window`     | much the same at neighbouring time steps                          | nothing                           |
| `mixture`    | those of the cluster that a step's samples fall into              | transitions, a Gaussian mixture   |
| `neural`     | those of a network of the change of state, linearised there       | transitions, the network          |
| `identified` | those of the known model with parameters that fit the samples     | transitions, the parameters       |
| `known`      | those of the known model, differentiated there                    | nothing                           |

A prior of one's own is one more class that has the methods of `DynamicsPrior`, and one more line in `PRIORS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynamics import buffer, mixture, neural_prior, prior
from dynamics.buffer import Buffer
from dynamics.prior import Prior, transitions
from gps.errors import UserError
from gps.guiders.model_based.deviations import Deviations
from gps.guiders.model_based.model_priors import IdentifiedModel, Known
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import LocalModelSettings
from gps.tasks.control_task import ControlTask


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
    settings: LocalModelSettings
    certain = False

    def init(self) -> Any:
        return ()

    def update(self, state: Any, samples: Samples) -> Any:
        return state

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        return prior.conditioned(deviations.pool(), self.task.nx, self.settings.regularization)


@dataclass(frozen=True)
class Window:
    """See the top of this file."""

    task: ControlTask
    settings: LocalModelSettings
    certain = False

    def init(self) -> Any:
        return ()

    def update(self, state: Any, samples: Samples) -> Any:
        return state

    def around(self, state: Any, samples: Samples, deviations: Deviations) -> Prior:
        return _conditioned(deviations.windows(), self.task.nx, self.settings.regularization)


@dataclass(frozen=True)
class ClusterMixture:
    """See the top of this file."""

    task: ControlTask
    settings: LocalModelSettings
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
        shares, _ = mixture.responsibilities(fitted, w.reshape(-1, w.shape[-1]))
        shares = jnp.einsum("mn,mntk->mtk", samples.share, shares.reshape(*w.shape[:-1], -1))
        scatter = jax.vmap(jax.vmap(lambda share: mixture.moments(fitted, share)[1]))(shares)
        return _conditioned(scatter, self.task.nx, self.settings.regularization)


@dataclass(frozen=True)
class Network:
    """See the top of this file."""

    task: ControlTask
    settings: LocalModelSettings
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
        return deviations.believed(jax.vmap(jax.vmap(state[1].network.slope))(at))

    def dynamics(self, x: Array, u: Array, t: Array, params: tuple[Array, Array, Any]) -> Array:
        """x' for plans; of `params`, which begin with context and time, only the prior's state matters."""
        return x + params[2][1].network.change(jnp.concatenate([x, u]))


PRIORS = {
    "pooled": Pooled,
    "window": Window,
    "mixture": ClusterMixture,
    "neural": Network,
    "identified": IdentifiedModel,
    "known": Known,
}


def make(task: ControlTask, settings: LocalModelSettings) -> DynamicsPrior:
    """The prior that the settings name, for a task.

    Errors:
        UserError for a prior that takes the task's model, where it can not.
    """
    try:
        return PRIORS[settings.prior](task, settings)
    except ValueError as error:
        raise UserError(f"guider.local_model.prior = {settings.prior!r}: {error}") from error


def _conditioned(scatter: Float[Array, "M T nw nw"], nx: int, regularization: float) -> Prior:
    return jax.vmap(jax.vmap(lambda s: prior.conditioned(s, nx, regularization)))(scatter)


def _added(kept: Buffer, samples: Samples, most: int) -> Buffer:
    w = transitions(samples.xs, samples.us)
    weights = jnp.broadcast_to(samples.weights[..., None], w.shape[:-1])
    return buffer.add(kept, w.reshape(-1, w.shape[-1]), weights.reshape(-1), most)


def _size(task: ControlTask) -> int:
    return 2 * task.nx + task.nu
