"""`gps train`: train a learner with the help of a guider, or go on with a run."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import gps
from gps.cli import completion
from gps.cli.explained import lines
from gps.cli.reading import TRUST
from gps.settings import SettingsError, override

GO_ON = "; gps train --resume goes on from the last checkpoint"


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("train", help="train a learner with the help of a guider", add_help=False)
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this; after a task, with all settings")
    completion.tasks(parser.add_argument("task", help="see gps list"))
    completion.guiders(parser.add_argument("--guider", help="see gps list (default: badmm)"))
    parser.add_argument("--engine", help="auto, mujoco or mjx (default: auto)")
    parser.add_argument("--seed", type=int, help="of all random numbers (default: 0)")
    parser.add_argument("--iterations", type=int, help="with --resume, how many the run is to have in the end")
    assignment = "such as guider.trust_region.kl_step=0.5"
    completion.settings(parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=assignment))
    parser.add_argument("--out", help="the run's folder (default: runs/TASK-GUIDER-seedN)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder, if there is one")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    several = parser.add_argument_group("several processes", "each runs the same command; see docs/scaling.md")
    several.add_argument("--processes", help='how many train the run; "auto": as Slurm or Open MPI has started them')
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--process", type=int, help="the number of this one, from 0")
    return parser


def run(options: argparse.Namespace) -> int:
    """Train; impossible combinations of settings are found before the run's folder is made."""
    several = _processes(options)
    if several is None:
        return _train(options)
    from gps.runs import processes

    processes.join(*several)  # before a task is imported, which may compute something
    with processes.orderly():
        if processes.leads():
            return _train(options)
        from gps.runs.follow import follow

        follow()
        return 0


def _processes(options: argparse.Namespace) -> tuple[int | None, str | None, int | None] | None:
    """Their number, the coordinator and the number of this one, all None where a cluster says; None for one process.

    Errors:
        SettingsError where they do not fit together.
    """
    count, coordinator, process = options.processes, options.coordinator, options.process
    if count in (None, "auto"):
        if (coordinator, process) != (None, None):
            raise SettingsError("--coordinator and --process belong to --processes N, with a number")
        return None if count is None else (None, None, None)
    if not (count.isdecimal() and int(count) > 1):
        raise SettingsError(f'--processes must be a number from 2, or "auto", not {count}')
    if coordinator is None or not re.fullmatch(r".+:[0-9]+", coordinator):
        raise SettingsError(f"--processes {count} needs --coordinator HOST:PORT of process 0, not {coordinator}")
    if process is None or not 0 <= process < int(count):
        raise SettingsError(f"--processes {count} needs --process from 0 to {int(count) - 1}, not {process}")
    return int(count), coordinator, process


def _train(options: argparse.Namespace) -> int:
    from gps.experiments.experiment import Experiment

    asked = settings_of(options, "task", "guider", "engine", "seed", "iterations")
    experiment = Experiment.resolve(asked)
    path = Path(options.out or Path("runs", experiment.run.folder))

    from gps.runs.finish import to_stderr
    from gps.runs.folder import EVERYTHING, RunExistsError, RunFolder
    from gps.runs.programs import Programs
    from gps.runs.resume import resumed, shapes_of
    from gps.runs.teacher import with_teacher
    from gps.runs.tensorboard import require_writer
    from gps.runs.train import train

    require_writer(experiment)
    # code that this command line names, in whichever way, has been imported by now
    trusted = EVERYTHING if options.trust else experiment.code

    def go_on() -> RunFolder:
        return resumed(path, RunFolder.open(path, trusted).experiment.changed(asked))

    programs = None
    if options.resume and (path / "config.toml").exists():
        folder = go_on()
    else:
        programs = Programs(experiment.build(warn=to_stderr), experiment.run.devices)
        programs.require_room(experiment)
        with_teacher(shapes_of(programs.guider), experiment, programs.guider)
        try:
            folder = RunFolder.create(path, experiment)
        except RunExistsError:
            if not (options.resume and (path / "config.toml").exists()):
                raise
            folder, programs = go_on(), None  # another process was faster
    _print_numbers(folder.path, train(folder, started=gps.STARTED, programs=programs))
    return 0


class _Help(argparse.Action):
    """What `argparse` shows; where a task and a guider stand before it, all that `--set` can set for them."""

    def __call__(self, parser, namespace, *_):
        parser.print_help()
        if namespace.task is not None:
            from gps.experiments.experiment import Experiment

            experiment = Experiment.resolve(settings_of(namespace, "task", "guider"))
            print(f"\nsettings of {experiment.run.task} by {experiment.run.guider}, for --set:")
            for table in ("run", "task", "guider"):
                print("\n".join(lines(getattr(experiment, table), f"{table}.")))
        parser.exit()


def settings_of(options: argparse.Namespace, *names: str) -> dict[str, Any]:
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


def _print_numbers(path: Path, summary: dict[str, Any]) -> None:
    def number(name: str) -> str:
        return "-" if summary[name] is None else f"{summary[name]:.4g}"  # null: an evaluation diverged

    if "test_score" in summary:
        score = summary["score"]
        unit = f" {score['unit']}" if score["unit"] else ""
        text = (
            f"test {score['name']} {number('test_score')}{unit} (worst {number('test_score_worst')}), training "
            f"{number('train_score')}{unit}"
        )
    else:
        text = (
            f"learner's return {number('learner_return')} by its most likely actions, "
            f"{number('learner_return_sampled')} by sampled ones"
        )
    if "test_solved" in summary:
        text += f"; solved {summary['test_solved']} of {summary['test_episodes']}"
    print(
        f"{path}: {text}, {summary['env_steps']} steps, {summary['iterations']} iterations, "
        f"{summary['wall_seconds']:.1f} s"
    )
    if "best" in summary:
        from gps.runs.best import told

        print(f"{path}: {told(summary['best'], summary['score'])}")
    if "plant" in summary:
        print(f"{path}: these are of the model; gps evaluate {path} --plant {summary['plant']} acts on the plant")
