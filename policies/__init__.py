"""Neural policies, their supervised training, and their linearisation around trajectories."""

import controllers  # noqa: F401  (first: it sets OPENBLAS_NUM_THREADS before jax is imported)
