"""What a sweep is about, as its TOML file says it.

task = "reacher"
guider = "badmm"
seeds = 2
search = "random"
trials = 20

[settings]                                       # of every run
run.iterations = 8

[vary]
guider.sampling.samples = [2, 3, 5]              # one of these
guider.trust_region.kl_step = { low = 0.1, high = 4.0, log = true }
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gps.experiments import lookup
from gps.experiments.experiment import Experiment, overlay
from gps.runs.folder import UntrustedError
from gps.settings import (
    SettingsError,
    check_at_least,
    check_one_of,
    check_positive,
    flat,
    from_dict,
    override,
    read_toml,
)

SEARCHES = ("grid", "random", "optuna")
EXECUTORS = ("processes", "ray", "slurm")
# options of executors that decide where and how long a cell runs, and nothing else
HARMLESS = {
    *("num_cpus", "num_gpus", "memory", "max_retries"),  # of ray
    *("cluster", "timeout_min", "mem_gb", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node"),
    *("slurm_partition", "slurm_time", "slurm_mem", "slurm_account", "slurm_qos", "slurm_gres", "slurm_constraint"),
}
DIRECTIONS = ("auto", "min", "max")
_MOST_CELLS = 10_000
_LONGEST = 80  # characters of a cell's name

Changes = dict[str, Any]  # settings by their dotted names: what a cell varies


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both of them included; integers where both are."""

    low: float
    high: float
    log: bool = False  # evenly over the logarithm

    def __post_init__(self):
        if not self.low < self.high < math.inf or self.low == -math.inf:
            raise ValueError(f"low must be below high and both finite, not {self.low} and {self.high}")
        if self.log:
            check_positive(self, "low")

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class SweepSettings:
    """The values of a sweep's file that stand in no table."""

    task: str
    guider: str
    seeds: int = 1  # of each cell: 0, 1, 2, ...
    search: str = "grid"  # "grid" (all combinations), "random", or "optuna" (its tree-structured Parzen estimator)
    trials: int = 20  # cells of "random" and "optuna"
    objective: str = "auto"  # a number of summary.json, mean over seeds; "auto" is the test score, or the return
    direction: str = "auto"  # "min", "max", or what is better for that number
    executor: str = "processes"  # of cells: "processes" on this machine, or jobs of "ray" or "slurm"
    workers: int = 1  # cells at a time
    search_seed: int = 0  # of "random" and "optuna"

    def __post_init__(self):
        check_one_of(self, "search", SEARCHES)
        check_one_of(self, "executor", EXECUTORS)
        check_one_of(self, "direction", DIRECTIONS)
        check_at_least(self, 1, "seeds", "trials", "workers")
        if self.trials * self.seeds > _MOST_CELLS:
            raise ValueError(f"trials times seeds must be at most {_MOST_CELLS}, not {self.trials * self.seeds}")


