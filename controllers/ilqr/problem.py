"""A trajectory optimisation problem and what follows from it along a trajectory: roll-outs and expansions.

Everything here works on flat arrays, x (nx) and u (nu).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import lqr_parallel
from ..expand import LeastSquares, quadratize
from ..linalg import product
from ..types import LinearDynamics, QuadraticCost

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class Dynamics:
    """Dynamics with a Jacobian of your own; stands for the function wherever dynamics are asked for."""

    step: Callable[..., Any]  # x' (nx) from x, u, t
    jacobian: Callable[..., Any]  # (dx'/dx, dx'/du), shapes (nx nx) and (nx nu), from the same arguments

    def __call__(self, *args):
        return self.step(*args)


def jacobian(dynamics: Callable[..., Any]) -> Callable[..., Any]:
    """The function (dx'/dx, dx'/du) of x, u, t, ...: its own, or by forward-mode differentiation."""
    return dynamics.jacobian if isinstance(dynamics, Dynamics) else jax.jacfwd(dynamics, argnums=(0, 1))


@dataclass(frozen=True)
class Constraints:
    """Functions that have to be zero, or zero and below, component by component.

    Each returns a vector. Stage constraints hold for every x[t], u[t] with t < T, final ones for x[T]; with
    parameters, each takes them last.
    """

    equality: Callable[..., Any] | None = None  # of x, u, t
    inequality: Callable[..., Any] | None = None  # of x, u, t
    final_equality: Callable[..., Any] | None = None  # of x
    final_inequality: Callable[..., Any] | None = None  # of x

    def stage(self, x, u, t, *args) -> tuple[Array, Array]:
        """Values (n), equalities first, and which of them are equalities."""
        return _values((self.equality, self.inequality), (x, u, t, *args))

    def final(self, x, *args) -> tuple[Array, Array]:
        """The same at the end."""
        return _values((self.final_equality, self.final_inequality), (x, *args))


def _values(pair, args) -> tuple[Array, Array]:
    dtype = args[0].dtype
    values = [jnp.zeros(0, dtype) if function is None else function(*args) for function in pair]
    return jnp.concatenate(values), jnp.arange(sum(map(len, values))) < len(values[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Multipliers:
    """What the constraints cost: dJ/d(constraint value); equalities first, at least zero for inequalities."""

    stage: Float[Array, "T n"]
    final: Float[Array, " m"]


class Data(NamedTuple):
    """What the functions of a problem depend on besides states, actions and time."""

    args: tuple  # what they take after their other arguments: nothing, or the parameters
    multipliers: Multipliers | None = None
    penalty: Array | None = None  # of a squared violation


class Trajectory(NamedTuple):
    """States x[0..T], actions u[0..T-1], what they cost together, and what is missing between the states."""

    xs: Float[Array, "T+1 nx"]
    us: Float[Array, "T nu"]
    cost: Float[Array, ""]  # J, with the penalty for violated constraints
    gaps: Float[Array, "T nx"]  # dynamics(x[t], u[t], t) - x[t+1]; zero for a trajectory of the dynamics


class Expansion(NamedTuple):
    """The problem near a trajectory, in deviations from it."""

    dynamics: LinearDynamics  # c holds the gaps
    cost: QuadraticCost
    second: Float[Array, "T nx nz nz"] | None  # second derivatives of the dynamics, for DDP
    gradient: Float[Array, "T nu"]  # dJ/dk, see adjoint
    first_costate: Float[Array, " nx"]  # dJ/dx[0]

    @classmethod
    def zero(cls, at: Trajectory, second: bool) -> Expansion:
        """Nothing but zeros, in the shapes of an expansion at a trajectory."""
        (T, nu), nx = at.us.shape, at.xs.shape[1]
        nz, zeros = nx + nu, functools.partial(jnp.zeros, dtype=at.us.dtype)
        dynamics = LinearDynamics(zeros((T, nx, nx)), zeros((T, nx, nu)), zeros((T, nx)), zeros((T, nx, nx)))
        cost = QuadraticCost(zeros((T, nz, nz)), zeros((T, nz)), zeros(T), zeros((nx, nx)), zeros(nx), zeros(()))
        return cls(dynamics, cost, zeros((T, nx, nz, nz)) if second else None, zeros((T, nu)), zeros(nx))


@dataclass(frozen=True)
class Problem:
    """The functions of a problem."""

    dynamics: Callable[..., Any]
    cost: Callable[..., Any]
    final_cost: Callable[..., Any]
    constraints: Constraints | None = None

    def objective(self, xs: Float[Array, "T+1 nx"], us: Float[Array, "T nu"], args: tuple) -> Float[Array, ""]:
        """J."""
        stages = jax.vmap(lambda x, u, t: self.cost(x, u, t, *args))(xs[:-1], us, jnp.arange(len(us)))
        return stages.sum() + self.final_cost(xs[-1], *args)

    def total(self, xs: Float[Array, "T+1 nx"], us: Float[Array, "T nu"], data: Data) -> Float[Array, ""]:
        """J, and where there are multipliers, the augmented Lagrangian but for a constant."""
        J = self.objective(xs, us, data.args)
        if data.multipliers is None:
            return J
        stage, final = self._penalties(data)
        return J + jax.vmap(stage)(xs[:-1], us, jnp.arange(len(us))).sum() + final(xs[-1])

    def _penalties(self, data: Data) -> tuple[LeastSquares, LeastSquares]:
        """1/2 penalty |value + multiplier / penalty|^2, of the positive part for inequalities."""
        constraints, multipliers, penalty = self.constraints, data.multipliers, data.penalty
        assert constraints is not None
        assert multipliers is not None
        assert penalty is not None

        def residual(found, multiplier):
            value, equal = found
            shifted = value + multiplier / penalty
            return jnp.sqrt(penalty) * jnp.where(equal, shifted, jnp.maximum(shifted, 0.0))

        return (
            LeastSquares(lambda x, u, t: residual(constraints.stage(x, u, t, *data.args), multipliers.stage[t])),
            LeastSquares(lambda x: residual(constraints.final(x, *data.args), multipliers.final)),
        )

    def rollout(self, x0, T: int, act: Callable[..., Any], data: Data, gaps: Array | None = None) -> Trajectory:
        """Where the law u = act(x, t) leads; `gaps` (T nx) stay open between the states."""

        def step(x, t):
            u = act(x, t)
            following = self.dynamics(x, u, t, *data.args)
            following = following if gaps is None else following - gaps[t]
            return following, (following, u)

        _, (xs, us) = jax.lax.scan(step, x0, jnp.arange(T))
        xs = jnp.concatenate([x0[None], xs])
        return Trajectory(xs, us, self.total(xs, us, data), jnp.zeros_like(xs[1:]) if gaps is None else gaps)

    def given(self, xs: Float[Array, "T+1 nx"], us: Float[Array, "T nu"], data: Data) -> Trajectory:
        """States and actions as they are, with their gaps."""
        following = jax.vmap(lambda x, u, t: self.dynamics(x, u, t, *data.args))(xs[:-1], us, jnp.arange(len(us)))
        return Trajectory(xs, us, self.total(xs, us, data), following - xs[1:])

    def linearize(self, at: Trajectory, args: tuple) -> LinearDynamics:
        """Dynamics to first order, in deviations."""

        local = jacobian(self.dynamics)
        A, B = jax.vmap(lambda x, u, t: local(x, u, t, *args))(at.xs[:-1], at.us, jnp.arange(len(at.us)))
        return LinearDynamics(A, B, at.gaps, jnp.zeros_like(A))

    def expand(self, at: Trajectory, K: Array, data: Data, hessian: str, second: bool, associative: bool) -> Expansion:
        """Cost to second order, dynamics to first or, if asked for, to second, in deviations."""
        dynamics = self.linearize(at, data.args)
        cost = quadratize(self.cost, self.final_cost, at.xs, at.us, hessian, data.args)
        if data.multipliers is not None:
            cost = jax.tree.map(jnp.add, cost, quadratize(*self._penalties(data), at.xs, at.us))
        costates, gradient = adjoint(dynamics, cost, K, associative)
        curvature = self.second_derivatives(at, data.args) if second else None
        return Expansion(dynamics, cost, curvature, gradient, costates[0])

    def second_derivatives(self, at: Trajectory, args: tuple) -> Float[Array, "T nx nz nz"]:
        """Of the dynamics in z = (x, u)."""
        nx = at.xs.shape[1]

        def first(z, t):
            if isinstance(self.dynamics, Dynamics):
                return jnp.hstack(self.dynamics.jacobian(z[:nx], z[nx:], t, *args))
            return jax.jacfwd(lambda z: self.dynamics(z[:nx], z[nx:], t, *args))(z)

        return jax.vmap(jax.jacfwd(first))(jnp.concatenate([at.xs[:-1], at.us], axis=1), jnp.arange(len(at.us)))


def adjoint(
    dynamics: LinearDynamics, cost: QuadraticCost, K: Float[Array, "T nu nx"], associative: bool = False
) -> tuple[Float[Array, "T+1 nx"], Float[Array, "T nu"]]:
    """Derivatives of J in x[t] and in k[t] along the feedback u = k + K (x - x_old), from an expansion.

    With K = 0 that is dJ/du. At a solution the gradient is zero and the costates are the same for every K; with a
    K that stabilises, rounding does not grow on the way as it does in unstable dynamics.
    """
    nx = dynamics.A.shape[-1]
    g_x, g_u = cost.g[:, :nx], cost.g[:, nx:]
    closed = (dynamics.A + dynamics.B @ K).mT
    g = g_x + jnp.einsum("tux,tu->tx", K, g_u)
    if associative:
        costates = lqr_parallel.rollout(closed[::-1], g[::-1], cost.g_final)[::-1]
    else:

        def back(costate, inputs):
            closed, g = inputs
            costate = g + product(closed, costate)
            return costate, costate

        _, before = jax.lax.scan(back, cost.g_final, (closed, g), reverse=True)
        costates = jnp.concatenate([before, cost.g_final[None]])
    return costates, g_u + jnp.einsum("txu,tx->tu", dynamics.B, costates[1:])
