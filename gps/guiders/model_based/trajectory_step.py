"""One improvement of one controller, within its trust region."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from controllers import trust_region
from controllers.types import LinearGaussian, QuadraticCost
from gps.guiders.model_based.local_model import LocalModel
from gps.pytrees import all_finite


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrajectoryStep:
    """One improvement of one condition's controller, and how it was found."""

    controller: LinearGaussian  # in absolute coordinates
    solved: Bool[Array, ""]  # there is a new controller, and it is finite
    kl: Float[Array, ""]  # nats per trajectory, to the reference of the trust region
    eta: Float[Array, ""]  # multiplier of the limit, task units per nat
    sweeps: Array


def improve_within(
    model: LocalModel,
    cost: QuadraticCost,
    reference: LinearGaussian,
    limit: Float[Array, ""],
    eta: Float[Array, ""],
    tolerance: float,
    entropy_weight: Float[Array, " T"] | float = 0.0,
    std_floor: float = 0.0,
) -> TrajectoryStep:
    """Minimise E_p[cost] within KL(p || reference) <= limit in one condition's model (`trust_region.solve`).

    The model knows no limits of the actions; see `within_limits`.

    Args:
        cost: in the model's deviations, in task units.
        reference: in absolute coordinates.
        limit: nats per trajectory.
        eta: where the search for the multiplier starts.
        tolerance: relative, to which the limit is met.
        entropy_weight: see `trust_region.solve`.
        std_floor: smallest standard deviation of an action, given those before it. A reference that is more certain
            counts as one of this.
    """
    options = trust_region.Options(tolerance=tolerance, eta_min=1e-6, eta_max=1e8, std_floor=std_floor)
    solution = trust_region.solve(
        model.dynamics,
        cost,
        trust_region.with_std_floor(model.centred(reference), std_floor),
        limit,
        model.initial,
        entropy_weight=entropy_weight,
        eta=eta,
        options=options,
    )
    controller = model.absolute(solution.controller)
    failed = (solution.status == trust_region.Status.UNREACHABLE) | (solution.status == trust_region.Status.INDEFINITE)
    solved = ~failed & (solution.kl > 0.0) & all_finite(controller, batched=False)
    return TrajectoryStep(controller, solved, solution.kl, solution.eta, solution.sweeps)


def within_limits(model: LocalModel, controller: LinearGaussian) -> LinearGaussian:
    """The controller with mean actions inside [-1, 1] along its mean trajectory in the model; absolute coordinates.

    What is beyond would be cut off in the simulator, and the learner would be taught actions that nothing can apply.
    """
    d, xs = model.dynamics, model.xs

    def step(dx, inputs):
        A, B, c, K, k, x, u = inputs
        wanted = K @ (x + dx) + k
        applied = jnp.clip(wanted, -1.0, 1.0)
        return A @ dx + B @ (applied - u) + c, k + applied - wanted

    inputs = (d.A, d.B, d.c, controller.K, controller.k, xs[:-1], model.us)
    _, k = jax.lax.scan(step, model.initial.mean, inputs)
    return dataclasses.replace(controller, k=k)


def for_each(improve: Callable[..., TrajectoryStep]) -> Callable[..., TrajectoryStep]:
    """Of all conditions: side by side, but on a CPU one after the other, as in lockstep the longest counts."""
    if jax.default_backend() != "cpu":
        return jax.vmap(improve)
    return lambda *conditions: jax.lax.map(lambda each: improve(*each), conditions)
