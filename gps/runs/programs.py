"""A guider's compiled programs: an iteration, and the evaluation of its learner."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from gps.experiments.experiment import Experiment, RunSettings
from gps.experiments.sizes import bytes_of, countable, largest_step, require_room
from gps.guiders.guider import Guider, Metrics, iterate, summarize, update_keys
from gps.runs.devices import everywhere, mesh_of, shardings
from gps.runs.evaluate import Episodes, Evaluation, evaluate, evaluate_episodes
from gps.runs.processes import in_step, several
from gps.tasks.control_task import is_control
from gps.tasks.task import require_working


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "guided-policy-search" / machine()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A name for what programs are compiled for: the version of the compiler, and the CPU with all its features.

    Machines that share a home folder may have different CPUs, and a program for one may be illegal on another.
    """
    about = [platform.machine(), platform.processor()]
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        about += [fields.get(name, "") for name in ("model name", "flags", "Features", "CPU part")]
    features = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    return f"jaxlib-{metadata.version('jaxlib')}-{platform.machine()}-{features}"


class Programs:
    """A guider's compiled programs; built once, called in every iteration.

    Args:
        devices: among which its batch is shared; see `gps.runs.devices`, and `gps.runs.processes`.

    Errors:
        SettingsError where there are not so many, or the batch can not be shared so.
    """

    def __init__(self, guider: Guider, devices: int = 1):
        task = guider.task
        self.guider = guider
        placed = whole = None
        if devices > 1 or several():
            mesh = mesh_of(guider, devices)
            whole = everywhere(mesh)
            placed = (shardings(guider, mesh), whole)
        self._placed = placed
        self.collect = jax.jit(guider.collect)
        self._gather = getattr(guider, "gather", lambda state, key: (in_step(self.collect, state, key), {}))
        self.update = jax.jit(guider.update, out_shardings=placed)
        self.whole = jax.jit(functools.partial(iterate, guider), out_shardings=placed)
        self._everywhere = jax.jit(lambda state: state, out_shardings=whole)
        if is_control(task):
            self._contexts = (jnp.concatenate([task.train_contexts, task.test_contexts]),)
            self._evaluate = jax.jit(functools.partial(evaluate, task))
        else:
            self._contexts = ()
            self._evaluate = jax.jit(functools.partial(evaluate_episodes, task))

    def require_room(self, experiment: Experiment) -> None:
        """Raise SettingsError where the programs of an experiment take more memory than there is.

        The programs are traced for it, which compiling them needs anyway; nothing is compiled. Of several processes
        each is taken to have an equal part, and as much room as this one.
        """
        with countable(experiment.to_dict()):
            require_room(max(map(_bytes, self._traced())) / jax.process_count(), experiment.to_dict())

    def _traced(self) -> list[Any]:
        """The programs with the shapes that they are called with."""
        guider, key = self.guider, jax.eval_shape(jax.random.key, 0)
        state = jax.eval_shape(guider.init, key)
        evaluation = self._evaluate.trace(jax.eval_shape(guider.policy, state), *self._contexts, key)
        if guider.fused:
            return [evaluation, self.whole.trace(state, key)]
        samples = self.collect.eval_shape(state, key)
        return [evaluation, self.collect.trace(state, key), self.update.trace(state, samples, key)]

    def place(self, state: Any) -> Any:
        """The state on the devices where iterations take it."""
        if self._placed is None:
            return state
        if not several():
            return jax.device_put(state, self._placed[0])

        def put(leaf: Any, sharding: Any) -> Any:
            return jax.make_array_from_callback(leaf.shape, sharding, lambda part: leaf[part])

        return jax.tree.map(put, state, self._placed[0])

    def on_host(self, state: Any) -> Any:
        """The state where this process alone can read it: of several processes, all call this."""
        return jax.device_get(in_step(self._everywhere, state)) if several() else state

    def iterate(self, state: Any, key: Any) -> tuple[Any, Metrics]:
        """One iteration, to its end; metrics are numpy's.

        Errors:
            DivergedError where the guider can not learn from what was collected, or has learnt nothing; PlantError
            where a plant failed, TaskError where an environment on the host did; PartedError where another process of
            the run has ended.
        """
        after, metrics = jax.block_until_ready(self._iterate(state, key))
        metrics = jax.device_get(metrics)
        self.guider.judge(metrics)
        return after, metrics

    def _iterate(self, state: Any, key: Any) -> tuple[Any, Metrics]:
        if self.guider.fused:
            return in_step(self.whole, state, key)
        rows = []
        for collecting, updating in update_keys(self.guider, key):
            samples, noted = self._gather(state, collecting)
            self._require_working(samples)
            self.guider.check(samples)
            state, metrics = in_step(self.update, state, samples, updating)
            rows.append(metrics | noted)
        return state, rows[0] if len(rows) == 1 else summarize(jax.tree.map(lambda *x: jnp.stack(x), *rows))

    def evaluate(self, policy: Any, key: Any) -> Evaluation | Episodes:
        """The learner on all training targets, then on all test targets; or in fresh episodes.

        Errors:
            TaskError where the environment failed.
        """
        evaluation = self._evaluate(policy, *self._contexts, key)
        self._require_working(evaluation)
        return evaluation

    def _require_working(self, made: Any) -> None:
        if self.guider.task.calls_host:
            jax.block_until_ready(made)
            require_working(self.guider.task)


def keys_of(run: RunSettings) -> tuple[PRNGKeyArray, PRNGKeyArray, PRNGKeyArray]:
    """The keys of a run's beginning, of each of its evaluations, and of its iterations, to be folded."""
    root = jax.random.key(run.seed)
    return jax.random.fold_in(root, 0), jax.random.fold_in(root, 1), jax.random.fold_in(root, 2)


def _bytes(traced: Any) -> int:
    """What a program takes at least: its arguments, its results, and the largest step between them."""
    return bytes_of(traced.jaxpr.in_avals + traced.jaxpr.out_avals) + largest_step(traced.jaxpr)
