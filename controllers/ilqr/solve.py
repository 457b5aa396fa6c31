"""Trajectory optimisation with a known model: the iterative linear-quadratic regulator (iLQR) and DDP.

    minimise   J = sum_{t<T} cost(x[t], u[t], t) + final_cost(x[T])
    over       actions u[0..T-1]
    subject to x[t+1] = dynamics(x[t], u[t], t),   x[0] = x0
               low <= u[t] <= high                                          where limits are given
               equality(x[t], u[t], t) = 0, inequality(x[t], u[t], t) <= 0  where constraints are given,
               final_equality(x[T]) = 0, final_inequality(x[T]) <= 0        each of them optional

with shapes x0 (nx), u (T nu). Every iteration expands the problem around the current trajectory (dynamics
to first order, with method "ddp" to second; cost to second), solves the linear-quadratic problem in
deviations from it, and rolls u = u_old + alpha k + K (x - x_old) through the real model for alpha = 1, 1/2,
1/4, ... until J is lower.

Where the work is: `loop` iterates, `step` searches along what `lqr` sweeps, `problem` expands,
`constrained` adds constraints and `optimality` derivatives of the solution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..expand import Cost, LeastSquares
from . import constrained, optimality
from .flatten import OnFlat, Structure
from .loop import descend
from .problem import Constraints, Data, Dynamics, Problem
from .solution import Options, Solution

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def solve(  # noqa: PLR0913  # the problem has that many parts; all but the first four have names
    dynamics: Callable[..., Any],
    cost: Callable[..., Any],
    x0: Any,
    us: Any,
    *,
    final_cost: Callable[..., Any] | None = None,
    xs: Any = None,
    params: Any = None,
    limits: tuple[Any, Any] | None = None,
    constraints: Constraints | None = None,
    options: Options | None = None,
) -> Solution:
    """Solve the problem at the top of this file, starting from the actions `us`.

    Solves one problem. `jit` it, `vmap` over x0, us, xs, params and limits, or over what the functions close
    over. On a CPU a `vmap` runs one problem after the other, which is several times faster than all in step;
    Options.batching says otherwise. Compiled once for the same functions, options and shapes: define the
    functions once, and pass what changes as `params`.

    `jax.grad` and `jax.jvp` give exact derivatives of states, actions, cost and multipliers in x0, params and
    limits by the implicit function theorem, at the price of one more sweep (with constraints, of twelve), where
    the solve converged; to differentiation everything else in a solution is constant. They need functions that
    reverse mode can differentiate twice.

    Args:
        dynamics: next state (nx) from x (nx), u (nu) and the integer t; or a `Dynamics` with its Jacobian.
            iLQR needs forward-mode derivatives only.
        cost: scalar in task units from x, u, t; twice differentiable. Or a `LeastSquares`, or a `Cost` with
            its derivatives.
        x0: start state; an array (nx) or a pytree of arrays.
        us: initial actions; an array (T nu) or a pytree with leading T.
        final_cost: scalar in task units from x[T], or as `cost`; None is zero.
        xs: initial states (T+1 nx), like x0 with leading T+1, which need not follow from the actions: their
            gaps close in the course of the solve. xs[0] counts as x0. None rolls the actions out.
        params: a pytree that every function takes as its last argument; None for no such argument.
        limits: lowest and highest action, each like one action, like `us`, or a number; may be infinite.
        constraints: functions for equality and inequality constraints.
        options: method, tolerances, regularisation, line search, treatment of constraints.

    Errors:
        ValueError for wrong shapes and types, NaN, and limits that cross, before anything is compiled. Raises
        nothing under jit; see Status. K is NaN where the status is NON_FINITE, and where no regularisation
        makes Q_uu positive definite. A start at a saddle or a maximum of J has a zero gradient and counts as
        converged.

    Source:
        Tassa, Erez and Todorov, "Synthesis and stabilization of complex behaviors through online trajectory
        optimization", IROS 2012. Unlike there, a small gain ends the solve only where the model expects no more
        of a full step, and what is regularised is by default Q_uu, in action space.
        Gradient test: Dennis and Schnabel, "Numerical methods for unconstrained optimization", section 7.2.
        Gaps: Mastalli et al., "Crocoddyl", ICRA 2020; unlike there, with an exact penalty for them.
    """
    options = options or Options()
    X, U, x0, us, xs = _arrays(x0, us, xs)
    if limits is not None:
        limits = _limits(limits, U, us, options)
    problem = Problem(dynamics, cost, final_cost or _nothing, constraints)
    if not (X.plain and U.plain):
        problem = _on_flat(problem, X, U)
    args = () if params is None else (params,)
    solution = _compiled(problem, options, x0, us, xs, args, limits)
    if X.plain and U.plain:
        return solution
    return replace(solution, states=X.unflatten(solution.states), actions=U.unflatten(solution.actions))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(problem: Problem, options: Options, x0, us, xs, args: tuple, limits) -> Solution:
    _check_functions(problem, x0, us[0], args)
    return _differentiable(problem, options, x0, us, xs, args, limits)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _differentiable(problem: Problem, options: Options, x0, us, xs, args: tuple, limits) -> Solution:
    def alone(x0, us, xs, args, limits):
        if problem.constraints is not None:
            return constrained.solve(problem, options, x0, us, xs, args, limits)
        return descend(problem, options, x0, us, xs, Data(args), limits)

    lockstep = options.batching == "lockstep" or (options.batching == "auto" and jax.default_backend() != "cpu")
    if _closes_over_a_tracer(problem, x0, us[0], args):
        return alone(x0, us, xs, args, limits)
    return _batched(alone, lockstep)(x0, us, xs, args, limits)


def _batched(function: Callable[..., Any], lockstep: bool) -> Callable[..., Any]:
    """The function with a rule for `vmap`: in lockstep, or a loop, in which no member of a batch waits for another.

    Where an explicit axis of a mesh shards the batch, each device goes through its own part.
    """
    wrapped = jax.custom_batching.custom_vmap(function)

    @wrapped.def_vmap
    def rule(_size, batched, *args):
        leaves, structure = jax.tree.flatten(args)
        moving = jax.tree.leaves(batched)

        def run(moved, fixed):
            def one(slices):
                mine, kept = iter(slices), iter(fixed)
                args = structure.unflatten([next(mine) if m else next(kept) for m in moving])
                return function(*args) if lockstep else wrapped(*args)

            return jax.vmap(one)(moved) if lockstep else jax.lax.map(one, moved)

        moved, fixed = ([a for a, m in zip(leaves, moving, strict=True) if m is wanted] for wanted in (True, False))
        out = _each_device_its_own(run, moved, fixed)
        return out, jax.tree.map(lambda _: True, out)

    return wrapped


def _each_device_its_own(run: Callable[..., Any], moved: list[Any], fixed: list[Any]) -> Any:
    """Run batches `moved`, in parts where an explicit axis of a mesh shards them."""
    shardings = [jax.typeof(leaf).sharding for leaf in moved]
    axes = {sharding.spec[0] for sharding in shardings if isinstance(sharding, jax.NamedSharding) and sharding.spec}
    axes.discard(None)
    if not axes:
        return run(moved, fixed)
    batch, everywhere = jax.P(axes.pop()), jax.P()  # a batch has one sharding, or `vmap` would have refused it
    sharded = jax.shard_map(run, in_specs=(batch, everywhere), out_specs=batch, check_vma=False)
    return sharded([jax.reshard(leaf, batch) for leaf in moved], [jax.reshard(leaf, everywhere) for leaf in fixed])


def _closes_over_a_tracer(problem: Problem, x, u, args: tuple) -> bool:
    """Whether a function closes over what is being transformed, which no rule for batches can see.

    Errors:
        ValueError where that is being differentiated: derivatives are taken in x0, params and limits alone.
    """
    parts = _functions(problem, x, u, args)
    constants = [constant for _, function, given, _ in parts for constant in jax.make_jaxpr(function)(*given).consts]
    if any(type(constant).__name__ in ("JVPTracer", "LinearizeTracer") for constant in constants):
        raise ValueError("a function closes over a value that is being differentiated: pass it as params instead")
    return any(isinstance(constant, Tracer) for constant in constants)


@_differentiable.defjvp
def _derivative(problem: Problem, options: Options, primals, tangents):
    x0, _, _, args, limits = primals
    dx0, _, _, dargs, dlimits = tangents  # where a solve starts does not change where it ends
    solution = _differentiable(problem, options, *primals)
    return solution, optimality.tangent(problem, solution, (x0, args, limits), (dx0, dargs, dlimits))


def _nothing(x, *_args):
    """The final cost where there is none."""
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(x)))


def _arrays(x0, us, xs) -> tuple[Structure, Structure, Array, Array, Array | None]:
    """Flat arrays of one floating type, and how they came."""
    for name, tree in (("x0", x0), ("us", us), ("xs", xs)):
        _check_numbers(name, tree)
    dtype = jnp.result_type(*jax.tree.leaves((x0, us)))
    x0, us, xs = (jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree) for tree in (x0, us, xs))
    if isinstance(x0, jax.Array) and x0.ndim != 1:
        raise ValueError(f"x0 must have shape (nx,), not {x0.shape}; use jax.vmap for several start states")
    if isinstance(us, jax.Array) and us.ndim != 2:
        raise ValueError(f"us must have shape (T, nu) with T and nu at least 1, not {us.shape}")
    horizons = sorted({leaf.shape[:1] for leaf in jax.tree.leaves(us)})
    if len(horizons) != 1 or horizons[0] in ((), (0,)):
        raise ValueError(f"us must have one leading axis of length T, at least 1, not {horizons}")
    X, U, T = Structure.of(x0, 0), Structure.of(us, 1), horizons[0][0]
    flat_x, flat_u = X.flatten(x0), U.flatten(us, 1)
    for name, flat in (("x0", flat_x), ("us", flat_u)):
        if flat.size == 0:
            raise ValueError(f"{name} must hold at least one number for each moment, not shape {flat.shape}")
    if xs is None:
        return X, U, flat_x, flat_u, None
    if Structure.of(xs, 1) != X or {leaf.shape[:1] for leaf in jax.tree.leaves(xs)} != {(T + 1,)}:
        given = [leaf.shape for leaf in jax.tree.leaves(xs)]
        raise ValueError(f"xs must be like x0 with a leading axis of T+1 = {T + 1}, not of shape {given}")
    return X, U, flat_x, flat_u, X.flatten(xs, 1)


def _check_numbers(name: str, tree) -> None:
    """Raise ValueError for what is no floating-point number, and for what is not finite, if that can be known."""
    for leaf in jax.tree.leaves(tree):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"{name} must hold floating-point numbers, not {jnp.result_type(leaf)}")
        if not isinstance(leaf, Tracer) and not np.isfinite(leaf).all():
            raise ValueError(f"{name} must be finite: it holds NaN or infinity")


def _limits(limits, U: Structure, us: Array, options: Options) -> tuple[Array, Array]:
    """Two arrays like us."""
    if options.parallel_in_time:
        raise ValueError("limits must be None with parallel_in_time: give them as an inequality constraint")
    if not isinstance(limits, tuple | list | np.ndarray | jax.Array) or len(limits) != 2:
        raise ValueError(f"limits must be a pair (low, high), not {limits!r}")

    def like_us(name, limit):
        try:
            if not U.plain and jax.tree.structure(limit) == U.treedef:
                leaves = zip(jax.tree.leaves(limit), jax.tree.leaves(U.unflatten(us)), strict=True)
                limit = U.flatten(U.treedef.unflatten([jnp.broadcast_to(a, b.shape) for a, b in leaves]), 1)
            return jnp.broadcast_to(jnp.asarray(limit, us.dtype), us.shape)
        except (ValueError, TypeError):
            shape = ", ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(limit))
            raise ValueError(f"{name} of limits must fit one action, {us.shape[1:]}, or us, not {shape}") from None

    low, high = like_us("low", limits[0]), like_us("high", limits[1])
    if not isinstance(low, Tracer) and not isinstance(high, Tracer):
        bad = ~(np.asarray(low) <= np.asarray(high))
        if bad.any():
            t, i = np.argwhere(bad)[0]
            raise ValueError(
                f"limits must have low <= high, not {low[t, i]} and {high[t, i]} for action {i} at t = {t}"
            )
    return low, high


def _on_flat(problem: Problem, X: Structure, U: Structure) -> Problem:
    """The same problem on flat arrays."""

    def wrap(function, u: Structure | None = U, returns_state: bool = False) -> Any:
        if isinstance(function, LeastSquares) and function.jacobian is None:
            return LeastSquares(OnFlat(function.residual, X, u))
        if isinstance(function, Dynamics | Cost | LeastSquares):
            raise ValueError(f"a {type(function).__name__} with derivatives of its own needs x0 and us to be arrays")
        return function if function is None else OnFlat(function, X, u, returns_state)

    c = problem.constraints
    if c is not None:
        ends = (wrap(c.final_equality, None), wrap(c.final_inequality, None))
        c = Constraints(wrap(c.equality), wrap(c.inequality), *ends)
    return Problem(wrap(problem.dynamics, returns_state=True), wrap(problem.cost), wrap(problem.final_cost, None), c)


def _functions(problem: Problem, x: Float[Array, " nx"], u: Float[Array, " nu"], args: tuple) -> list[tuple]:
    """Name, function, arguments and what it must return (None: any vector) of all that the problem has."""
    scalar = jax.ShapeDtypeStruct((), x.dtype)
    stage, final, c = (x, u, jnp.array(0), *args), (x, *args), problem.constraints or Constraints()
    parts = [
        ("dynamics", problem.dynamics, stage, x),
        ("cost", problem.cost, stage, scalar),
        ("final_cost", problem.final_cost, final, scalar),
        ("equality", c.equality, stage, None),
        ("inequality", c.inequality, stage, None),
        ("final_equality", c.final_equality, final, None),
        ("final_inequality", c.final_inequality, final, None),
    ]
    return [part for part in parts if part[1] is not None]


def _check_functions(problem: Problem, x: Float[Array, " nx"], u: Float[Array, " nu"], args: tuple) -> None:
    """Raise ValueError where a function returns something of a wrong shape or type."""
    for name, function, given, right in _functions(problem, x, u, args):
        out = jax.eval_shape(function, *given)
        said = f"{out.dtype} of shape {out.shape}" if hasattr(out, "shape") else f"a {type(out).__name__}"
        wanted = f"{x.dtype} of shape {right.shape}" if right is not None else f"{x.dtype} of shape (n,)"
        fits = said == wanted if right is not None else getattr(out, "ndim", 0) == 1 and out.dtype == x.dtype
        if not fits:
            raise ValueError(f"{name} must return {wanted}, not {said}")
