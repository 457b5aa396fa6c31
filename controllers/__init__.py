"""Feedback laws and trajectory optimisation; depends on jax and numpy alone (`path_integral` also on jaxopt).

Import the rooms by name, for example `from controllers import ilqr`. To use this package in another
project, copy the folder: nothing in it imports anything else of ours.
"""

import os

# Small batched LAPACK calls make OpenBLAS start threads that fight each other: one call then takes
# between 0.2 and 8 seconds. OpenBLAS reads this when scipy (through jax) is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# On a CPU, XLA compiles a loop whose body touches few bytes into one piece of machine code, and dispatches every
# operation of a larger one by itself. Its limit of 1 kB leaves out the Riccati sweep of a cart-pole, which then takes
# several times as long (benchmarks/ilqr.py prints it for a solve). XLA reads this when jax first compiles, and
# ignores a name that it does not know.
_LIMIT = "xla_cpu_small_while_loop_byte_threshold"
_flags = os.environ.get("XLA_FLAGS", "")
if "xla_backend_extra_options" not in _flags:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_backend_extra_options={_LIMIT}=65536".strip()
