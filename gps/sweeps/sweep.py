"""`gps sweep`: cells are run, each in its folders OUT/CELL-seedN, and compared by their objective.

A cell whose runs have ended is not run again, one that was stopped goes on; sweep.md, sweep.csv and sweep.png in OUT
are made anew at the end, and after each cell sweep.md and sweep.csv.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from gps.comparisons.compare import Run, check_place
from gps.comparisons.statistics import estimate
from gps.files import write_text
from gps.runs.progress import Clock
from gps.settings import SettingsError
from gps.sweeps.plan import Changes, Plan
from gps.sweeps.results import TITLE, Cell, Objective, Result, csv_text, figure, markdown
from gps.sweeps.search import Search, search_of
from gps.sweeps.workers import CellError, Jobs, jobs_of

LOGS = "logs"  # in the sweep's folder: what the processes of its cells print
_FAILED = estimate(np.full(1, np.nan))


def sweep(
    plan: Plan, out: Path, *, trust: bool = False, tell: Callable[[str], None] = print
) -> tuple[list[Result], str]:
    """Run all cells that a plan's search asks for.

    Returns:
        What came of each, from the best to the worst and then those that failed; and the table.

    Errors:
        SettingsError and RunError as in `search_of` and `jobs_of` and where something else is in the place of the
        results, before anything is run; those of `Run.ready` where a run can not begin, and those of `Objective.value`.
    """
    objective = Objective.of(plan)
    check_place(out, "sweep", TITLE)
    search = search_of(plan, out, objective.key, objective.minimize)
    jobs = jobs_of(plan.settings.executor, plan.options, out, trust)
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    going = _Sweep(plan, out, objective, search, tell)
    with ThreadPoolExecutor(plan.settings.workers) as pool:
        try:
            going.start(pool, jobs)
            while going.waiting:
                for future in wait(going.waiting, return_when=FIRST_COMPLETED).done:
                    going.end(future)
                going.start(pool, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            jobs.stop()
            raise
    ranked = going.ranked()
    figure(plan, objective, ranked, out / "sweep")
    return ranked, markdown(plan, objective, ranked)


class _Sweep:
    """Cells that run, and what came of those that have ended."""

    def __init__(self, plan: Plan, out: Path, objective: Objective, search: Search, tell: Callable[[str], None]):
        self.plan, self.out, self.objective, self.search, self.tell = plan, out, objective, search, tell
        self.waiting: dict[Future[None], Cell] = {}
        self._results: dict[str, Result] = {}  # by the names of cells
        self._clock = Clock(search.total)

    def start(self, pool: ThreadPoolExecutor, jobs: Jobs) -> None:
        """Let as many cells run as there are workers, if so many are left."""
        while len(self.waiting) < self.plan.settings.workers and (changes := self.search.ask()) is not None:
            name = self.plan.name(changes)
            if name in self._results:
                self._answer(self._results[name])
            elif any(cell.name == name for cell in self.waiting.values()):
                self._clock.tick()  # it is answered when it has ended
            else:
                self._begin(name, changes, pool, jobs)

    def _begin(self, name: str, changes: Changes, pool: ThreadPoolExecutor, jobs: Jobs) -> None:
        try:
            experiments = [self.plan.experiment(changes, seed) for seed in range(self.plan.settings.seeds)]
        except SettingsError as error:  # of values that are impossible together
            return self._ended(Cell(name, changes, ()), str(error))
        runs = [Run(self.out / f"{name}-seed{seed}", experiment) for seed, experiment in enumerate(experiments)]
        cell = Cell(name, changes, tuple(run.ready().path for run in runs))
        if all(run.finished() for run in runs):
            return self._ended(cell)
        self.waiting[pool.submit(jobs.run, cell.paths, self.out / LOGS / f"{name}.log")] = cell
        return None

    def end(self, future: Future[None]) -> None:
        """Take in a cell that has ended.

        Errors:
            Whatever has ended it that is no CellError.
        """
        cell, error = self.waiting.pop(future), future.exception()
        if error is not None and not isinstance(error, CellError):
            raise error
        self._ended(cell, str(error or ""))

    def ranked(self) -> list[Result]:
        """What has ended, the best first."""
        return self.objective.ranked(list(self._results.values()))

    def _ended(self, cell: Cell, failed: str = "") -> None:
        value = _FAILED if failed else self.objective.value(cell.paths)
        result = self._results[cell.name] = Result(cell, value, failed)
        self._answer(result)
        self.tell(f"{self._clock}  {cell.name}: {f'failed: {failed}' if failed else self.objective.told(value)}")
        # sweep.md first: it says that the other files are ours
        ranked = self.ranked()
        write_text(self.out / "sweep.md", TITLE + markdown(self.plan, self.objective, ranked))
        write_text(self.out / "sweep.csv", csv_text(self.plan, self.objective, ranked))

    def _answer(self, result: Result) -> None:
        self.search.tell(result.cell.changes, None if result.failed else float(result.value.value))
        self._clock.tick()
