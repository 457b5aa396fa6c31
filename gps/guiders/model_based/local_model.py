"""Local models: what the samples of one condition say about dynamics and cost near their mean trajectory.

Models are in deviations from that trajectory, controllers in absolute coordinates.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers import expand
from controllers.marginals import expected_cost, propagate, quadratic_mean
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from dynamics.prior import transitions
from dynamics.regression import fit_dynamics
from gps.guiders.model_based.deviations import Deviations
from gps.guiders.model_based.priors import DynamicsPrior
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import LocalModelSettings
from gps.tasks.control_task import ControlTask


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LocalModel:
    """Everything local about one condition, in deviations from its mean trajectory (xs, us)."""

    xs: Float[Array, "T+1 nx"]
    us: Float[Array, "T nu"]
    initial: Gaussian
    dynamics: LinearDynamics
    cost: QuadraticCost

    def centred(self, controller: LinearGaussian) -> LinearGaussian:
        """A controller in deviations."""
        return controller.recentred(self.xs[:-1], self.us)

    def absolute(self, controller: LinearGaussian) -> LinearGaussian:
        """A controller that was in deviations."""
        return controller.recentred(-self.xs[:-1], -self.us)

    def marginals(self, centred: LinearGaussian) -> Gaussian:
        """The states, in deviations, under a controller in deviations."""
        return propagate(self.dynamics, centred, self.initial)

    def expected_cost(self, controller: LinearGaussian) -> Float[Array, ""]:
        """E[cost] of an episode under a controller: what an improvement promises, or has brought."""
        centred = self.centred(controller)
        return expected_cost(self.cost, self.marginals(centred), centred)

    def sampled_cost(
        self, xs: Float[Array, "N T+1 nx"], us: Float[Array, "N T nu"], share: Float[Array, " N"]
    ) -> Array:
        """The mean of its quadratic cost over samples, weighed by shares that sum to one."""
        dx, du = xs - self.xs, us - self.us
        z, q = jnp.concatenate([dx[:, :-1], du], axis=-1), self.cost
        stages = quadratic_mean(q.H, q.g, q.c, z, jnp.zeros(())).sum(1)
        return share @ (stages + quadratic_mean(q.H_final, q.g_final, q.c_final, dx[:, -1], jnp.zeros(())))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fitted:
    """The local models of all conditions, and what they are worth; leading M."""

    models: LocalModel
    strength: Float[Array, "M T"]  # samples that the prior of the dynamics stands for
    error: Float[Array, " M"]  # of one step's prediction; see `prediction_error`


def fit(
    task: ControlTask, samples: Samples, settings: LocalModelSettings, prior: DynamicsPrior, state: Any
) -> tuple[Fitted, Any]:
    """Fit dynamics and expand the cost around each condition's mean trajectory.

    Args:
        prior: of the dynamics, and
        state: what it has learned so far.

    Returns:
        The models, and the prior's state with these samples.
    """
    share = samples.share
    centre_x = jnp.einsum("mn,mntx->mtx", share, samples.xs)
    centre_u = jnp.einsum("mn,mntu->mtu", share, samples.us)
    dx, du = _deviations(samples.xs, centre_x), _deviations(samples.us, centre_u)
    state = prior.update(state, samples)
    around = prior.around(state, samples, Deviations(centre_x, centre_u, transitions(dx, du), samples.weights))
    strengths = (
        (CERTAIN,) if prior.certain else STRENGTHS if settings.prior_strength == 0.0 else (settings.prior_strength,)
    )

    def dynamics_of(dx, du, weights, prior):
        return fit_dynamics(dx, du, weights, prior, strengths, settings.regularization)

    shared = around.slope.ndim == 2
    fits = jax.vmap(dynamics_of, in_axes=(0, 0, 0, None if shared else 0))(dx, du, samples.weights, around)

    def one(dx, du, centre_x, centre_u, share, context):
        spread = jnp.einsum("n,nx,ny->xy", share, dx[:, 0], dx[:, 0])
        initial = Gaussian(jnp.zeros(task.nx), spread + 1e-8 * jnp.eye(task.nx))

        def expand_at(dx, du):
            xs, us = centre_x + dx, centre_u + du
            cost = expand.quadratize(task.cost, task.final_cost, xs, us, "exact", (context,))
            return expand.recentre(cost, -dx, -du)

        costs = jax.vmap(expand_at)(dx, du)
        cost = jax.tree.map(lambda values: jnp.tensordot(share, values, axes=1), costs)
        # the mean is treated, not every sample's Hessian: it needs less treatment, and eigenvectors are dear
        treated = {
            "H": expand.treat(cost.H, settings.hessian),
            "H_final": expand.treat(cost.H_final, settings.hessian),
        }
        return initial, dataclasses.replace(cost, **treated)

    initial, cost = jax.vmap(one)(dx, du, centre_x, centre_u, share, task.train_contexts)
    models = LocalModel(centre_x, centre_u, initial, fits.dynamics, cost)
    return Fitted(models, fits.strength, prediction_error(fits.errors, samples)), state


def prediction_error(errors: Float[Array, "M N T nx"], samples: Samples) -> Float[Array, " M"]:
    """One-step error on samples that a fit has not seen, relative to the change of state: median over a condition.

    Both are lengths in units of each dimension's root mean square change in all samples. NaN for a single sample.
    """
    changes = samples.xs[:, :, 1:] - samples.xs[:, :, :-1]
    counts = samples.weights[..., None, None]
    square = (counts * changes**2).sum((0, 1, 2)) / jnp.maximum(counts.sum() * changes.shape[2], 1.0)
    scale = jnp.where(square > 0, 1.0 / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    size, off = (jnp.sqrt(((values * scale) ** 2).sum(-1)) for values in (changes, errors))
    ratio = jnp.where(samples.weights[..., None] > 0, off / jnp.maximum(size, 1e-6), jnp.nan)
    error = jnp.nanmedian(ratio.reshape(len(ratio), -1), axis=1)
    return jnp.where(samples.weights.sum(1) > 1, error, jnp.nan)


def _deviations(values: Float[Array, "M N T n"], centre: Float[Array, "M T n"]) -> Float[Array, "M N T n"]:
    """values - centre, and zero where that is no more than rounding: it would pass for a cause."""
    centre = centre[:, None]
    difference = values - centre
    rounding = 4 * jnp.finfo(values.dtype).eps * jnp.abs(centre)
    return jnp.where(jnp.abs(difference) > rounding, difference, 0.0)


STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # samples; the choice by evidence is among them
CERTAIN = 1e6  # samples that a prior stands for which no sample can move
