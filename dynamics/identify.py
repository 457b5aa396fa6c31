"""Identification: masses, damping, friction and gains of a MuJoCo model, fitted to what was sampled of the real thing.

The model is right but for p positive parameters, each nominal * exp(theta). With predictions f of the states after each
of W actions from a sampled state, and each coordinate's root mean square change over the W actions as its unit,

    minimise over z:  mean (f(x, u; theta) - sampled)^2 + PULL^2 |z|^2,    theta = z / sqrt(1 + (z / log(bound))^2),

by Levenberg and Marquardt's method. Every z is within the bounds, |theta| < log(bound), and near 0 theta is z. PULL
keeps a factor near 1 that the samples say nothing of, and is too weak to be seen in others.

What can be told is in the sensitivities J of all predictions at the end: a direction in theta whose singular value is s
has the standard error noise / s. Where that is large, or s is no more than rounding, the direction is not identified.
To scale all masses, armatures, dampings, frictions and gains alike, for example, changes no motion.

Noise in the sampled states themselves, from which predictions begin, biases the fit, and no standard error shows that.
All predictions of a window begin from the same state: with such noise and W > 1 standard errors are too small.

Source: Madsen, Nielsen, "Introduction to Optimization and Data Fitting", 2010 (the method, as jaxopt has it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from controllers.minimisers import LevenbergMarquardt
from dynamics.adjustable import Adjustable, adjustable
from dynamics.identified import WIDEST, Identified, Status
from dynamics.parameters import select
from dynamics.simulator import Simulator, physics_state

PULL = 3e-5
ROUNDING = 300.0  # machine epsilons, relative to the largest singular value: what is smaller is none
NEAR_BOUND = 0.9  # of log(bound): a fit does not begin beyond it, where z would move theta no more
STEP = 1e-4  # of a theta: a fit has converged when the next step is smaller for all of them
DIVERGED = 100.0  # residual of a prediction that diverged


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segments:
    """P short pieces of episodes: a state, W actions, and the states x = (qpos, qvel, act) after each."""

    states: Float[Array, "P nstate"]  # as simulators have them
    actions: Float[Array, "P W nu"]
    following: Float[Array, "P W nx"]
    weights: Float[Array, " P"]  # 0 for one that does not count


@dataclass(frozen=True)
class Identification:
    """The problem: `solve` is pure, and is compiled once for segments of a size."""

    adjustable: Adjustable
    bound: float = 3.0  # largest factor, and the inverse of the smallest

    def __post_init__(self):
        if not 1.0 < self.bound < np.inf:
            raise ValueError(f"bound is the largest factor of a parameter and must be above 1, not {self.bound}")

    def residuals(self, theta: Float[Array, " p"], samples: Segments) -> Float[Array, "P W nx"]:
        """Errors of the predictions in units of the changes of state; 0 where the weight is."""
        predicted = jax.vmap(self.adjustable.predict, in_axes=(None, 0, 0))(theta, samples.states, samples.actions)
        error = (predicted - samples.following) * self._weights(samples)
        return jnp.where(jnp.isfinite(error), error, DIVERGED * (samples.weights[:, None, None] > 0))

    def jacobian(self, theta: Float[Array, " p"], samples: Segments) -> Float[Array, "P W nx p"]:
        """Derivatives of the residuals."""
        slopes = jax.vmap(self.adjustable.sensitivity, in_axes=(None, 0, 0))(theta, samples.states, samples.actions)
        slopes = slopes * self._weights(samples)[..., None]
        return jnp.where(jnp.isfinite(slopes), slopes, 0.0)

    def solve(self, samples: Segments, start: Float[Array, " p"], iterations: int = 30) -> Identified:
        """Fit the parameters.

        Args:
            samples: segments that are not finite do not count.
            start: theta to begin with, such as that of a fit to fewer samples; zeros are the nominal values.
            iterations: at most.
        """
        samples, limit = _sound(samples), jnp.log(self.bound)
        count = jnp.maximum(samples.weights.sum() * samples.following[0].size, 1.0)

        def theta_of(z):
            return z / jnp.sqrt(1.0 + (z / limit) ** 2)

        def rate_of(z):
            return (1.0 + (z / limit) ** 2) ** -1.5

        @jax.custom_jvp
        def residual(z):
            return jnp.append(self.residuals(theta_of(z), samples) / jnp.sqrt(count), PULL * z)

        def jacobian(z):
            slopes = self.jacobian(theta_of(z), samples).reshape(-1, z.size) * rate_of(z) / jnp.sqrt(count)
            return jnp.concatenate([slopes, PULL * jnp.eye(z.size, dtype=z.dtype)])

        residual.defjvp(lambda z, change: (residual(*z), jnp.matmul(jacobian(*z), *change, precision="highest")))
        # it would ignore a `jac_fun`; less damping at first, and what samples hardly tell overshoots
        solver: Any = LevenbergMarquardt(residual, materialize_jac=True, solver="qr", damping_parameter=1e-3)
        start = jnp.clip(start, -NEAR_BOUND * limit, NEAR_BOUND * limit)
        z = start / jnp.sqrt(1.0 - (start / limit) ** 2)

        def moves(carry):
            _, state, step = carry
            return (state.iter_num < iterations) & (step > STEP)

        def iterate(carry):
            z, state, _ = carry
            z, state = solver.update(z, state)
            return z, state, jnp.abs(state.delta).max()

        initial = solver.init_state(z)
        z, state, step = jax.lax.while_loop(moves, iterate, (z, initial, jnp.full((), jnp.inf, z.dtype)))
        status = jnp.where(step > STEP, Status.ITERATION_LIMIT, Status.CONVERGED)
        status = jnp.where(samples.weights.any(), status, Status.NO_SAMPLES)
        return self._solution(theta_of(z), initial, state, rate_of(z), count, status)

    def _solution(self, theta, initial, state, rate, count, status) -> Identified:
        """`initial` and `state` are the method's, `rate` is d theta / dz, `count` the numbers predicted."""
        p = theta.size
        before, after = (jnp.linalg.norm(s.residual[:-p]) for s in (initial, state))
        noise = after * jnp.sqrt(count / jnp.maximum(count - p, 1.0))
        slopes = state.jac.at[-p:].set(0.0) * jnp.sqrt(count) / rate
        _, singular, directions = jnp.linalg.svd(slopes, full_matrices=False)
        seen = singular > ROUNDING * jnp.finfo(theta.dtype).eps * singular[0]
        errors = jnp.asarray(jnp.where(seen, noise / jnp.where(seen, singular, 1.0), jnp.inf))
        parameters = self.adjustable.parameters
        return Identified(
            theta,
            directions,
            errors,
            errors < WIDEST,
            before,
            after,
            state.iter_num,
            status,
            parameters.names,
            tuple(parameters.nominal.tolist()),
            self.bound,
        )

    def _weights(self, samples: Segments) -> Float[Array, "P 1 nx"]:
        """Inverse root mean square changes of state over a segment; 0 for a coordinate that never changes."""
        nx = samples.following.shape[-1]
        change = (samples.following[:, -1] - samples.states[:, 1 : 1 + nx]) * samples.weights[:, None]
        square = (change**2).sum(0) / jnp.maximum(samples.weights.sum(), 1.0)
        tiny = jnp.finfo(change.dtype).tiny
        scale = jnp.where(square > tiny, jax.lax.rsqrt(jnp.maximum(square, tiny)), 0.0)
        return samples.weights[:, None, None] * scale


