"""What the iLQR solver is told, and what it answers: options, status, trace and solution."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from controllers.expand import HESSIANS
from controllers.types import LinearGaussian

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


class Status(enum.IntEnum):
    """How a solve ended."""

    CONVERGED_COST = 0  # a full step is predicted, and was seen, to gain less than the cost tolerance
    CONVERGED_GRADIENT = 1  # the gradient is below its tolerance
    ITERATION_LIMIT = 2
    LINE_SEARCH_FAILED = 3  # no step lowers the cost at any regularisation: is the model smooth there?
    REGULARIZATION_LIMIT = 4  # some Q_uu is not positive definite even at regularization_max
    NON_FINITE = 5  # a state, the cost or a derivative is not finite along the trajectory


@dataclass(frozen=True)
class Options:
    """Settings of the solver. Regularisation is in cost units per squared action unit."""

    max_iterations: int = 200
    # Both tolerances are parts of |J|; below 10 machine epsilons they count as 10.
    cost_tolerance: float = 1e-8  # on the gain of a full step
    gradient_tolerance: float = 1e-6  # on the largest |dJ/du| max(|u|, 1)
    # "clip" costs one small eigendecomposition a step and keeps Q_uu positive definite wherever the cost is
    # strictly convex in u. "exact" leaves a cost that is concave in x, such as 1 + cos(angle), to be met by
    # regularisation, which shortens the whole trajectory's step for the sake of one moment: in swing-ups from random
    # starts it takes the most iterations, and "clip" the fewest.
    hessian: str = "clip"  # see controllers.expand.quadratize
    regularization: float = 0.0  # where the schedule starts
    regularization_min: float = 1e-6  # the smallest that is not zero
    regularization_max: float = 1e10  # the largest tried; the solver gives up where it fails
    regularization_factor: float = 1.6  # of the first rise or fall; each further one in a row is larger by it again
    line_search_steps: int = 10  # step lengths tried
    step_decay: float = 0.5  # ratio of a step length to the one before
    acceptance: float = 1e-4  # least ratio of actual to expected decrease

    def __post_init__(self):
        for name, fine, right in (
            ("max_iterations", self.max_iterations >= 1, "at least 1"),
            ("cost_tolerance", self.cost_tolerance >= 0.0, "zero or positive"),
            ("gradient_tolerance", self.gradient_tolerance >= 0.0, "zero or positive"),
            ("hessian", self.hessian in HESSIANS, f"one of {', '.join(HESSIANS)}"),
            ("regularization", 0.0 <= self.regularization <= self.regularization_max, "in [0, regularization_max]"),
            ("regularization_min", self.regularization_min > 0.0, "positive"),
            ("regularization_max", self.regularization_max > self.regularization_min, "above regularization_min"),
            ("regularization_factor", self.regularization_factor > 1.0, "above 1"),
            ("line_search_steps", self.line_search_steps >= 1, "at least 1"),
            ("step_decay", 0.0 < self.step_decay < 1.0, "between 0 and 1"),
            ("acceptance", 0.0 < self.acceptance < 1.0, "between 0 and 1"),
        ):
            if not fine:
                raise ValueError(f"{name} must be {right}, not {getattr(self, name)!r}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """One entry an iteration, and NaN after the last; I = max_iterations."""

    cost: Float[Array, " I"]  # J before the iteration
    gradient_norm: Float[Array, " I"]  # max |dJ/du| before the iteration
    regularization: Float[Array, " I"]  # that the step was computed with
    step_size: Float[Array, " I"]  # alpha of the accepted step; 0 where every alpha was rejected
    expected_decrease: Float[Array, " I"]  # of J, by the quadratic model, for the last alpha tried
    actual_decrease: Float[Array, " I"]  # of J, for the last alpha tried


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """A trajectory that is never worse than the initial one, and feedback around it.

    The feedback is optimal for the expansion that `solve` works with; where the dynamics are nonlinear, the
    true optimum also depends on their second derivatives.
    """

    states: Float[Array, "T+1 nx"]
    actions: Float[Array, "T nu"]
    K: Float[Array, "T nu nx"]  # gains around this trajectory
    chol: Float[Array, "T nu nu"]  # lower triangular, chol chol' = (Q_uu + regularization I)^-1
    cost: Float[Array, ""]  # J, in task units
    gradient_norm: Float[Array, ""]  # max |dJ/du|
    regularization: Float[Array, ""]  # of K and chol: zero if each Q_uu is positive definite, else the least that helps
    iterations: Int[Array, ""]
    status: Int[Array, ""]  # a Status
    trace: Trace

    @property
    def k(self) -> Float[Array, "T nu"]:
        """Offsets of the feedback in absolute coordinates, u = Kx + k."""
        return self.actions - jnp.einsum("...tux,...tx->...tu", self.K, self.states[..., :-1, :])

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the solve ended at an optimum, to its tolerances."""
        return (self.status == Status.CONVERGED_COST) | (self.status == Status.CONVERGED_GRADIENT)

    def controller(self, temperature: Float[Array, " T"] | float = 1.0) -> LinearGaussian:
        """u[t] ~ N(actions[t] + K[t] (x - states[t]), temperature Q_uu^-1); temperature in task units per nat."""
        scale = jnp.sqrt(jnp.asarray(temperature, self.chol.dtype))
        return LinearGaussian(self.K, self.k, scale[..., None, None] * self.chol)

    def __str__(self):
        if np.ndim(self.status) > 0:
            return f"iLQR: {np.sum(self.converged)} of {np.size(self.status)} solves converged"
        how = Status(int(self.status)).name.lower().replace("_", " ")
        return (
            f"iLQR: {how} after {self.iterations} iterations, cost {self.cost:.6g}, "
            f"gradient {self.gradient_norm:.2g}, regularisation {self.regularization:.2g}"
        )
