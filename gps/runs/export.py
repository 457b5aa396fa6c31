"""A run's learner for other programs: a function of numpy's arrays, and files that need no more than a runtime.

The files are a folder of three: the function as StableHLO (`jax.export`) or as an ONNX model, what it takes and gives,
and a loader of a few lines, which imports neither this framework nor flax.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gps.errors import UserError
from gps.files import told, write_text, written_whole
from gps.runs import export_onnx
from gps.tasks.task import Environment
from policies.policy import Policy

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FUNCTION, ABOUT, LOADER = "learner.stablehlo", "learner.json", "learner.py"

LOADER_TEXT = '''"""The learner beside this file, which needs numpy, jax and flatbuffers.

    learner = Learner()
    action = learner(observation)  # one step of an episode
    learner.reset()  # before the next episode: it may remember
"""

import json
from pathlib import Path

import jax
import numpy as np

# On a CPU an action takes less time than to hand it to another thread. It has to be said before jax computes anything.
jax.config.update("jax_cpu_enable_async_dispatch", False)


class Learner:
    def __init__(self, folder=Path(__file__).parent):
        self.about = json.loads((Path(folder) / "learner.json").read_text())
        function = jax.export.deserialize((Path(folder) / "learner.stablehlo").read_bytes())
        self._act = jax.jit(function.call)
        self.reset()

    def reset(self):
        self._memory = np.zeros(self.about["memory"], np.float32)

    def __call__(self, observation):
        self._memory, action = self._act(self._memory, np.asarray(observation, np.float32))
        return np.asarray(action)
'''

_TIMED = """
import statistics, sys, time
sys.path.insert(0, "")  # which a user may have forbidden
import numpy as np
from learner import Learner

learner, times = Learner(), []
observation = np.zeros(learner.about["observation"], np.float32)
learner(observation)
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    learner(observation)
    times.append(1e6 * (time.perf_counter() - began))
print(statistics.median(times), min(times))
"""


@dataclass(frozen=True)
class Learner:
    """A policy as a function of numpy's arrays, by its most likely actions.

    It is called with what the learner observes, and what it remembered after the step before:

        action, memory = learner(observation)
        action, memory = learner(next_observation, memory)
    """

    policy: Policy
    task: Environment

    def __call__(
        self, observation: Float[np.ndarray, " no"], memory: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """An action (nu numbers in [-1, 1], or the number of a choice), and the memory after it.

        Errors:
            ValueError for an observation of another size than the task's.
        """
        o = np.asarray(observation, np.float32)
        if o.shape != (self.task.observation_size,):
            raise ValueError(
                f"the learner of {self.task.name} takes observations of shape ({self.task.observation_size},), not "
                f"{o.shape}"
            )
        memory, action = self._act(self.policy.start_memory() if memory is None else memory, o)
        return np.asarray(action), np.asarray(memory)

    @cached_property
    def _act(self) -> Any:
        return jax.jit(self.act)

    def act(self, memory: Any, o: Any) -> tuple[Any, Any]:
        """The memory after a step, and the action, as jax has them."""
        return self.policy.act(memory, o, jnp.zeros_like(self.policy.noise(jax.random.key(0))))


def check_free(path: Path) -> None:
    """Raise UserError where something stands at `path`."""
    if path.exists():
        raise UserError(f"{path} exists: export to another place with --out")


def write(learner: Learner, path: str | os.PathLike[str], about: dict[str, Any], *, onnx: bool = False) -> Path:
    """Write a learner's three files into a new folder.

    Args:
        about: what else `learner.json` is to say.
        onnx: as a model for onnxruntime and its like, which needs the extra `onnx`; else for jax.

    Errors:
        UserError where something stands at `path`, and those of `export_onnx`.
    """
    path = Path(path)
    check_free(path)
    if onnx:
        export_onnx.require_writer()
    memory = jax.eval_shape(learner.policy.start_memory)
    observation = jax.ShapeDtypeStruct((learner.task.observation_size,), np.float32)
    actions = learner.task.actions

    def act(memory, o):
        memory, action = learner.act(memory, o)
        return memory.astype(np.float32), action if actions.discrete else action.astype(np.float32)

    if onnx:
        name, loader = export_onnx.FUNCTION, export_onnx.LOADER_TEXT
        function = export_onnx.model(act, memory.shape[0], observation.shape[0])
    else:
        remembered = jax.ShapeDtypeStruct(memory.shape, np.float32)  # in whatever precision the learner was trained
        name, loader = FUNCTION, LOADER_TEXT
        function = jax.export.export(jax.jit(act), platforms=PLATFORMS)(remembered, observation).serialize()
    numbers = {"observation": observation.shape[0], "memory": memory.shape[0], "action": actions.size}
    text = json.dumps({**about, **numbers, "discrete": actions.discrete}, indent=2)
    with told(path, "made"):
        path.mkdir(parents=True)
    with written_whole(path / name) as waiting:
        waiting.write_bytes(function)
    write_text(path / ABOUT, text + "\n")
    write_text(path / LOADER, loader)
    return path


def microseconds(path: Path, actions: int = 1000) -> tuple[float, float]:
    """What an action of the learner in that folder takes, numpy in and out, in a process of its own.

    Returns:
        The median of so many, and the least.
    """
    command = [sys.executable, "-c", _TIMED, str(actions)]
    done = subprocess.run(command, cwd=path, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{path} is whole, but could not be timed: {(done.stderr.splitlines() or ['?'])[-1]}")
    median, least = done.stdout.split()
    return float(median), float(least)
