"""What an identification has found: the factors, how well they are known, and what could not be told."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dynamics.parameters import select

WIDEST = 0.3  # standard error of a logarithm from which on a direction, or a parameter, counts as not identified
TRACE = 0.01  # component of a direction that is rounding


class Status(enum.IntEnum):
    """How a fit ended."""

    CONVERGED = 0  # the next step would change no factor by more than a share of 1e-4
    ITERATION_LIMIT = 1
    NO_SAMPLES = 2  # none that counts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Identified:
    """What a fit has found; `print` shows it. Residuals are relative to the changes of state."""

    theta: Float[Array, " p"]  # logarithms of the factors
    directions: Float[Array, "p p"]  # in theta, orthonormal rows, from the one that is known best to the least known
    errors: Float[Array, " p"]  # standard error along each, taking residuals for independent
    known: Bool[Array, " p"]  # which directions are identified
    before: Float[Array, ""]  # root mean square residual where the fit began
    after: Float[Array, ""]
    iterations: Int[Array, ""]
    status: Int[Array, ""]  # a `Status`
    names: tuple[str, ...] = field(metadata={"static": True})
    nominal: tuple[float, ...] = field(metadata={"static": True})
    bound: float = field(metadata={"static": True})

    @property
    def factors(self) -> Float[Array, " p"]:
        """What multiplies the nominal values."""
        return jnp.exp(self.theta)

    @property
    def standard_errors(self) -> Float[Array, " p"]:
        """Of each theta, and so relative to a parameter's value; infinite where the samples say nothing of it."""
        share = self.directions**2
        finite = jnp.isfinite(self.errors)
        variance = jnp.where(finite, self.errors, 0.0) ** 2 @ share
        return jnp.where(((share > TRACE**2) & ~finite[:, None]).any(0), jnp.inf, jnp.sqrt(variance))

    @property
    def identified(self) -> Bool[Array, " p"]:
        """Which parameters are known better than to WIDEST."""
        return self.standard_errors < WIDEST

    @property
    def at_bound(self) -> Bool[Array, " p"]:
        """Which factors ended where the bounds let them go no farther: the model is wrong in another way."""
        return jnp.abs(self.theta) > 0.99 * jnp.log(self.bound)

    def model(self, nominal: mujoco.MjModel) -> mujoco.MjModel:
        """The nominal model with the identified values."""
        return select(nominal, self.names).adjusted(nominal, np.asarray(self.theta, float))

    def __str__(self) -> str:
        columns = (self.names, self.nominal, self.factors, self.standard_errors, self.identified, self.at_bound)
        rows = zip(*map(np.asarray, columns), strict=True)
        width = max(map(len, self.names))
        lines = [
            f"{Status(int(self.status)).name.lower().replace('_', ' ')} after {int(self.iterations)} iterations; "
            f"residual {float(self.before):.2g} before, {float(self.after):.2g} after, of the change of state",
            f"{'parameter':{width}}  {'nominal':>9}  {'value':>9}  {'factor':>7}  error",
        ]
        for name, nominal, factor, error, identified, at_bound in rows:
            note = f"{100 * error:.2g} %" if identified else "not identified"
            note += f", at the bound of {self.bound:g}" if at_bound else ""
            lines.append(f"{name:{width}}  {nominal:9.4g}  {nominal * factor:9.4g}  {factor:7.3f}  {note}")
        for direction in np.asarray(self.directions)[~np.asarray(self.known)]:
            lines.append(f"not identified, so leave one of them out: {_combination(self.names, direction)}")
        return "\n".join(lines)


def _combination(names: Sequence[str], direction: np.ndarray) -> str:
    """What changes together along a direction, the largest first."""
    size = np.abs(direction)
    order = [i for i in np.argsort(-size) if size[i] > 0.2 * size.max()]
    sign = np.sign(direction[order[0]])
    return " ".join(f"{sign * direction[i]:+.2f} {names[i]}" for i in order)
