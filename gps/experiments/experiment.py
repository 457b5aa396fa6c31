"""The settings of one run: task + guider + seed + how long."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gps.errors import not_installed
from gps.experiments import lookup
from gps.experiments.sizes import countable, require_countable
from gps.settings import SettingsError, check_at_least, check_one_of, check_positive, flat, from_dict, to_dict, unknown

if TYPE_CHECKING:  # both import jax, which commands that only read settings need not wait for
    from dynamics.plant import Plant
    from gps.guiders.guider import Guider
    from gps.tasks.task import Environment


@dataclass(frozen=True)
class PlantSettings:
    """Where samples come from, if not from the simulator; see docs/plant.md."""

    address: str = ""  # of ZeroMQ, such as "tcp://robot:5555"; none by default: samples are simulated
    timeout: float = 10.0  # s, how long the plant may take to answer, beyond the motion itself

    def __post_init__(self):
        check_positive(self, "timeout")
        if self.address and "://" not in self.address:
            raise ValueError(f"address must be one of ZeroMQ, such as tcp://robot:5555, not {self.address!r}")


MAY_CHANGE = ("run.iterations", "run.figures")  # of a run that goes on: they change no number that it has


@dataclass(frozen=True)
class RunSettings:
    """What a run is about, besides the settings of its task and its guider."""

    task: str = "reacher"  # a name of `gps list`, or one's own as "module:ENTRY"; see `gps.experiments.lookup.find`
    guider: str = "badmm"  # likewise
    plant: PlantSettings = field(default_factory=PlantSettings)  # of model-based guiders
    engine: str = "auto"  # simulator: "mujoco" (C, all cores), "mjx" (on the device), or what fits the machine
    devices: int = 1  # of all processes, among which conditions or environments are shared evenly
    seed: int = 0  # of all random numbers
    iterations: int = 12  # of the whole run
    evaluate_every: int = 1  # iterations between evaluations of the learner; the last one is always evaluated
    checkpoint_every: int = 1  # iterations between checkpoints; there is always one at the end
    tensorboard: bool = False  # event files of TensorBoard beside metrics.jsonl, in the run's folder
    figures: bool = True  # drawn at the end, which takes a few seconds; `gps plot` draws them at any time

    def __post_init__(self):
        lookup.find("task", self.task)
        lookup.find("guider", self.guider)
        from dynamics.engines import ENGINES  # it imports mujoco and jax, as the task has done by now

        check_one_of(self, "engine", ENGINES)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to {2**32 - 1}, not {self.seed}")
        check_at_least(self, 1, "devices", "iterations", "evaluate_every", "checkpoint_every")

    @property
    def first_checkpoint(self) -> int:
        """Iterations before the first checkpoint."""
        return min(self.checkpoint_every, self.iterations)

    @property
    def folder(self) -> str:
        """The usual name of a run's folder; tasks of Gymnasium may have a slash in theirs."""
        return f"{self.task.replace('/', '-')}-{self.guider}-seed{self.seed}"

    def evaluates(self, i: int) -> bool:
        """Whether the learner is evaluated after iteration i, counted from 0."""
        return i + 1 == self.iterations or (i + 1) % self.evaluate_every == 0

    def saves(self, i: int) -> bool:
        """Whether a checkpoint is made after iteration i, counted from 0."""
        return i + 1 == self.iterations or (i + 1) % self.checkpoint_every == 0


