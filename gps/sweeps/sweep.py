"""`gps sweep`: cells are run, each in its folders OUT/CELL-seedN, and compared by their objective.

A cell whose runs have ended is not run again, one that was stopped goes on; sweep.md, sweep.csv and sweep.png in OUT
are made anew at the end, and after each cell sweep.md and sweep.csv.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from gps.comparisons.statistics import estimate
from gps.files import write_text
from gps.runs import integrity
from gps.runs.folder import RunError, RunFolder
from gps.runs.progress import Clock
from gps.runs.resume import resumable
from gps.sweeps.plan import Changes, Plan
from gps.sweeps.results import TITLE, Cell, Objective, Result, csv_text, figure, markdown
from gps.sweeps.search import search_of
from gps.sweeps.workers import CellError, jobs_of

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
        results, before anything is run; those of `_cell` where a cell can not begin, and those of `Objective.value`.
    """
    objective = Objective.of(plan)
    _check_place(out)
    search = search_of(plan, out, objective.minimize)
    jobs = jobs_of(plan.settings.executor, plan.options, out, trust)
    results: list[Result] = []
    clock = Clock(search.total)

    def ended(cell: Cell, failed: str = "") -> None:
        value = _FAILED if failed else objective.value(cell.paths)
        results.append(Result(cell, value, failed))
        search.tell(cell.changes, None if failed else float(value.value))
        clock.tick()
        tell(f"{clock}  {cell.name}: {f'failed: {failed}' if failed else objective.told(value)}")
        _write(plan, objective, results, out)

    (out / LOGS).mkdir(parents=True, exist_ok=True)
    cells = (_cell(plan, changes, out) for changes in iter(search.ask, None))
    waiting: dict[Future[None], Cell] = {}
    with ThreadPoolExecutor(plan.settings.workers) as pool:

        def fill() -> None:
            while len(waiting) < plan.settings.workers and (cell := next(cells, None)) is not None:
                if all(map(_finished, cell.paths)):
                    ended(cell)
                else:
                    waiting[pool.submit(jobs.run, cell.paths, out / LOGS / f"{cell.name}.log")] = cell

        try:
            fill()
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    cell, error = waiting.pop(future), future.exception()
                    if error is not None and not isinstance(error, CellError):
                        raise error
                    ended(cell, str(error or ""))
                fill()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            jobs.stop()
            raise
    ranked = objective.ranked(results)
    figure(plan, objective, ranked, out / "sweep")
    return ranked, markdown(plan, objective, ranked)


def _cell(plan: Plan, changes: Changes, out: Path) -> Cell:
    """A cell whose folders are there, with its settings in them.

    Errors:
        SettingsError and RunError where that can not be.
    """
    name = plan.name(changes)
    paths = []
    for seed in range(plan.settings.seeds):
        path, experiment = out / f"{name}-seed{seed}", plan.experiment(changes, seed)
        if (path / "config.toml").exists():
            resumable(path, experiment)
        else:
            RunFolder.create(path, experiment)
        paths.append(path)
    return Cell(name, changes, tuple(paths))


def _finished(path: Path) -> bool:
    folder = RunFolder.open(path)
    return integrity.ended(folder) >= folder.settings["run"]["iterations"]


def _check_place(out: Path) -> None:
    """Raise RunError where the results would replace other files."""
    mine = [out / f"sweep.{kind}" for kind in ("md", "csv", "png", "pdf")]
    taken = [file for file in mine if file.exists()]
    if taken and not (mine[0].is_file() and mine[0].read_bytes().startswith(TITLE.encode())):
        raise RunError(f"{taken[0]} exists and is of no sweep: use another --out")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} exists and is no folder: use another --out")


def _write(plan: Plan, objective: Objective, results: list[Result], out: Path) -> None:
    ranked = objective.ranked(results)
    write_text(out / "sweep.md", TITLE + markdown(plan, objective, ranked))  # first: the other files are ours, it says
    write_text(out / "sweep.csv", csv_text(plan, objective, ranked))
