"""What the installed platform must do for the rest to work."""

import os
import subprocess
import sys
import time
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

FOUR_FACTORISATIONS = """
import jax, jax.numpy as jnp

batches = [(i + 2.0) * jnp.broadcast_to(jnp.eye(9), (1024, 9, 9)) for i in range(4)]
program = jax.jit(lambda *matrices: [jnp.linalg.cholesky(a) for a in matrices])
for call in range(600):
    factors = jax.block_until_ready(program(*batches))
print([round(float(f[-1, -1, -1]) ** 2) for f in factors])
"""


def fresh(code, **environment):
    """Start a new interpreter that runs `code`; a value of None removes a variable of the environment."""
    merged = {**os.environ, **environment}
    kept = {name: value for name, value in merged.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_batched_factorisations_in_one_program_do_not_deadlock():
    """jaxlib 0.10.0 to 0.10.2 hangs for ever on a CPU when one program holds several batched factorisations.

    Every solver here is such a program, and a run that hangs says nothing, so that jax is pinned below 0.10 in
    pyproject.toml; only if this test passes may the pin be lifted. With jaxlib 0.10.1 on two cores four in five
    processes hung, after 4 to 473 calls, and the others never: hence several processes, and one after the other,
    because they hang less often when they compete for the cores. A sound jaxlib needs about 2 ms a call.
    """
    deadline = time.monotonic() + 60.0
    for _ in range(4):
        process = fresh(FOUR_FACTORISATIONS, JAX_PLATFORMS="cpu")
        try:
            printed, errors = process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            pytest.fail("deadlock: the calls were not done within 60 s; see the pin of jax in pyproject.toml")
        assert printed.strip() == "[2, 3, 4, 5]", errors


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("3", "3")])
def test_importing_controllers_limits_openblas_unless_told_otherwise(before, after):
    code = "import os, controllers; print(os.environ['OPENBLAS_NUM_THREADS'])"
    printed, errors = fresh(code, OPENBLAS_NUM_THREADS=before).communicate(timeout=60)
    assert printed.strip() == after, errors


def test_openblas_is_limited_before_scipy_is_loaded():
    """OpenBLAS reads the variable once, when it is loaded: importing controllers first must be early enough."""
    code = "import sys, controllers; print('scipy' in sys.modules, 'jax' in sys.modules)"
    printed, errors = fresh(code, OPENBLAS_NUM_THREADS=None).communicate(timeout=60)
    assert printed.split() == ["False", "False"], errors


@pytest.mark.parametrize("package", ["jax", "jaxlib"])
def test_installed_jax_is_within_the_pinned_range(package):
    """jaxlib, where the deadlock was, has no pin of its own: it must agree with the one of jax."""
    stated = [Requirement(line) for line in requires("guided-policy-search") or []]
    pin = next(r.specifier for r in stated if r.name == "jax" and not r.extras)
    assert not pin.contains("0.10.1")
    assert pin.contains(version(package)), f"{package} {version(package)} is outside {pin}"
