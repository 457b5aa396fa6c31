"""MuJoCo simulators behind one contract, roll-outs, and local models of what was rolled out."""

import controllers  # noqa: F401  (first: it sets OPENBLAS_NUM_THREADS before jax is imported)
