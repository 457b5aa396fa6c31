"""What the benchmarks share: times of calls, where they were measured, and tables of them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def measure(function: Callable[..., Any], *inputs: Any) -> tuple[float, float, Any]:
    """Wall and CPU seconds (of all threads) of one call, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*inputs))
    return time.perf_counter() - wall, time.process_time() - cpu, result


def median(function: Callable[..., Any], repeats: int, *inputs: Any, budget: float = 20.0) -> tuple[float, float, Any]:
    """Medians of the wall and CPU seconds of calls after a first one; of the first alone where it takes `budget` s."""
    wall, cpu, result = measure(function, *inputs)
    if wall >= budget:
        return wall, cpu, result
    runs = [measure(function, *inputs)[:2] for _ in range(min(repeats, max(1, int(budget / max(wall, 1e-9)))))]
    wall, cpu = (statistics.median(times) for times in zip(*runs, strict=True))
    return wall, cpu, result


def machine() -> str:
    """Processor, cores and load."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"Machine: {(names or [platform.processor()])[0]}, {os.cpu_count()} cores, load {load}"


def table(title: str, *columns: str) -> None:
    """Print the head of a table."""
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(*cells: Any) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(f'{a:.4g}' if isinstance(a, float) else str(a) for a in cells)} |", flush=True)