@dataclass(frozen=True)
class Plan:
    """A sweep, checked: every value that it varies is one that the experiment takes."""

    settings: SweepSettings
    base: Mapping[str, Any]  # tables "run", "task" and "guider" of every run
    vary: dict[str, list[Any] | Range]  # by dotted names
    options: Mapping[str, Any] = field(default_factory=dict)  # of the executor

    def experiment(self, changes: Changes, seed: int) -> Experiment:
        """Of one run.

        Errors:
            SettingsError naming the cell, where its settings are impossible.
        """
        tables: dict[str, Any] = {}
        for name, value in changes.items():
            *above, last = name.split(".")
            table = tables
            for part in above:
                table = table.setdefault(part, {})
            table[last] = value
        try:
            return Experiment.resolve(overlay(overlay(self.base, tables), {"run": {"seed": seed}}))
        except SettingsError as error:
            told = ", ".join(f"{name} = {value}" for name, value in changes.items())
            raise SettingsError(f"a cell with {told}: {error}") from error

    def short(self, name: str) -> str:
        """A varied setting's last word, or its whole name where another one ends with the same."""
        last = name.rpartition(".")[2]
        return last if sum(other.rpartition(".")[2] == last for other in self.vary) == 1 else name

    def name(self, changes: Changes) -> str:
        """Of a cell: its values in words that a folder can have."""
        said = ",".join(f"{self.short(name)}={value}" for name, value in changes.items())
        name = re.sub(r"[^\w.=,+-]+", "_", said, flags=re.ASCII)
        if name == said and len(name) <= _LONGEST:
            return name
        return f"{name[:_LONGEST]}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def read_plan(path: str | os.PathLike[str], assignments: Sequence[str] = (), *, trust: bool = False) -> Plan:
    """The plan of a TOML file.

    Args:
        assignments: over what the file says, such as "workers=2".
        trust: import the code that it names as module:NAME.

    Errors:
        SettingsError naming what is wrong: a table, a value, a varied setting that there is not, or a value that it can
        not have. UntrustedError where it names code that is not trusted.
    """
    text = override(read_toml(path), assignments)
    tables = {name: text.pop(name, {}) for name in ("settings", "vary", "options")}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise SettingsError(f"{path}: {name} must be a table, not {table!r}")
    try:
        settings = from_dict(SweepSettings, text)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    named = {"task": settings.task, "guider": settings.guider}
    base, vary = tables["settings"], dict(_varied(tables["vary"]))
    if not isinstance(base.get("run", {}), Mapping):
        raise SettingsError(f"{path}: settings.run must be a table, not {base['run']!r}")
    for own in (*named, "seed"):
        if own in base.get("run", {}) or f"run.{own}" in vary:
            raise SettingsError(f"{path}: run.{own} is the sweep's own: it stands above the tables, as {own} or seeds")
    if not trust:
        _require_harmless(path, tables["options"])
        lists = {name: values for name, values in vary.items() if isinstance(values, list)}
        _require_no_code(path, [{"run": named}, base, *({name: v} for name, values in lists.items() for v in values)])
    # figures of its own would take most of a short run's time
    run = {"figures": False, **base.get("run", {}), **named}
    plan = Plan(settings, {**base, "run": run}, vary, tables["options"])
    _check(plan, path)
    return plan


def _require_harmless(path: Any, options: Mapping[str, Any]) -> None:
    """Raise UntrustedError for an option that could run something: a line of a shell, an environment, another host."""
    for name, value in options.items():
        if name not in HARMLESS or not re.fullmatch(r"[\w.:=/-]*", str(value), re.ASCII):
            raise UntrustedError(
                f"{path}: options.{name} = {value!r} may run code of its own: where you trust it, add --trust"
            )


def _require_no_code(path: Any, tables: Sequence[Mapping[str, Any]]) -> None:
    for table in tables:
        for name, code in lookup.code(table).items():
            raise UntrustedError(
                f"{path}: {name} = {code!r} is code, which this would run: where you trust it, add --trust"
            )


def _varied(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any] | Range]]:
    """The varied settings by their dotted names."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, list):
            if not value or len({repr(item) for item in value}) < len(value):
                raise SettingsError(f"vary.{name} must be a list of different values, not {value}")
            yield name, value
        elif isinstance(value, Mapping) and {"low", "high"} & set(value):
            made = from_dict(Range, value, f"vary.{name}")  # whose numbers are all floats
            yield name, Range(value["low"], value["high"], made.log)
        elif isinstance(value, Mapping):
            yield from _varied(value, f"{name}.")
        else:
            raise SettingsError(f"vary.{name} must be a list of values, or {{ low = ..., high = ... }}, not {value!r}")


def _check(plan: Plan, path: Any) -> None:
    """Raise SettingsError now for whatever a cell would raise later, as far as one setting at a time can tell."""
    settings = plan.settings
    if not plan.vary:
        raise SettingsError(f"{path}: nothing is varied: write a table [vary]")
    if settings.search == "grid":
        ranges = [name for name, values in plan.vary.items() if isinstance(values, Range)]
        if ranges:
            raise SettingsError(f"{path}: vary.{ranges[0]} is a range, which search = 'grid' can not go through")
        cells = math.prod(len(values) for values in plan.vary.values() if isinstance(values, list))
        if cells * settings.seeds > _MOST_CELLS:
            raise SettingsError(f"{path}: {cells} cells of {settings.seeds} seeds are more than {_MOST_CELLS} runs")
    first = {name: _ends(values)[0] for name, values in plan.vary.items()}
    known = flat(plan.experiment({}, 0).to_dict())
    for name, values in plan.vary.items():
        if name not in known:
            plan.experiment({name: _ends(values)[0]}, 0)  # names the nearest
        for value in _ends(values):
            plan.experiment({**first, name: value}, 0)


def _ends(values: list[Any] | Range) -> list[Any]:
    return values if isinstance(values, list) else [values.low, values.high]
