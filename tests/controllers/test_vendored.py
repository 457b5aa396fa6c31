"""The package copied into another project, under another name."""

import shutil
import subprocess
import sys
from pathlib import Path

import controllers

# x' = x + u, half the squares of the actions and of the end: every action is -x0 / (T + 1)
THEIRS = """
import importlib
import pkgutil
import sys

import jax.numpy as jnp
import numpy as np

from theirs.vendor import trajopt
from theirs.vendor.trajopt import ilqr

for module in pkgutil.walk_packages(trajopt.__path__, "theirs.vendor.trajopt."):
    importlib.import_module(module.name)
solution = ilqr.solve(
    lambda x, u, t: x + u,
    lambda x, u, t: 0.5 * (u @ u),
    jnp.array([5.0]),
    jnp.zeros((4, 1)),
    final_cost=lambda x: 0.5 * (x @ x),
)
assert solution.converged
np.testing.assert_allclose(solution.actions, -1.0, rtol=1e-5)
ours = {"controllers", "dynamics", "policies", "gps"} & set(sys.modules)
assert not ours, ours
"""


def test_copy_under_another_name_solves(tmp_path):
    vendor = tmp_path / "theirs" / "vendor"
    shutil.copytree(Path(controllers.__file__).parent, vendor / "trajopt", ignore=shutil.ignore_patterns("__pycache__"))
    for package in (tmp_path / "theirs", vendor):
        (package / "__init__.py").touch()
    done = subprocess.run([sys.executable, "-c", THEIRS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
