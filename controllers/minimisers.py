"""jaxopt's solvers, imported here and nowhere else: jaxopt says at import that nobody maintains it any more.

Its solvers work with the jax that we need, under `jit` and `vmap` too, and the tests of those who use them would tell
where a later jax breaks them. Nothing else in `controllers` needs jaxopt but `path_integral`.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from jaxopt import LBFGS, Bisection, LevenbergMarquardt

__all__ = ["LBFGS", "Bisection", "LevenbergMarquardt"]
