"""Local models: what the samples of one condition say about dynamics and cost near their mean trajectory.

Models are in deviations from that trajectory, controllers in absolute coordinates.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from controllers import expand
from controllers.marginals import expected_cost, propagate
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from dynamics.regression import fit_dynamics, pooled_prior, transitions
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


def fit(task: ControlTask, samples: Samples, settings: LocalModelSettings) -> LocalModel:
    """Fit dynamics and expand the cost around each condition's mean trajectory; fields get a leading M."""
    share = samples.share
    centre_x = jnp.einsum("mn,mntx->mtx", share, samples.xs)
    centre_u = jnp.einsum("mn,mntu->mtu", share, samples.us)
    dx, du = samples.xs - centre_x[:, None], samples.us - centre_u[:, None]

    w = transitions(dx, du)
    weights = jnp.broadcast_to(samples.weights[..., None], w.shape[:-1])
    prior = pooled_prior(w.reshape(-1, w.shape[-1]), weights.reshape(-1), settings.prior_strength)

    def one(dx, du, centre_x, centre_u, weights, share, context):
        dynamics = fit_dynamics(dx, du, weights, prior, settings.regularization)
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
        return LocalModel(centre_x, centre_u, initial, dynamics, dataclasses.replace(cost, **treated))

    return jax.vmap(one)(dx, du, centre_x, centre_u, samples.weights, share, task.train_contexts)