@dataclass(frozen=True)
class Experiment:
    """All settings of a run, as in its config.toml."""

    run: RunSettings
    task: Any
    guider: Any

    @classmethod
    def resolve(cls, settings: Mapping[str, Any]) -> Experiment:
        """From the tables "run", "task" and "guider"; what they leave out takes the defaults of guider and task.

        Errors:
            SettingsError naming an unknown table, key, task, guider or engine and the nearest known one, or a
            value of the wrong type or outside its range.
        """
        for table in settings:
            if table not in ("run", "task", "guider"):
                raise unknown("table of settings", table, ("run", "task", "guider"))
        named = from_dict(RunSettings, settings.get("run", {}), "run")
        task, guider = lookup.find("task", named.task), lookup.find("guider", named.guider)
        preset = lookup.defaults(named.task, named.guider)

        def complete(default: Any, table: str) -> Any:
            own = overlay(to_dict(default), preset.get(table, {}))
            return from_dict(type(default), overlay(own, settings.get(table, {})), table)

        defaults = {"run": RunSettings(), "task": task.settings, "guider": guider.settings}
        experiment = cls(**{table: complete(default, table) for table, default in defaults.items()})
        if experiment.run.engine != "auto" and not task.engines:
            raise SettingsError(
                f"run.engine = {named.engine!r}: {named.task} has physics of its own, or none; leave it at 'auto'"
            )
        _check_teaching(experiment)
        return experiment

    def changed(self, asked: Mapping[str, Any]) -> Experiment:
        """With the settings of these tables; the others stay, but for those of a task or guider that another replaces.

        Errors:
            As in `resolve`.
        """
        own = self.to_dict()
        for name in ("task", "guider"):
            if asked.get("run", {}).get(name, own["run"][name]) != own["run"][name]:
                del own[name]
        return Experiment.resolve(overlay(own, asked))

    def differences(self, other: Experiment) -> dict[str, tuple[Any, Any]]:
        """The settings by their dotted names where they differ: (this one's, the other's); None where one has none."""
        own, others = flat(self.to_dict()), flat(other.to_dict())
        names = [*own, *(name for name in others if name not in own)]
        return {name: (own.get(name), others.get(name)) for name in names if own.get(name) != others.get(name)}

    def to_dict(self) -> dict[str, Any]:
        """Plain tables; `resolve` takes them back."""
        return {name: to_dict(getattr(self, name)) for name in ("run", "task", "guider")}

    @property
    def code(self) -> tuple[str, ...]:
        """What of its settings names code of somebody's own; whoever made this experiment trusts it."""
        return tuple(lookup.code(self.to_dict()).values())

    @property
    def alone(self) -> Experiment:
        """The same without its plant: for who only reads a run, and may have no way to one."""
        return replace(self, run=replace(self.run, plant=PlantSettings()))

    @property
    def simulated(self) -> bool:
        """Whether there is a MuJoCo engine to choose."""
        return lookup.find("task", self.run.task).engines

    def build_task(self) -> Environment:
        """The task; with its simulator, if it has one, on the chosen engine."""
        entry = lookup.find("task", self.run.task)
        engine = (self.run.engine,) if entry.engines else ()
        if self.run.task in lookup.TASKS:
            require_countable(to_dict(self.task), "task.")
        takes = list(inspect.signature(entry.build).parameters)
        if len(takes) == (2 if entry.engines else 3):
            raise SettingsError(
                f"task {self.run.task}: its Entry has engines={entry.engines} and builds from ({', '.join(takes)}): "
                f"engines must be {not entry.engines}"
            )
        try:
            return entry.build(self.task, *engine, self.run.task)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def build(self, warn: Callable[[str], None] | None = None) -> Guider:
        """The guider on its task.

        Args:
            warn: takes the warnings of a check of the task, which takes a few seconds and is made only where this is
                given, and of tasks of one's own: those of the catalogue have passed it.

        Errors:
            SettingsError for settings that are impossible together, and for what is wrong with the task.
        """
        try:
            with countable(self.to_dict()):
                task = self.build_task()
                if warn is not None and self.run.task not in lookup.TASKS:
                    from gps.tasks.check import require_sound

                    for warning in require_sound(task):
                        warn(warning)
                guider = lookup.find("guider", self.run.guider).build(task, self.guider)
                return _on_plant(guider, self.run) if self.run.plant.address else guider
        except SettingsError:
            raise
        except ValueError as error:
            raise SettingsError(str(error)) from error


def plant_of(task: Any, settings: PlantSettings) -> Plant:
    """The plant of these settings for a control task; it is called on for its first episode.

    Errors:
        SettingsError where ZeroMQ is not installed.
    """
    try:
        from dynamics.remote_plant import RemotePlant, Signature
    except ImportError as error:
        raise SettingsError(not_installed("a plant", "pyzmq", "plant", f" ({error})")) from error
    signature = Signature(task.nx, task.nu, task.dt, task.frame_size)
    return RemotePlant(settings.address, settings.timeout, signature)


def _on_plant(guider: Any, run: RunSettings) -> Any:
    """The guider with its samples from the plant of these settings."""
    from gps.guiders.model_based.on_plant import OnPlant
    from gps.guiders.model_based.scaffold import ModelBased

    if not isinstance(guider, ModelBased):
        raise SettingsError(
            f"run.plant.address = {run.plant.address!r}: a plant runs controllers, and {run.guider!r} has none to "
            "send; take a guider such as badmm or mdgps"
        )
    return OnPlant(guider, plant_of(guider.task, run.plant))


def _check_teaching(experiment: Experiment) -> None:
    """Raise SettingsError where a run would end before its teacher is trained and the learner's turn comes."""
    guider, iterations = experiment.guider, experiment.run.iterations
    teacher = getattr(guider, "teacher", None)
    if teacher is not None and not teacher.run and iterations * guider.ppo.updates <= teacher.updates:
        raise SettingsError(
            f"guider.teacher.updates = {teacher.updates} leave the learner none of {iterations} iterations "
            f"of {guider.ppo.updates} updates: take fewer, more iterations, or a teacher from guider.teacher.run"
        )


def overlay(base: Mapping[str, Any], changes: Any) -> Any:
    """`base` with `changes` over it, table by table; keys that `base` lacks stay, for the checks to name."""
    if not isinstance(changes, Mapping):
        return changes
    result = dict(base)
    for key, value in changes.items():
        result[key] = overlay(base[key], value) if isinstance(base.get(key), Mapping) else value
    return result
