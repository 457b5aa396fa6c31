"""Other solvers of the problems in `ilqr_problems.py`: crocoddyl (C++) and diffilqrax (JAX).

Crocoddyl gets models compiled from C that casadi generates: with action models written in Python it spends its time in
callbacks and is about 150 times slower. Its solvers are those of the wheel, which was compiled for any x86-64
processor; they run in C++ from start to end.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ilqr_problems
import jax
import numpy as np
from ilqr_problems import Case
from timing import measure

PACKAGES = ("crocoddyl", "casadi", "diffilqrax")
METHODS = {False: ("DDP", "FDDP"), True: ("BoxDDP", "BoxFDDP")}  # of crocoddyl, without and with limits
CACHE = Path(tempfile.gettempdir()) / "gps-benchmark-ilqr"
COMPILE = ["-O3", "-shared", "-fPIC"]
DRIVER = Path(__file__).with_name("crocoddyl_driver.cpp")


@dataclass(frozen=True)
class Run:
    """One solve by crocoddyl."""

    cost: float
    iterations: int
    wall: float  # s
    cpu: float  # s, of all threads
    states: np.ndarray  # T+1 nx
    actions: np.ndarray  # T nu


def missing() -> list[str]:
    """What the peers need and this machine lacks."""
    modules = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return modules + [name for name in ("gcc", "g++") if shutil.which(name) is None]


class Crocoddyl:
    """One of crocoddyl's solvers (DDP, FDDP, BoxDDP, BoxFDDP) on one problem; building it takes seconds."""

    def __init__(self, case: Case, solver: str, tolerance: float = 1e-9, max_iterations: int = 500):
        self.case, self.solver, self.tolerance, self.max_iterations = case, solver, tolerance, max_iterations
        T, nu = case.us.shape
        model = ctypes.CDLL(str(_build_model(case)))
        names = ("stage", "stage_slopes", "final", "final_slopes")
        functions = (ctypes.c_void_p * 4)(*[ctypes.cast(model[name], ctypes.c_void_p) for name in names])
        self.driver = ctypes.CDLL(str(_build_driver()))
        self.driver.create.restype = ctypes.c_void_p
        self.driver.destroy.argtypes = [ctypes.c_void_p]
        lower, upper = (_pointer(a) for a in case.limits or (None, None))
        handle = self.driver.create(solver.encode(), len(case.x0), nu, T, functions, lower, upper)
        self.handle = ctypes.c_void_p(handle)
        weakref.finalize(self, self.driver.destroy, self.handle)

    @classmethod
    def like(cls, case: Case, solver: str, options: Any) -> Crocoddyl:
        """With the tolerance and the iteration limit of our solver's options; both tolerances are on expected gains."""
        first = cls(case, solver, max_iterations=options.max_iterations)
        first.tolerance = options.cost_tolerance * first.solve().cost
        return first

    def solve(self, x0: np.ndarray | None = None, us: np.ndarray | None = None, xs: np.ndarray | None = None) -> Run:
        """Solve from start state, actions and, for an infeasible start, states."""
        x0, us = (
            np.array(b if a is None else a, float, order="C") for a, b in ((x0, self.case.x0), (us, self.case.us))
        )
        if self.case.limits:
            us = us.clip(*self.case.limits)
        states = np.zeros((len(us) + 1, len(x0))) if xs is None else np.array(xs, float, order="C")
        cost, wall = ctypes.c_double(), ctypes.c_double()
        settings = xs is not None, self.max_iterations, ctypes.c_double(self.tolerance)
        arrays, results = map(_pointer, (x0, us, states)), (ctypes.byref(cost), ctypes.byref(wall))
        start = time.process_time()
        iterations = self.driver.solve(self.handle, *arrays, *settings, *results)
        cpu = time.process_time() - start
        return Run(cost.value, iterations, wall.value, cpu, states, us)


@dataclass(frozen=True)
class Batch:
    """Solves from several start states."""

    costs: np.ndarray
    iterations: float  # mean
    wall: float  # s per problem
    cpu: float  # s per problem
    compilation: float = 0.0  # s


def batch(case: Case, n: int, options: Any) -> Batch:
    """Crocoddyl on the first n start states, one after the other."""
    peer = Crocoddyl.like(case, METHODS[case.limits is not None][1], options)
    runs = [peer.solve(x0) for x0 in case.starts(n)]
    numbers = np.array([(run.iterations, run.wall, run.cpu) for run in runs]).mean(axis=0)
    return Batch(np.array([run.cost for run in runs]), *map(float, numbers))


