"""Environment of all tests: set before jax is imported."""

import gc
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # see gps/__init__.py, which is too late where jax is imported first

# Compilation is most of the time of the tests, and their programs run for a moment: optimise them little.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true " + os.environ.get("XLA_FLAGS", "")
)

import jax
import pytest

# And keep what was compiled between runs of the suite.
_cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(tempfile.gettempdir()) / "gps-test-compilation-cache")
jax.config.update("jax_compilation_cache_dir", _cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Drop compiled programs before there are too many: each holds memory maps, and where a process has as many as
    Linux allows (vm.max_map_count, 65530), the next compilation ends it with a segmentation fault.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def tiny():
    """The smallest experiment, with changes: tiny("run.seed=1", "task.horizon=6")."""
    from support.tiny import SETTINGS

    from gps.experiments.experiment import Experiment
    from gps.settings import override

    tables = override({"run": {"task": "reacher", "guider": "badmm", "engine": "mujoco", "iterations": 3}}, SETTINGS)

    def experiment(*changes: str) -> Experiment:
        return Experiment.resolve(override(tables, changes))

    return experiment


@pytest.fixture(scope="session")
def compiled():
    """Guiders by the settings that they were built from, and the programs of each."""
    return {}, {}


@pytest.fixture
def shared_programs(monkeypatch, compiled):
    """Equal settings get the same guider and programs: an experiment is compiled once in all tests of a process.

    The fixture is the function that returns the programs of a guider.
    """
    from support.sharing import share_programs

    return share_programs(monkeypatch, *compiled)


@pytest.fixture
def drawing():
    """What draws a run's figures, also where `quick` has put it out of use."""
    from gps.runs import finish

    return finish.draw


@pytest.fixture
def quick(shared_programs, drawing, monkeypatch):
    """No run draws figures, and nothing is compiled twice; the function that returns the programs of a guider."""
    from gps.runs import finish

    monkeypatch.setattr(finish, "draw", lambda *_: [])
    return shared_programs


@pytest.fixture(scope="session")
def arms():
    """The reaching task on each engine."""
    from gps.tasks.mujoco.reacher import Reacher, ReacherSettings

    return {engine: Reacher(ReacherSettings(test_targets=1), engine) for engine in ("mujoco", "mjx")}


@pytest.fixture(scope="session")
def steps(arms):
    """Each engine's step, compiled for one state and for a batch of batches."""
    one = {engine: jax.jit(arm.simulator.step) for engine, arm in arms.items()}
    many = {engine: jax.jit(jax.vmap(jax.vmap(arm.simulator.step))) for engine, arm in arms.items()}
    return one, many


@pytest.fixture(scope="session")
def actuated():
    """A slider that is pushed by an actuator with a state of its own, and a hinge whose torque has no limits."""
    return """
    <mujoco>
      <option timestep="0.01" gravity="0 0 0"><flag contact="disable"/></option>
      <worldbody>
        <body>
          <joint name="slide" type="slide" damping="0.3"/><geom size="0.1"/>
          <body><joint name="hinge" type="hinge" axis="0 1 0" damping="0.2"/><geom size="0.1" pos="0.2 0 0"/></body>
        </body>
      </worldbody>
      <actuator>
        <general joint="slide" dyntype="integrator" gainprm="2" ctrllimited="true" ctrlrange="-1 1"/>
        <motor joint="hinge" ctrllimited="false"/>
      </actuator>
    </mujoco>
    """
