"""Guided policy search: one loop, two sources of guidance."""

import controllers  # noqa: F401  (first: it sets OPENBLAS_NUM_THREADS before jax is imported)
