"""What importing a package brings with it."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import controllers

HEAVY = ("mujoco", "flax", "optax", "orbax", "matplotlib", "rich", "jaxtyping", "gps", "dynamics", "policies")


def test_every_controllers_module_imports_alone():
    """`from controllers import ilqr`, and every other, in a fresh interpreter: no simulator, networks or plots.

    The copied folder has to work in a project that has jax and numpy and nothing else.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(controllers.__path__))
    assert "trust_region" in names
    code = f"import sys; from controllers import {', '.join(names)}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_users_do_not_see_that_jaxopt_warns():
    code = "import warnings; warnings.simplefilter('error'); import controllers.minimisers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
