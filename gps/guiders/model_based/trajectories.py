"""What guiders with linear-Gaussian controllers share: where they start, who collects, one step, and how it is taught.

Controllers p_i are kept in absolute coordinates, local models in deviations from their mean trajectory; M conditions,
N samples each.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from controllers import trust_region
from controllers.expand import HESSIANS
from controllers.marginals import expected_cost, propagate
from controllers.trust_region import TrustRegionSolution
from controllers.types import Gaussian, LinearGaussian, QuadraticCost
from gps.guiders.guider import Metrics
from gps.guiders.model_based.samples import LocalModel, Samples
from gps.pytrees import all_finite, select
from gps.settings import check_at_least, check_one_of, check_positive
from gps.tasks.control_task import ControlTask
from gps.tasks.episodes import Learner, LearnerSettings
from policies import linearize, regression
from policies.mlp import GaussianPolicy

LINEARIZATIONS = ("auto", "differentiation", "regression")
SAMPLING = ("controllers", "learner", "both")


@dataclass(frozen=True)
class TrajectorySettings:
    """Settings that these guiders share; nats are per time step."""

    samples: int = 2  # roll-outs per condition and iteration
    sampling: str = "both"  # who collects: "controllers", "learner" (from the second iteration on), or "both" in turn
    learner_every: int = 2  # with "both", the learner collects every so many iterations
    smoothing: float = 0.0  # steps, standard deviation of the filter over the exploration noise; 0 is white
    start_std: float = 0.3  # standard deviation of the first controllers' actions
    std_floor: float = 0.02  # smallest standard deviation of a controller's actions

    kl_step: float = 1.0  # nats, trust region of one iteration
    kl_step_multiplier_min: float = 0.1  # bounds of its adaptation
    kl_step_multiplier_max: float = 1.0
    kl_tolerance: float = 0.02  # relative, to which the limit is met

    linearization: str = "auto"  # of the learner: "differentiation", "regression", or what the task allows
    hessian: str = "flip"  # of the cost; see controllers.expand
    prior_strength: float = 10.0  # samples that the prior of the local dynamics stands for
    # How far, relative to the sampled cost, a local model may be off and still be used; raise it for costs near zero.
    model_tolerance: float = 1.0
    regularization: float = 1e-6  # of the dynamics' regression, relative to the prior's variances
    learner: LearnerSettings = field(default_factory=LearnerSettings)

    def __post_init__(self):
        check_one_of(self, "linearization", LINEARIZATIONS)
        check_one_of(self, "sampling", SAMPLING)
        check_one_of(self, "hessian", HESSIANS)
        if not self.kl_tolerance < 1:
            raise ValueError(f"kl_tolerance is relative and must be below 1, not {self.kl_tolerance}")
        check_at_least(self, 2, "samples", "learner_every")
        check_at_least(self, 0, "smoothing", "regularization")
        check_positive(self, "start_std", "std_floor", "kl_step", "kl_step_multiplier_min", "kl_tolerance")
        check_positive(self, "prior_strength", "model_tolerance")
        if not self.kl_step_multiplier_min <= 1.0 <= self.kl_step_multiplier_max:
            raise ValueError(
                "kl_step_multiplier_min and kl_step_multiplier_max must enclose 1, not "
                f"{self.kl_step_multiplier_min} and {self.kl_step_multiplier_max}"
            )


def explorers(task: ControlTask, std: float) -> LinearGaussian:
    """For each condition, a controller that explores around the action zero."""
    M, T, nx, nu = len(task.train_contexts), task.horizon, task.nx, task.nu
    chol = jnp.broadcast_to(std * jnp.eye(nu), (M, T, nu, nu))
    return LinearGaussian(jnp.zeros((M, T, nu, nx)), jnp.zeros((M, T, nu)), chol)


def by_learner(task: ControlTask, sampling: str, every: int, iteration: Array) -> Bool[Array, " M"]:
    """For each condition, whether the learner collects this iteration's samples; an untrained one never does."""
    i = iteration
    turn = {"controllers": i < 0, "learner": i > 0, "both": i % every == every - 1}[sampling]
    return jnp.broadcast_to(turn, len(task.train_contexts))


# The learner, seen from the controllers.


def can_differentiate(task: ControlTask, linearization: str) -> bool:
    """Whether the learner is linearised by differentiation, which is what "auto" does where the task allows it.

    Errors:
        ValueError where it is asked for and the task does not allow it.
    """
    differentiable = task.history == 1 and task.noise_size == 0
    if linearization == "differentiation" and not differentiable:
        raise ValueError(
            "linearization = 'differentiation' needs an observation that is a function of the state alone, but "
            f"{task.name} stacks {task.history} frames with {task.noise_size} noise inputs; use 'regression'"
        )
    return differentiable and linearization != "regression"


def linearized(task: ControlTask, policy: GaussianPolicy, samples: Samples, differentiate: bool) -> LinearGaussian:
    """The learner as a controller around the samples of each condition, in absolute coordinates; leading M."""
    xs = samples.xs[:, :, :-1]
    if not differentiate:
        means = policy.mean(samples.observations)
        std = policy.std
        return jax.vmap(linearize.by_regression, in_axes=(0, 0, 0, None))(xs, means, samples.weights, std)

    def one(xs, weights, context):
        def mean(x):
            return policy.mean(task.observe(x, context, jnp.zeros(0)))

        return linearize.by_differentiation(mean, xs, weights, policy.std)

    return jax.vmap(one)(xs, samples.weights, task.train_contexts)


