"""Images per second of CPU time: of the camera in JAX, and of an encoder that learns from them.

Run: python benchmarks/camera.py [--tasks reacher-vision peg-vision] [--sizes 32 48 64]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from timing import machine

from gps.experiments.experiment import Experiment
from policies.vision import Points, Strided

BATCH = 256


def images_per_second(function: Callable[..., Any], *arguments: Any, repeats: int = 5) -> tuple[float, float]:
    """The best of several calls with a batch, and seconds of the first, most of which is compilation."""
    compiled, began = jax.jit(function), time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    first, seconds = time.perf_counter() - began, []
    for _ in range(repeats):
        began = time.process_time()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.process_time() - began)
    return BATCH / min(seconds), first


def camera(task: str, size: int, channels: str) -> tuple[float, float]:
    """Of a task whose learner sees, with angles and velocities around zero."""
    shape = {"height": size, "width": size, "channels": channels}
    seeing: Any = Experiment.resolve({"run": {"task": task}, "task": {"camera": shape}}).build_task()
    contexts = seeing.train_contexts[jnp.arange(BATCH) % len(seeing.train_contexts)]
    xs = 0.3 * jax.random.normal(jax.random.key(0), (BATCH, seeing.nx))
    return images_per_second(jax.vmap(seeing.image), xs, contexts)


def learning(encoder: Any, size: int) -> tuple[float, float]:
    """Of one gradient, as learners compute it: inside a loop."""
    images = jax.random.uniform(jax.random.key(1), (BATCH // 64, 64, size, size, 3))
    params = encoder.init(jax.random.key(2), images[0])

    def step(params, batch):
        slope = jax.grad(lambda params: (encoder.apply(params, batch) ** 2).sum())(params)
        return jax.tree.map(lambda p, d: p - 1e-3 * d, params, slope), None

    return images_per_second(lambda params: jax.lax.scan(step, params, images), params)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="+", default=["reacher-vision", "peg-vision"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 48, 64])
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{machine()}\nimages per second of CPU time; in brackets seconds of the first call")
    rows: dict[str, Callable[[int], tuple[float, float]]] = {
        **{
            f"{task}, {channels}": lambda size, task=task, channels=channels: camera(task, size, channels)
            for task in options.tasks
            for channels in ("depth", "rgb")
        },
        "gradient of points (8, 16)": lambda size: learning(Points((8, 16)), size),
        "gradient of strided (8, 16, 32), 64": lambda size: learning(Strided((8, 16, 32), 64), size),
    }
    for name, measure in rows.items():
        rates = [(size, *measure(size)) for size in options.sizes]
        print(f"{name:36}", *(f"{size}: {rate:7.0f} ({first:4.1f})" for size, rate, first in rates))


if __name__ == "__main__":
    main()