def identify(
    simulator: Simulator,
    xs: Float[Any, "*b T+1 nx"],
    us: Float[Any, "*b T nu"],
    names: Sequence[str],
    window: int = 1,
    bound: float = 3.0,
    iterations: int = 30,
) -> Identified:
    """Fit parameters of a simulator's model to episodes; see the top of this file.

    Args:
        simulator: of the nominal model, on either engine.
        xs: states (qpos, qvel, act) that were measured, and
        us: the actions between them, as the actuators had them: inside the control range.
        names: of parameters, such as "body_mass:forearm" or "dof_damping:*"; see `dynamics.parameters`.
        window: actions that are predicted over at once.
        bound: no parameter is fitted to be more than so many times its nominal value, or less than that part of it.

    Errors:
        ValueError for a name that the model does not have, arrays of the wrong shape, a window longer than an episode.
    """
    model = simulator.model
    problem = Identification(adjustable(simulator, select(model, names)), bound)
    nx, xs, us = model.nq + model.nv + model.na, jnp.asarray(xs, float), jnp.asarray(us, float)
    fine = xs.ndim == us.ndim >= 2 and xs.shape[:-2] == us.shape[:-2] and xs.shape[-2] == us.shape[-2] + 1
    if not fine or (xs.shape[-1], us.shape[-1]) != (nx, model.nu):
        raise ValueError(
            f"xs must have shape (..., T+1, {nx}) and us (..., T, {model.nu}), not {xs.shape} and {us.shape}"
        )
    if not 1 <= window <= us.shape[-2]:
        raise ValueError(f"window must be from 1 to the {us.shape[-2]} actions of an episode, not {window}")
    samples = segments(xs, us, physics_state(model, jnp.zeros(model.nq), jnp.zeros(model.nv))[1 + nx :], window)
    return jax.jit(problem.solve, static_argnums=2)(
        samples, jnp.zeros(len(problem.adjustable.parameters.names)), iterations
    )


def segments(xs: Float[Array, "*b T+1 nx"], us: Float[Array, "*b T nu"], mocap: Array, window: int = 1) -> Segments:
    """Episodes in pieces of `window` actions, one after the other; what is left at an episode's end is left out.

    Args:
        mocap: poses of the mocap bodies, as at the end of a simulator's state.
    """
    count = us.shape[-2] // window
    batch = us.shape[:-2]
    actions = us[..., : count * window, :].reshape(*batch, count, window, us.shape[-1])
    following = xs[..., 1 : count * window + 1, :].reshape(*batch, count, window, xs.shape[-1])
    starts = xs[..., : count * window : window, :]
    time = jnp.zeros((*starts.shape[:-1], 1), xs.dtype)
    poses = jnp.broadcast_to(mocap.astype(xs.dtype), (*starts.shape[:-1], mocap.size))
    states = jnp.concatenate([time, starts, poses], axis=-1)
    states, actions, following = (a.reshape(-1, *a.shape[len(batch) + 1 :]) for a in (states, actions, following))
    return Segments(states, actions, following, jnp.ones(len(states), xs.dtype))


def _sound(samples: Segments) -> Segments:
    """Segments that are not finite with weight 0, and zeros instead."""
    parts = (samples.states, samples.actions, samples.following)
    sound = jnp.stack([jnp.isfinite(a).reshape(len(a), -1).all(1) for a in parts]).all(0)
    states, actions, following = (jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, 0.0) for a in parts)
    return Segments(states, actions, following, samples.weights * sound)
