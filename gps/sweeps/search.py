"""Which cells of a sweep are run: all of a grid, random ones, or those that an optimiser proposes."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gps.errors import not_installed
from gps.settings import SettingsError
from gps.sweeps.plan import Changes, Plan, Range

JOURNAL = "optuna.log"  # in the sweep's folder: what Optuna has asked for, and what came of it
_DIGITS = 4  # of numbers drawn from a range: a cell's folder is named by them


class Search(Protocol):
    """Cells are asked for one after the other, before or after earlier ones are told; some are asked for again."""

    total: int  # cells in all, as often as they are asked for

    def ask(self) -> Changes | None:
        """The next cell; None where there is no more."""
        ...

    def tell(self, changes: Changes, value: float | None) -> None:
        """What came of a cell, however often it was asked for; None where it failed."""
        ...


def search_of(plan: Plan, out: Path, objective: str, minimize: bool) -> Search:
    """The search that a plan names.

    Args:
        objective: the number that is told.

    Errors:
        SettingsError for a cell of a grid or a random one that is impossible; where Optuna is asked for and not
        installed, or its journal in `out` is of another sweep.
    """
    if plan.settings.search == "optuna":
        return _Optuna(plan, out, objective, minimize)
    cells = list(grid(plan) if plan.settings.search == "grid" else drawn(plan))
    for changes in cells:
        plan.experiment(changes, 0)
    return _Listed(cells)


def grid(plan: Plan) -> Iterator[Changes]:
    """All combinations; the last setting varies first."""
    lists = [values for values in plan.vary.values() if isinstance(values, list)]  # all of them: no range is left
    for values in itertools.product(*lists):
        yield dict(zip(plan.vary, values, strict=True))


def drawn(plan: Plan) -> Iterator[Changes]:
    """Different combinations at random; more trials begin with those of fewer."""
    random, seen = np.random.default_rng(plan.settings.search_seed), set()
    for _ in range(100 * plan.settings.trials):  # a few values have fewer combinations than there are to be trials
        changes = {name: _draw(values, random) for name, values in plan.vary.items()}
        if repr(changes) not in seen:
            seen.add(repr(changes))
            yield changes
        if len(seen) == plan.settings.trials:
            return


def _draw(values: list[Any] | Range, random: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[random.integers(len(values))]
    low, high = (math.log(values.low), math.log(values.high)) if values.log else (values.low, values.high)
    if values.whole and not values.log:
        return int(random.integers(int(values.low), int(values.high), endpoint=True))
    number = random.uniform(low, high)
    return _rounded(math.exp(number) if values.log else number, values)


def _rounded(number: float, values: Range) -> float | int:
    if values.whole:
        return min(max(round(number), values.low), values.high)
    return min(max(float(f"{number:.{_DIGITS}g}"), values.low), values.high)


class _Listed:
    def __init__(self, cells: list[Changes]):
        self.total, self._left = len(cells), iter(cells)

    def ask(self) -> Changes | None:
        return next(self._left, None)

    def tell(self, changes: Changes, value: float | None) -> None:
        pass


class _Optuna:
    """Its journal is in the sweep's folder, so that a sweep that goes on asks first for cells that were not told."""

    def __init__(self, plan: Plan, out: Path, objective: str, minimize: bool):
        if importlib.util.find_spec("optuna") is None:
            raise SettingsError(not_installed("search = 'optuna'", "Optuna", "optuna", ", or take 'random'"))
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.total, self._plan = plan.settings.trials, plan
        out.mkdir(parents=True, exist_ok=True)
        direction = "minimize" if minimize else "maximize"
        journal = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
        self._study = optuna.create_study(storage=journal, study_name="sweep", direction=direction, load_if_exists=True)
        about = f"{objective}, {direction}; " + "; ".join(f"{name}: {values}" for name, values in plan.vary.items())
        if self._study.user_attrs.get("about", about) != about:
            raise SettingsError(
                f"{out / JOURNAL} is of a sweep of {self._study.user_attrs['about']}: use another --out"
            )
        self._study.set_user_attr("about", about)
        self._before, self._asked = self._begun(), {}
        # one that goes on does not draw the numbers of before again
        seeds = np.random.SeedSequence([plan.settings.search_seed, len(self._study.trials)])
        self._study.sampler = optuna.samplers.TPESampler(
            seed=int(seeds.generate_state(1)[0]), constant_liar=plan.settings.workers > 1
        )

    def _begun(self) -> list[Any]:
        """The trials of earlier processes; one of which not all was proposed when the process ended is given up."""
        from optuna.trial import TrialState

        whole = []
        for trial in self._study.get_trials(deepcopy=False):
            if len(trial.params) == len(self._plan.vary):
                whole.append(trial)
            elif not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
        return whole[: self.total]

    def ask(self) -> Changes | None:
        if self._before:
            trial = self._before.pop(0)
            changes = {name: self._value(name, trial.params[name]) for name in self._plan.vary}
            if not trial.state.is_finished():
                self._asked.setdefault(repr(changes), []).append(trial.number)
            return changes
        if len(self._study.get_trials(deepcopy=False)) >= self.total:
            return None
        trial = self._study.ask()
        changes = {
            name: self._value(name, self._suggest(trial, name, values)) for name, values in self._plan.vary.items()
        }
        self._asked.setdefault(repr(changes), []).append(trial.number)
        return changes

    def tell(self, changes: Changes, value: float | None) -> None:
        # Of a finished trial nothing can be told any more, not even that it failed: one that fails stays open, is asked
        # for by the next process, and has its value from there. Where several workers run, open trials count as bad.
        numbers = self._asked.pop(repr(changes), ())
        if value is not None and math.isfinite(value):
            for number in numbers:
                self._study.tell(number, value)

    def _suggest(self, trial: Any, name: str, values: list[Any] | Range) -> Any:
        if isinstance(values, list):
            return trial.suggest_categorical(name, range(len(values)))
        if values.whole:
            return trial.suggest_int(name, values.low, values.high, log=values.log)
        return trial.suggest_float(name, values.low, values.high, log=values.log)

    def _value(self, name: str, suggested: Any) -> Any:
        values = self._plan.vary[name]
        return values[suggested] if isinstance(values, list) else _rounded(suggested, values)
