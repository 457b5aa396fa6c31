"""The command line: `gps train`, `gps compare`, `gps evaluate`, `gps plot`, `gps list`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gps
from gps.experiments.experiment import Experiment, RunSettings
from gps.experiments.lookup import GUIDERS, TASKS, defaults
from gps.guiders.guider import DivergedError
from gps.runs.checkpoints import CheckpointError
from gps.runs.folder import RunError, RunFolder
from gps.runs.resume import resumed
from gps.settings import SettingsError, flat, from_dict, override, to_dict, unknown

_EXPECTED = (SettingsError, RunError, CheckpointError, DivergedError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Mistakes of the user are one line on standard error and status 2."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except _EXPECTED as error:
        print(f"gps: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gps: stopped{_GO_ON.get(options.command, '')}", file=sys.stderr)
        return 130


def _train(options: argparse.Namespace) -> int:
    from gps.runs.train import train

    asked = _asked(options, "task", "guider", "engine", "seed", "iterations")
    experiment = Experiment.resolve(asked)
    run = experiment.run
    path = Path(options.out or f"runs/{run.task}-{run.guider}-seed{run.seed}")
    if options.resume and (path / "config.toml").exists():
        folder = resumed(path, asked)
    else:
        experiment.build()  # impossible combinations are found before the folder is made
        folder = RunFolder.create(path, experiment.to_dict())
    summary = train(folder, started=gps.STARTED)
    _print_numbers(folder.path, summary)
    return 0


def _asked(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The settings of a command line: those that --set makes, and in "run" the options of these names that are given.

    Errors:
        SettingsError where the two contradict each other, besides those of `override`.
    """
    asked = override({"run": {}}, options.set)
    run = asked["run"]
    for name in names if isinstance(run, dict) else ():  # if it is none, `Experiment.resolve` says so
        given = getattr(options, name)
        if given is not None and run.setdefault(name, given) != given:
            raise SettingsError(f"run.{name} is to be {given}, and {run[name]} by --set: leave one of them out")
    return asked


def _compare(options: argparse.Namespace) -> int:
    from gps.comparisons.compare import Goals, compare

    _asked(options, "iterations")  # no contradiction
    settings_for: dict[str, list[str]] = {}
    for name, assignment in options.set_for:
        settings_for.setdefault(name, []).append(assignment)
    iterations = [] if options.iterations is None else [f"run.iterations={options.iterations}"]
    comparison = compare(
        options.tasks,
        options.guiders,
        options.seeds,
        settings=[*iterations, *options.set],
        settings_for=settings_for,
        out=options.out,
        goals=Goals(options.threshold, options.distance_threshold / 100),
    )
    print(f"\n{comparison.text}")
    for path in comparison.files:
        print(path)
    return 1 if comparison.failed else 0


def _evaluate(options: argparse.Namespace) -> int:
    from_dict(RunSettings, {"seed": options.seed}, "evaluate")  # of the same range
    if not 0 <= options.noise < math.inf:
        raise SettingsError(f"evaluate: noise must be finite and at least 0, not {options.noise}")
    import jax
    import numpy as np

    from gps.runs.evaluate import episode_count, evaluate, returns
    from gps.runs.resume import load
    from gps.tasks.control_task import is_control

    _, guider, state = load(RunFolder.open(options.run))
    task, policy = guider.task, guider.policy(state)
    key = jax.random.key(options.seed)
    if not is_control(task):
        count = episode_count(task)
        judge = jax.jit(lambda key: returns(task, policy, jax.random.split(key, count), options.noise))
        values, steps = map(np.asarray, judge(key))
        print(
            f"{count} episodes: return {values.mean():.4g} mean, {np.median(values):.4g} median, "
            f"{values.min():.4g} to {values.max():.4g}; {steps.mean():.1f} steps"
            + (f"; {lost} diverged and have none" if (lost := np.isnan(values).sum()) else "")
        )
        return 0
    contexts = np.concatenate([task.train_contexts, task.test_contexts])  # together: one program to compile
    result = jax.jit(lambda contexts, key: evaluate(task, policy, contexts, key, options.noise))(contexts, key)
    cm, cost, count = 100 * np.asarray(result.distance), np.asarray(result.cost), len(task.train_contexts)
    for name, part in (("training", slice(None, count)), ("test", slice(count, None))):
        print(
            f"{name:8} targets ({len(cm[part])}): distance over the last 10 steps {cm[part].mean():.2f} cm mean, "
            f"{np.median(cm[part]):.2f} median, {cm[part].max():.2f} largest; cost {cost[part].mean():.1f}"
        )
    return 0


def _plot(options: argparse.Namespace) -> int:
    from gps.runs.finish import draw, final_evaluation
    from gps.runs.programs import Programs
    from gps.runs.resume import load

    folder = RunFolder.open(options.run)
    experiment, guider, state = load(folder)
    evaluation = final_evaluation(experiment, Programs(guider), guider, state)
    for path in draw(folder, guider.task, evaluation):
        print(path)
    return 0


def _list(options: argparse.Namespace) -> int:
    known = {**TASKS, **GUIDERS}
    for name in options.names:
        if name not in known:
            raise unknown("task or guider", name, known)
    if options.settings and not options.names:
        print("runs:")
        _print_settings(to_dict(RunSettings()), "run.")
    for title, entries in (("tasks", TASKS), ("guiders", GUIDERS)):
        shown = {name: entry for name, entry in entries.items() if name in options.names or not options.names}
        if shown:
            print(f"{title}:")
        for name, entry in shown.items():
            print(f"  {name:{_width(shown)}}{entry.about}")
            if options.settings:
                _print_settings(to_dict(entry.defaults), f"{title.removesuffix('s')}.")
                _print_changes(name, entry.model_free)
    if not options.names:
        _print_runs(options.runs)
    return 0


