"""Parts of a cost, each a residual r whose cost is 1/2 |r|^2 in task units; a task joins them with `total`.

    def residual(self, x, u, t, context):
        return costs.total(
            costs.log_distance(self.position(x, "hand") - context, 1.0, precision=0.01),
            costs.quadratic(u, 0.05),
        )

`MujocoTask` expands a residual by Gauss and Newton: H = J'J, which is never indefinite. All parts have finite
derivatives everywhere, zero distance included. What a residual is about (an offset of points, an angle, an action) is
computed by the task, so that it may depend on the context in any way.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

RAMPS = ("constant", "linear", "quadratic", "final")


def total(*residuals: Float[Array, " _"]) -> Float[Array, " nr"]:
    """The sum of costs: their residuals one after the other."""
    return jnp.concatenate([jnp.atleast_1d(r) for r in residuals])


def weighted(residual: Float[Array, " n"], weight: float | Array) -> Float[Array, " n"]:
    """The cost times a weight that is not negative."""
    return jnp.sqrt(weight) * residual


def quadratic(values: Float[Array, " n"], weight: float | Array) -> Float[Array, " n"]:
    """1/2 weight |values|^2: for states, actions, offsets. The weight is per squared unit of the values."""
    return weighted(jnp.atleast_1d(values), weight)


def smooth_distance(offset: Float[Array, " n"], weight: float | Array, softness: float) -> Float[Array, " n"]:
    """weight (sqrt(d^2 + softness^2) - softness) with d = |offset|: like weight * d far away, a parabola near zero.

    Its slope does not grow with the distance. The residual is offset * sqrt(2 weight / (sqrt(d^2 + softness^2) +
    softness)), a vector: its Hessian by Gauss and Newton is positive definite, where that of the scalar residual
    sqrt(2 cost) would see the direction of the offset alone. Together with `quadratic` it is the l1-l2 distance.

    Args:
        softness: the distance at which the parabola ends, in the unit of the offset; positive.

    Source:
        Levine et al., "End-to-End Training of Deep Visuomotor Policies", JMLR 2016, whose alpha is softness^2; here
        the constant is taken off, so that the cost is zero at zero.
    """
    squared = offset @ offset
    return offset * jnp.sqrt(2.0 * weight / (jnp.sqrt(squared + softness**2) + softness))


def log_distance(offset: Float[Array, " n"], weight: float | Array, precision: float) -> Float[Array, " n"]:
    """1/2 weight log(1 + d^2 / precision^2) with d = |offset|: it is steep near zero, which gives the last millimetres.

    The residual points along the offset, s(d) offset / d with s^2 = weight log(1 + d^2 / precision^2). Its Hessian by
    Gauss and Newton is positive definite, though the cost itself bends downwards beyond d = precision: along the
    offset it is s'^2 (the cost's own second derivative is negative there), and across it (s / d)^2, a little more
    than the cost's own.

    Args:
        precision: the distance in whose order the goal counts as reached, in the unit of the offset; positive.

    Source:
        As `smooth_distance`; its alpha is precision^2, and here the cost is zero at zero.
    """
    z = (offset @ offset) / precision**2
    far = z > 1e-2
    safe = jnp.where(far, z, 1.0)
    series = 1 - z * (1 / 2 - z * (1 / 3 - z * (1 / 4 - z / 5)))
    return offset * jnp.sqrt(weight * jnp.where(far, jnp.log1p(safe) / safe, series)) / precision


def turn(rotation: Float[Array, "3 3"], wanted: Float[Array, "3 3"], weight: float | Array) -> Float[Array, "9"]:
    """1/2 weight (2 sin(angle / 2))^2 for the angle between two rotations, in rad: weight is per rad^2 near zero.

    The residual is sqrt(weight / 2) (rotation - wanted), smooth everywhere and growing up to half a turn.
    """
    return weighted((rotation - wanted).ravel(), 0.5 * weight)


def angle(value: Array, wanted: float | Array, weight: float | Array) -> Float[Array, "1"]:
    """The same for one angle in rad: 1/2 weight (2 sin((value - wanted) / 2))^2, the same after a whole turn.

    The residual is sqrt(weight) 2 sin(half of the difference). Its Hessian by Gauss and Newton is zero at half a turn,
    where the cost's own is negative: what hangs is not held there, as it would be by the residuals of cosine and sine,
    whose Hessian is the same everywhere.
    """
    return weighted(2.0 * jnp.sin(0.5 * jnp.atleast_1d(value - wanted)), weight)


def beyond(values: Float[Array, " n"], low: Array, high: Array, weight: float | Array) -> Float[Array, " n"]:
    """1/2 weight |how far values are outside low..high|^2: soft bounds, of joints or velocities; zero inside."""
    return weighted(jnp.maximum(values - high, 0.0) - jnp.maximum(low - values, 0.0), weight)


def near(distance: Array, within: float, weight: float | Array) -> Float[Array, "1"]:
    """1/2 weight softplus((within - distance) / (within / 4))^2, of obstacles: small beyond `within`, growing inside.

    Args:
        distance: from the obstacle's surface or centre, in m; may be negative.
    """
    depth = (within - distance) / (0.25 * within)
    return weighted(jnp.atleast_1d(jnp.logaddexp(depth, 0.0)), weight)


def ramp(t: Array, T: int, kind: str = "linear") -> Array:
    """Weight of step t of T: constant 1; linear (t + 1) / T; its square; or final: 1 at the last action, else 0.

    Errors:
        ValueError for an unknown kind.
    """
    if kind not in RAMPS:
        raise ValueError(f"ramp {kind!r} is unknown; choose one of {', '.join(RAMPS)}")
    share = (jnp.asarray(t, float) + 1) / T
    last = jnp.asarray(t) == T - 1
    return {"constant": jnp.ones(()), "linear": share, "quadratic": share**2, "final": last.astype(float)}[kind]
