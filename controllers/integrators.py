"""Discrete dynamics from a differential equation dx/dt = rate(x, u, t, ...), with the action held over a step.

Methods work on whole state vectors. An integrator that is written component by component and stacked makes XLA
compute its stages again for every component, and for every derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def euler(rate: Callable[[Array], Array], x: Array, h: float) -> Array:
    """First order."""
    return x + h * rate(x)


def midpoint(rate: Callable[[Array], Array], x: Array, h: float) -> Array:
    """Second order."""
    return x + h * rate(x + 0.5 * h * rate(x))


def rk4(rate: Callable[[Array], Array], x: Array, h: float) -> Array:
    """The classical Runge-Kutta method of fourth order."""
    k1 = rate(x)
    k2 = rate(x + 0.5 * h * k1)
    k3 = rate(x + 0.5 * h * k2)
    k4 = rate(x + h * k3)
    return x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


METHODS = {"euler": euler, "midpoint": midpoint, "rk4": rk4}


@dataclass(frozen=True)
class Integrated:
    """Dynamics(x, u, t, ...) that follow dx/dt = rate(x, u, t, ...) for a time.

    Equal where their parts are, so that making one anew compiles nothing anew.
    """

    rate: Callable[..., Any]  # dx/dt (nx), per second, from the arguments of dynamics
    seconds: float  # that a step lasts
    method: str = "rk4"
    substeps: int = 1  # equal parts of a step

    def __post_init__(self):
        if not self.seconds > 0.0:
            raise ValueError(f"seconds must be positive, not {self.seconds!r}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.substeps < 1:
            raise ValueError(f"substeps must be at least 1, not {self.substeps!r}")

    def __call__(self, x: Float[Array, " nx"], u: Float[Array, " nu"], t, *args) -> Float[Array, " nx"]:
        for _ in range(self.substeps):
            x = METHODS[self.method](lambda x: self.rate(x, u, t, *args), x, self.seconds / self.substeps)
        return x