def acquainted(learner: Learner, samples: Samples) -> Learner:
    """The learner with a normaliser that has seen the samples' observations; what it does stays the same."""
    observations = samples.observations.reshape(-1, samples.observations.shape[-1])
    weights = jnp.repeat(samples.weights.reshape(-1), samples.observations.shape[-2])
    policy = learner.policy.renormalized(learner.policy.normalizer.update(observations, weights))
    return dataclasses.replace(learner, policy=policy)


def imitate(
    learner: Learner,
    observations: Float[Array, "M N T no"],
    targets: Float[Array, "M N T nu"],
    precisions: Float[Array, "M T nu nu"],
    weights: Float[Array, "M N T"],
    key: PRNGKeyArray,
    settings: LearnerSettings,
) -> tuple[Learner, Metrics]:
    """Regress the learner on target actions, weighted by their precision; where that fails it stays what it was."""
    size = targets.shape[-1]
    batch = regression.Targets(
        observations=observations.reshape(-1, observations.shape[-1]),
        actions=targets.reshape(-1, size),
        precisions=jnp.broadcast_to(precisions[:, None], (*targets.shape, size)).reshape(-1, size, size),
        weights=weights.reshape(-1),
    )
    trained, memory, loss = regression.fit(learner.policy, learner.memory, batch, key, settings.training)
    # the inverse of the mean precision minimises the weighted KL(pi || p) over a constant covariance
    mean_precision = jnp.einsum("p,pij->ij", batch.weights, batch.precisions) / jnp.maximum(batch.weights.sum(), 1e-20)
    std = jnp.clip(jnp.diagonal(mean_precision) ** -0.5, settings.std_floor, 10.0)
    trained = dataclasses.replace(trained, std=std)
    sound = jnp.isfinite(loss) & all_finite(trained, batched=False)
    learner = select(sound, Learner(trained, memory), learner)
    error = learner.policy.mean(batch.observations) - batch.actions
    squared = (error**2).sum(-1) * batch.weights
    metrics = {
        "learner_loss": loss,
        "learner_error": jnp.sqrt(squared.sum() / jnp.maximum(batch.weights.sum(), 1e-20)),
        "learner_std": std.mean(),
        "failed_fits": 1 - sound.astype(jnp.int32),
    }
    return learner, metrics


# Controllers in their local models.


def solve(
    model: LocalModel,
    cost: QuadraticCost,
    reference: LinearGaussian,
    limit: Float[Array, ""],
    eta: Float[Array, ""],
    tolerance: float,
    entropy_weight: Float[Array, " T"] | float = 0.0,
) -> tuple[LinearGaussian, TrustRegionSolution]:
    """One condition's improvement: minimise E_p[cost] within KL(p || reference) <= limit (`trust_region.solve`).

    Args:
        cost: in the model's deviations, in task units.
        reference: in absolute coordinates.
        limit: nats per trajectory.
        eta: where the search for the multiplier starts.
        tolerance: relative, to which the limit is met.

    Returns:
        The controller in absolute coordinates, and the solution in deviations.
    """
    options = trust_region.Options(tolerance=tolerance, eta_min=1e-6, eta_max=1e8)
    centred = reference.recentred(model.xs[:-1], model.us)
    solution = trust_region.solve(
        model.dynamics, cost, centred, limit, model.initial, entropy_weight=entropy_weight, eta=eta, options=options
    )
    return solution.controller.recentred(-model.xs[:-1], -model.us), solution


def found(controllers: LinearGaussian, solution: TrustRegionSolution) -> Bool[Array, " M"]:
    """Which of the solves ended with a new controller."""
    solved = (solution.status != trust_region.Status.UNREACHABLE) & (solution.status != trust_region.Status.INDEFINITE)
    return solved & (solution.kl > 0.0) & all_finite(controllers)


def objective(models: LocalModel, controllers: LinearGaussian) -> Float[Array, " M"]:
    """E[cost] of each controller in its local model: what an improvement promises, or has brought."""

    def one(model, controller):
        centred = controller.recentred(model.xs[:-1], model.us)
        return expected_cost(model.cost, marginals(model, centred), centred)

    return jax.vmap(one)(models, controllers)


def marginals(model: LocalModel, centred: LinearGaussian) -> Gaussian:
    """Of the states of one condition under a controller, both in the model's deviations."""
    return propagate(model.dynamics, centred, model.initial)


def adapt_step(step: Array, gained: Array, promised: Array, bounds: tuple[float, float]) -> Float[Array, " *M"]:
    """step *= |promised| / (2 (promised - gained)): the minimiser of a quadratic model of the error.

    Args:
        step: multiplies the KL limit.
        gained: improvement of the cost that was measured.
        promised: the one that the local model had predicted; it may be negative where what is minimised is not the
            cost alone.
        bounds: of the step.
    """
    shortfall = jnp.maximum(promised - gained, 1e-4 * jnp.abs(promised))
    factor = jnp.clip(jnp.abs(promised) / (2.0 * shortfall), 0.1, 5.0)
    step = jnp.where(jnp.isfinite(factor), step * factor, step)
    return jnp.clip(step, *bounds)


def with_noise_floor(controllers: LinearGaussian, std: float) -> LinearGaussian:
    """Add std^2 to the covariances: exploration never ends, and no precision is infinite."""
    floor = std**2 * jnp.eye(controllers.k.shape[-1])
    chol = jnp.linalg.cholesky(controllers.chol @ controllers.chol.mT + floor)
    return dataclasses.replace(controllers, chol=chol)


def precision(chol: Float[Array, "*b nu nu"]) -> Float[Array, "*b nu nu"]:
    """(chol chol^T)^-1."""
    eye = jnp.broadcast_to(jnp.eye(chol.shape[-1]), chol.shape)
    inverse = jax.lax.linalg.triangular_solve(chol, eye, left_side=True, lower=True)
    return inverse.mT @ inverse
