"""What the iLQR solver is told, and what it answers: options, status, trace and solution."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..expand import HESSIANS
from ..types import LinearGaussian
from .flatten import Structure

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

METHODS = ("ilqr", "ddp")
REGULARIZATIONS = ("control", "state")
BATCHINGS = ("auto", "sequential", "lockstep")
LINE_SEARCHES = ("auto", "backtracking", "parallel")


class Status(enum.IntEnum):
    """How a solve ended."""

    CONVERGED_COST = 0  # a full step is predicted, and was seen, to gain less than the cost tolerance
    CONVERGED_GRADIENT = 1  # the gradient is below its tolerance
    CONVERGED_STEP = 2  # a full step changes the actions by less than the step tolerance
    ITERATION_LIMIT = 3
    LINE_SEARCH_FAILED = (
        4  # no step lowers the cost at any regularisation: is the model smooth there? is float32 too coarse?
    )
    REGULARIZATION_LIMIT = 5  # some Q_uu is not positive definite even at regularization_max
    NON_FINITE = 6  # a state, the cost or a derivative is not finite along the trajectory
    CONSTRAINTS_VIOLATED = 7  # the penalty is at its limit and the constraints still do not hold: are they feasible?


@dataclass(frozen=True)
class Options:
    """Settings of the solver. Tolerances are relative; one below 10 machine epsilons counts as 10."""

    max_iterations: int = 200
    cost_tolerance: float = 1e-8  # on the gain of a full step, as a part of |J|
    gradient_tolerance: float = 1e-6  # on the largest |dJ/dk| max(|u|, 1), as a part of |J|; u = k + K dx
    step_tolerance: float = 1e-12  # on the largest change of an action by a full step, as a part of the largest |u|
    # "ilqr": the dynamics to first order. "ddp": to second order once an iteration gains less than ddp_switch |J|.
    method: str = "ilqr"
    ddp_switch: float = 1e-3
    # "clip" keeps Q_uu positive definite wherever the cost is strictly convex in u. "exact" leaves a cost that is
    # concave in x, such as 1 + cos(angle), to be met by regularisation, which shortens the whole trajectory's step for
    # the sake of one moment: in swing-ups from random starts it takes the most iterations, and "clip" the fewest.
    hessian: str = "clip"  # see controllers.expand.quadratize
    # "control": mu I is added to Q_uu, and mu is in cost units per squared action unit. "state": mu I is added to V
    # where gains are computed, which holds the new states, not the actions, near the old; cost per squared state unit.
    regularization_type: str = "control"
    regularization: float = 0.0  # where the schedule starts
    regularization_min: float = 1e-6  # the smallest that is not zero
    regularization_max: float = 1e10  # the largest tried; the solver gives up where it fails
    regularization_factor: float = 1.6  # of the first rise or fall; each further one in a row is larger by it again
    short_step: float = 0.05  # a step accepted at this length, or less, raises the regularisation
    long_step: float = 0.3  # one accepted at more than this lowers it
    line_search: str = "auto"  # "backtracking", "parallel" (all steps at once), or by device: parallel but for a CPU
    line_search_steps: int = 10  # step lengths tried
    step_decay: float = 0.5  # ratio of a step length to the one before
    acceptance: float = 0.1  # least ratio of actual to expected decrease
    parallel_in_time: bool = False  # associative scans over time; for long horizons on a GPU
    # what `jax.vmap` of a solve does: "sequential", one problem after the other, or "lockstep", an iteration of all at
    # a time, in which those that have ended still take part; "auto" is sequential on a CPU
    batching: str = "auto"
    gap_tolerance: float = 1e-9  # on the largest gap between states, as a part of the largest |x|
    # with constraints only
    constraint_tolerance: float = 1e-6  # on the largest violation, in the constraint's own unit
    penalty: float = 1.0  # of a squared violation, at first; cost units per squared constraint unit
    penalty_factor: float = 10.0  # its growth from round to round
    penalty_max: float = 1e8
    rounds: int = 20  # solves with fixed multipliers, at most
    polish: int = 5  # Newton steps on the optimality conditions at the end, at most; 0 for none

    def __post_init__(self):
        for name, fine, right in (
            ("max_iterations", self.max_iterations >= 1, "at least 1"),
            ("cost_tolerance", self.cost_tolerance >= 0.0, "zero or positive"),
            ("gradient_tolerance", self.gradient_tolerance >= 0.0, "zero or positive"),
            ("step_tolerance", self.step_tolerance >= 0.0, "zero or positive"),
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("ddp_switch", self.ddp_switch >= 0.0, "zero or positive"),
            ("hessian", self.hessian in HESSIANS, f"one of {', '.join(HESSIANS)}"),
            (
                "regularization_type",
                self.regularization_type in REGULARIZATIONS,
                f"one of {', '.join(REGULARIZATIONS)}",
            ),
            ("regularization", 0.0 <= self.regularization <= self.regularization_max, "in [0, regularization_max]"),
            ("regularization_min", self.regularization_min > 0.0, "positive"),
            ("regularization_max", self.regularization_max > self.regularization_min, "above regularization_min"),
            ("regularization_factor", self.regularization_factor > 1.0, "above 1"),
            ("short_step", 0.0 <= self.short_step <= self.long_step, "in [0, long_step]"),
            ("long_step", self.long_step < 1.0, "below 1"),
            ("line_search", self.line_search in LINE_SEARCHES, f"one of {', '.join(LINE_SEARCHES)}"),
            ("line_search_steps", self.line_search_steps >= 1, "at least 1"),
            ("step_decay", 0.0 < self.step_decay < 1.0, "between 0 and 1"),
            ("acceptance", 0.0 < self.acceptance < 1.0, "between 0 and 1"),
            ("batching", self.batching in BATCHINGS, f"one of {', '.join(BATCHINGS)}"),
            ("gap_tolerance", self.gap_tolerance >= 0.0, "zero or positive"),
            ("constraint_tolerance", self.constraint_tolerance > 0.0, "positive"),
            ("penalty", 0.0 < self.penalty <= self.penalty_max, "in (0, penalty_max]"),
            ("penalty_factor", self.penalty_factor > 1.0, "above 1"),
            ("rounds", self.rounds >= 1, "at least 1"),
            ("polish", self.polish >= 0, "zero or positive"),
        ):
            if not fine:
                raise ValueError(f"{name} must be {right}, not {getattr(self, name)!r}")
        if self.parallel_in_time and self.regularization_type == "state":
            raise ValueError('regularization_type must be "control" with parallel_in_time, not "state"')
        if self.parallel_in_time and self.method == "ddp":
            raise ValueError('method must be "ilqr" with parallel_in_time, not "ddp"')


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """One entry an iteration, and NaN after the last; I = max_iterations."""

    cost: Float[Array, " I"]  # J before the iteration, with constraints the augmented Lagrangian
    gradient_norm: Float[Array, " I"]  # max |dJ/dk| before the iteration, along the feedback of the one before
    regularization: Float[Array, " I"]  # that the step was computed with
    step_size: Float[Array, " I"]  # alpha of the accepted step; 0 where every alpha was rejected
    expected_decrease: Float[Array, " I"]  # of J + price * gaps by the quadratic model, for the last alpha tried
    actual_decrease: Float[Array, " I"]  # of the same, for the last alpha tried
    gap: Float[Array, " I"]  # largest |dynamics(x[t], u[t], t) - x[t+1]| before the iteration

    @classmethod
    def empty(cls, iterations: int, dtype) -> Trace:
        """Nothing but NaN."""
        return cls(*[jnp.full(iterations, jnp.nan, dtype)] * len(fields(cls)))

    def table(self) -> Float[Array, "I n"]:
        """The fields as columns."""
        return jnp.stack(jax.tree.leaves(self), axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """A trajectory and feedback around it. Without constraints it is never worse than an initial one without gaps.

    The feedback is optimal for the expansion that the method works with; where the dynamics are nonlinear, the
    true optimum also depends on their second derivatives ("ddp"). Where states or actions are pytrees, K, chol
    and gradients are for their leaves, flattened and joined in the order of `jax.tree.leaves`. With constraints, K and
    chol belong to the augmented Lagrangian of the last round, whose penalty holds states near active constraints.
    """

    states: Any  # T+1 nx, or a pytree with leading T+1
    actions: Any  # T nu, or a pytree with leading T
    K: Float[Array, "T nu nx"]  # gains around this trajectory; zero for an action at its limit
    chol: Float[Array, "T nu nu"]  # lower triangular, chol chol' = (Q_uu + damping)^-1 on the free actions
    cost: Float[Array, ""]  # J, in task units
    gradient_norm: Float[Array, ""]  # max |dJ/dk| along the feedback, where the limits leave u free
    regularization: Float[Array, ""]  # of K and chol: zero if each Q_uu is positive definite, else the least that helps
    iterations: Int[Array, ""]
    status: Int[Array, ""]  # a Status
    gap: Float[Array, ""]  # largest |dynamics(x[t], u[t], t) - x[t+1]|
    violation: Float[Array, ""]  # of the constraints, the largest; zero without any
    multipliers: Any  # of the constraints, see controllers.ilqr.constrained.Multipliers; None without any
    trace: Trace

    @property
    def k(self) -> Float[Array, "T nu"]:
        """Offsets of the feedback in absolute coordinates, u = Kx + k."""
        lead = self.K.ndim - 2  # a batch, and time
        xs, us = (Structure.of(tree, lead).flatten(tree, lead) for tree in (self.states, self.actions))
        return us - jnp.einsum("...tux,...tx->...tu", self.K, xs[..., :-1, :])

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the solve ended at an optimum, to its tolerances."""
        return self.status <= Status.CONVERGED_STEP

    def controller(self, temperature: Float[Array, " T"] | float = 1.0) -> LinearGaussian:
        """u[t] ~ N(actions[t] + K[t] (x - states[t]), temperature Q_uu^-1); temperature in task units per nat."""
        scale = jnp.sqrt(jnp.asarray(temperature, self.chol.dtype))
        return LinearGaussian(self.K, self.k, scale[..., None, None] * self.chol)

    def __getitem__(self, i) -> Solution:
        """Of a batch of solutions, one, or a part."""
        if np.ndim(self.status) == 0:
            raise TypeError("this is one solution, not a batch")
        if isinstance(i, int) and not -len(self.status) <= i < len(self.status):  # jax would take the nearest
            raise IndexError(f"there are {len(self.status)} solutions, so none has the index {i}")
        return jax.tree.map(lambda a: a[i], self)

    def __str__(self):
        if np.ndim(self.status) > 0:
            kinds, counts = np.unique(np.asarray(self.status), return_counts=True)
            ends = ", ".join(f"{n} {_words(kind)}" for kind, n in zip(kinds, counts, strict=True))
            least, most = np.min(self.iterations), np.max(self.iterations)
            return (
                f"iLQR: {np.sum(self.converged)} of {np.size(self.status)} solves converged ({ends}) "
                f"in {least} to {most} iterations, cost {np.min(self.cost):.6g} to {np.max(self.cost):.6g}"
            )
        said = (
            f"iLQR: {_words(self.status)} after {self.iterations} iterations, cost {self.cost:.6g}, "
            f"gradient {self.gradient_norm:.2g}, regularisation {self.regularization:.2g}"
        )
        said += f", gap {self.gap:.2g}" if self.gap > 0 else ""
        said += f", violation {self.violation:.2g}" if self.multipliers is not None else ""
        stuck = self.iterations == 0 and self.status == Status.CONVERGED_GRADIENT
        return said + " (the start is stationary: is it the minimum?)" if stuck else said


def _words(status) -> str:
    name = Status(int(status)).name.lower().replace("_", " ")
    return name.replace("converged ", "converged by ")
