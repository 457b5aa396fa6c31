"""Iterative LQR and differential dynamic programming; `solve` is what it is about."""

from ..expand import Cost, LeastSquares
from .problem import Constraints, Dynamics, Multipliers
from .solution import Options, Solution, Status, Trace
from .solve import solve

__all__ = [
    "Constraints",
    "Cost",
    "Dynamics",
    "LeastSquares",
    "Multipliers",
    "Options",
    "Solution",
    "Status",
    "Trace",
    "solve",
]