def _print_changes(task: str, tables: dict[str, Any]) -> None:
    """What a task changes of the defaults of guiders, for which of them, and by the names that can be set."""
    if not tables:
        return
    others = " and ".join(name for name in GUIDERS if not defaults(task, name))
    print(f"      defaults on this task, for every guider that has them but {others}:")
    _print_settings({name: table for name, table in tables.items() if name != "methods"}, "  ")
    for guider, table in tables.get("methods", {}).items():
        print(f"      and for {guider}:")
        _print_settings(table, "  guider.")


def _print_runs(path: str) -> None:
    runs = sorted(path.parent for path in Path(path).glob("*/config.toml"))
    print(f"runs in {path}/:" if runs else f"no runs in {path}/")
    for run in runs:
        print(f"  {run.name:{_width(run.name for run in runs)}}{_about(run)}")


def _width(names: Iterable[str]) -> int:
    """Of a column of names."""
    return max(map(len, names)) + 2


def _about(path: Path) -> str:
    try:
        folder = RunFolder.open(path)
        own, done = folder.settings["run"], len(folder.read_metrics())  # as it stands: nothing is imported for it
        return f"{own['task']} by {own['guider']}, seed {own['seed']}: {done} of {own['iterations']} iterations"
    except _EXPECTED as error:
        return f"cannot be read: {error}"  # one bad run does not hide the others
    except (KeyError, TypeError):
        return "cannot be read: its config.toml lacks a setting of the table 'run'"


def _print_settings(settings: dict, prefix: str) -> None:
    for name, value in flat(settings, prefix).items():
        print(f"      {name} = {value}")


def _print_numbers(path: Path, summary: dict) -> None:
    def number(name: str, unit: float, form: str) -> str:
        return "-" if summary[name] is None else format(unit * summary[name], form)  # null: an evaluation diverged

    def cm(name: str) -> str:
        return number(name, 100.0, ".2f")

    if "test_distance_mean" in summary:
        scores = (
            f"test distance {cm('test_distance_mean')} cm (largest {cm('test_distance_max')}), training "
            f"{cm('train_distance_mean')} cm"
        )
    else:
        scores = (
            f"learner's return {number('learner_return', 1.0, '.4g')} by its most likely actions, "
            f"{number('learner_return_sampled', 1.0, '.4g')} by sampled ones"
        )
    print(
        f"{path}: {scores}, {summary['env_steps']} steps, {summary['iterations']} iterations, "
        f"{summary['wall_seconds']:.1f} s"
    )


_GO_ON = {
    _train: "; gps train --resume goes on from the last checkpoint",
    _compare: "; the same command goes on from the last checkpoint of each run",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gps", description="Guided policy search.")
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="train a learner with the help of a guider")
    train.add_argument("task", help="see gps list")
    train.add_argument("--guider", help="see gps list (default: badmm)")
    train.add_argument("--engine", help="auto, mujoco or mjx (default: auto)")
    train.add_argument("--seed", type=int, help="of all random numbers (default: 0)")
    train.add_argument("--iterations", type=int, help="with --resume, how many the run is to have in the end")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for example guider.kl_step=0.5")
    train.add_argument("--out", help="the run's folder (default: runs/TASK-GUIDER-seedN)")
    train.add_argument("--resume", action="store_true", help="go on with the run in that folder, if there is one")
    train.set_defaults(command=_train)

    compare = commands.add_parser("compare", help="train guiders on the same tasks and seeds, and compare them")
    compare.add_argument("tasks", nargs="+", metavar="task", help="see gps list")
    compare.add_argument("--guiders", nargs="+", required=True, metavar="GUIDER", help="see gps list")
    compare.add_argument("--seeds", type=int, default=5, help="how many; they are 0, 1, 2, ... (default: 5)")
    compare.add_argument("--iterations", type=int, help="of every run")
    compare.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run, as in train")
    compare.add_argument(
        "--set-for",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="for the runs of one guider or one task; comes after --set",
    )
    compare.add_argument("--threshold", type=float, help="return for which the steps to reach it are counted")
    compare.add_argument("--distance-threshold", type=float, default=2.0, help="likewise, in cm (default: 2)")
    compare.add_argument("--out", help="folder of runs and results (default: runs/compare-TASK)")
    compare.set_defaults(command=_compare)

    evaluate = commands.add_parser("evaluate", help="let the learner of a run act on training and test targets")
    evaluate.add_argument("run", help="a run's folder")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--noise", type=float, default=0.0, help="1 samples the policy, 0 takes its mean (default)")
    evaluate.set_defaults(command=_evaluate)

    plot = commands.add_parser("plot", help="draw the figures of a run again")
    plot.add_argument("run", help="a run's folder")
    plot.set_defaults(command=_plot)

    listing = commands.add_parser("list", help="the tasks, the guiders and the runs that there are")
    listing.add_argument("names", nargs="*", metavar="NAME", help="a task or a guider: these alone, and no runs")
    listing.add_argument("--settings", action="store_true", help="with all their settings and defaults")
    listing.add_argument("--runs", default="runs", help="folder of runs (default: runs)")
    listing.set_defaults(command=_list)
    return parser


if __name__ == "__main__":
    sys.exit(main())
