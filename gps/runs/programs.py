"""A guider's compiled programs: an iteration, and the evaluation of its learner."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gps.guiders.guider import Guider, Metrics, iterate, summarize, update_keys
from gps.runs.evaluate import Episodes, Evaluation, evaluate, evaluate_episodes
from gps.tasks.control_task import is_control


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "guided-policy-search"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


class Programs:
    """A guider's compiled programs; built once, called in every iteration."""

    def __init__(self, guider: Guider):
        task = guider.task
        self.guider = guider
        self.collect = jax.jit(guider.collect)
        self.update = jax.jit(guider.update)
        self.whole = jax.jit(functools.partial(iterate, guider))
        if is_control(task):
            contexts = jnp.concatenate([task.train_contexts, task.test_contexts])
            act = jax.jit(functools.partial(evaluate, task))
            self._evaluate = lambda policy, key: act(policy, contexts, key)
        else:
            self._evaluate = jax.jit(functools.partial(evaluate_episodes, task))

    def iterate(self, state: Any, key: Any) -> tuple[Any, Metrics]:
        """One iteration; DivergedError where the guider can not learn from what was collected."""
        if self.guider.fused:
            return self.whole(state, key)
        rows = []
        for collecting, updating in update_keys(self.guider, key):
            samples = self.collect(state, collecting)
            self.guider.check(samples)
            state, metrics = self.update(state, samples, updating)
            rows.append(metrics)
        return state, rows[0] if len(rows) == 1 else summarize(jax.tree.map(lambda *x: jnp.stack(x), *rows))

    def evaluate(self, policy: Any, key: Any) -> Evaluation | Episodes:
        """The learner on all training targets, then on all test targets; or in fresh episodes."""
        return self._evaluate(policy, key)