class Diffilqrax:
    """Diffilqrax compiled for one problem without limits; a call returns cost and iterations."""

    def __init__(self, case: Case, max_iterations: int):
        solver: Any = importlib.import_module("diffilqrax.ilqr")  # switches float64 on for the whole process
        types: Any = importlib.import_module("diffilqrax.typs")
        system = types.System(
            lambda t, x, u, _: case.cost(x, u, t),
            lambda x, _: case.final_cost(x),
            lambda t, x, u, _: case.dynamics(x, u, t),
            types.ModelDims(len(case.x0), case.us.shape[1], len(case.us), 1.0),
        )
        # The first step that it tries is half of `alpha_init`.
        settings = {"max_iter": max_iterations, "alpha_init": 2.0, "kkt_tol": 1e-4, "return_info": True}

        def solve(x0, us):
            result = solver.ilqr_solver(system, types.iLQRParams(x0, None), us, **settings)
            (_, actions, _), cost, _, _, iterations = result
            return cost, iterations, actions

        self.inputs = case.x0, case.us
        self.trace, _, traced = measure(jax.jit(solve).trace, *self.inputs)
        self.compilation, _, self.compiled = measure(lambda: traced.lower().compile())

    def __call__(self) -> tuple[Any, Any]:
        return self.compiled(*self.inputs)[:2]


def _pointer(array: np.ndarray | None) -> Any:
    return None if array is None else np.ascontiguousarray(array, float).ctypes.data_as(ctypes.c_void_p)


def _generate(case: Case) -> str:
    """C source of a problem's functions and of their derivatives, which casadi finds symbolically.

    The functions are called with numpy in the place of jax.numpy and casadi's symbols in the arrays; none of them
    depends on t.
    """
    casadi: Any = importlib.import_module("casadi")
    casadi.GlobalOptions.setNumpyMode(-1)  # numpy's functions on casadi's symbols, without a warning
    x, u = casadi.SX.sym("x", len(case.x0)), casadi.SX.sym("u", case.us.shape[1])
    x_array, u_array = (np.array(casadi.vertsplit(z), object) for z in (x, u))
    names = ("sin", "cos", "sqrt", "arcsin", "concatenate")
    numpy = SimpleNamespace(stack=lambda a: np.array(a, object), **{name: getattr(np, name) for name in names})
    with mock.patch.object(ilqr_problems, "jnp", numpy):
        following = casadi.vertcat(*case.dynamics(x_array, u_array, 0))
        cost, final = case.cost(x_array, u_array, 0), case.final_cost(x_array)
    gradients = [casadi.gradient(cost, z) for z in (x, u)]
    final_gradient = casadi.gradient(final, x)
    Lxx, Lxu, Luu = (casadi.jacobian(gradients[i], z) for i, z in ((0, x), (0, u), (1, u)))
    Fx, Fu = (casadi.jacobian(following, z) for z in (x, u))
    functions = {
        "stage": ([x, u], [following, cost]),
        "stage_slopes": ([x, u], [Fx, Fu, *gradients, Lxx, Lxu, Luu]),
        "final": ([x], [final]),
        "final_slopes": ([x], [final_gradient, casadi.jacobian(final_gradient, x)]),
    }
    generator = casadi.CodeGenerator("model", {"with_header": False})
    for name, (inputs, outputs) in functions.items():
        generator.add(casadi.Function(name, inputs, casadi.cse([casadi.densify(a) for a in outputs])))
    return generator.dump()


def _build_model(case: Case) -> Path:
    source = _generate(case)
    path = CACHE / f"{case.name}-{_digest(source)}.so"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        code = path.with_suffix(".c")
        code.write_text(source)
        subprocess.run(["gcc", *COMPILE, "-march=native", str(code), "-o", str(path), "-lm"], check=True)
    return path


def _build_driver() -> Path:
    prefix = Path(str(importlib.metadata.distribution("libcrocoddyl").locate_file("cmeel.prefix")))
    eigen = Path(str(importlib.metadata.distribution("casadi").locate_file("casadi/include/eigen3")))
    # No -march=native here: the wheel was compiled without AVX, and both sides must align their arrays alike.
    options = ["-std=c++17", *COMPILE, f"-I{prefix}/include", f"-I{eigen}"]
    options += [f"-L{prefix}/lib", "-lcrocoddyl", f"-Wl,--disable-new-dtags,-rpath,{prefix}/lib"]
    path = CACHE / f"driver-{_digest(DRIVER.read_text(), *options)}.so"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        subprocess.run(["g++", str(DRIVER), "-o", str(path), *options], check=True)
    return path


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
