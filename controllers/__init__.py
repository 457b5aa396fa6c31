"""Feedback laws and trajectory optimisation; depends on jax and numpy alone.

Import the rooms by name, for example `from controllers import ilqr`. To use this package in another
project, copy the folder: nothing in it imports anything else of ours.
"""

import os

# Small batched LAPACK calls make OpenBLAS start threads that fight each other: one call then takes
# between 0.2 and 8 seconds. OpenBLAS reads this when scipy (through jax) is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
