"""Guided policy search: one loop, two sources of guidance."""

import os
import time

import controllers  # noqa: F401  (first: it sets OPENBLAS_NUM_THREADS before jax is imported)

STARTED = time.time()  # seconds since the epoch; a run's wall time counts from here, imports included

# Loading a compiled program from the cache makes XLA's C++ side log a page of CPU features as an "error" on
# standard error, though it loads. The cache's folder has the CPU's features in its name (`gps.runs.programs.machine`),
# so that what is silenced here is never true. Python exceptions are not affected. Set it to 0 to see everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
