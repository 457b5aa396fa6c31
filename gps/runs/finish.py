"""The end of a run: its last evaluation, its figures and its summary."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dynamics.engines import resolve_engine
from gps.errors import described, printable
from gps.experiments.experiment import Experiment
from gps.guiders.guider import Guider
from gps.runs import integrity
from gps.runs.best import best_row
from gps.runs.evaluate import Episodes, Evaluation
from gps.runs.folder import RunFolder, iteration_seconds
from gps.runs.programs import Programs, keys_of
from gps.tasks.control_task import ControlTask, is_control, step_costs
from gps.tasks.task import RETURN, Environment

if TYPE_CHECKING:
    from gps.figures.draw import Simulated
    from gps.figures.episodes import LearnerEpisodes

SCORES = (
    *("learner_return", "learner_return_sampled", "episode_length"),
    *(f"{part}_{what}" for part in ("train", "test") for what in ("score", "solved", "episodes", "cost")),
    "test_score_worst",
)
COUNTED = ("diverged_samples", "failed_solves", "failed_fits", "failed_updates")
MODELS = ("model_error", "untrusted_models", "saturated_actions")  # of local models, in the last iteration
VERSIONS = ("jax", "jaxlib", "mujoco", "mujoco-mjx", "flax", "optax", "numpy")


def to_stderr(line: str) -> None:
    """Tell the user, and leave standard output alone."""
    print(printable(line), file=sys.stderr)


def finish(folder: RunFolder, experiment: Experiment, programs: Programs, guider: Guider, state: Any, clock) -> dict:
    """Write the summary of a run that has all its iterations; then draw its figures if wanted, which can not fail it.

    Errors:
        As in `draw`, where what was trained is lost.
    """
    integrity.check(folder, folder.checkpoints.newest(), folder.experiment.run.first_checkpoint)
    rows = folder.metrics.rows()
    counted = {name: sum(row[name] or 0 for row in rows) for name in COUNTED if name in rows[-1]}
    score = guider.task.score if is_control(guider.task) else RETURN
    best = best_row(rows)
    summary = {
        "score": asdict(score),
        **scores_of(rows[-1]),
        **({} if best is None else {"best": {"iteration": best["iteration"], **scores_of(best)}}),
        **{name: _mean(rows[-1][name]) for name in MODELS if name in rows[-1]},
        "env_steps": rows[-1]["steps"],
        "iterations": len(rows),
        "wall_seconds": clock(),
        "seconds_per_iteration": float(np.median(iteration_seconds(rows))),
        **({"engine": resolve_engine(experiment.run.engine)} if experiment.simulated else {}),
        **({"plant": experiment.run.plant.address} if experiment.run.plant.address else {}),
        "seed": experiment.run.seed,
        **counted,
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }
    folder.write_summary(summary)
    if not experiment.run.figures:
        return summary
    try:
        draw(folder, guider.task, final_evaluation(experiment, programs, guider, state))
    except Exception as error:
        to_stderr(f"{folder.path}: no figures: {type(error).__name__}: {' '.join(str(error).split())}")
    summary["wall_seconds"] = clock()  # with the figures
    folder.write_summary(summary)
    return summary


def scores_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation of the learner has put in a row of metrics."""
    return {name: row[name] for name in SCORES if name in row}


def _mean(values: Any) -> float | None:
    """Of the conditions that have a number, if there are any."""
    found = [value for value in np.atleast_1d(values) if value is not None]
    return float(np.mean(found)) if found else None


def final_evaluation(experiment: Experiment, programs: Programs, guider: Guider, state: Any) -> Evaluation | Episodes:
    """The evaluation that the last row of a run's metrics reports."""
    _, evaluating, _ = keys_of(experiment.run)
    return programs.evaluate(guider.policy(state), evaluating)


def draw(
    folder: RunFolder,
    task: Environment,
    evaluation: Evaluation | Episodes,
    note: Callable[[str], None] = to_stderr,
) -> list[Path]:
    """Write a run's figures; a line for each one that fails goes to `note`.

    Errors:
        RunError where rows of its metrics or all its checkpoints were lost, CheckpointError where none is whole.
    """
    integrity.check(folder, folder.checkpoints.newest(), folder.experiment.run.first_checkpoint)
    from gps.figures.draw import draw_all  # matplotlib takes 2 s to import, and only the end of a run needs it

    acted = simulated = None
    if isinstance(evaluation, Evaluation):
        assert is_control(task)
        acted, simulated = shown_episodes(task, evaluation, note)
    folder.figures.mkdir(exist_ok=True)
    return draw_all(folder.metrics.rows(), acted, simulated, folder.figures, note)


def shown_episodes(
    task: ControlTask, evaluation: Evaluation, note: Callable[[str], None]
) -> tuple[LearnerEpisodes, Simulated]:
    """What figures show of an evaluation: its test conditions. A skeleton or a target that fails is left out."""
    from gps.figures.draw import Simulated
    from gps.figures.episodes import LearnerEpisodes

    count = len(task.train_contexts)
    test = jax.tree.map(lambda values: values[count:], evaluation)

    @jax.jit
    def derived(states, us, contexts):
        xs = jax.vmap(jax.vmap(task.control_state))(states)
        return xs, jax.vmap(functools.partial(step_costs, task))(xs, us, contexts)

    xs, costs = jax.tree.map(np.asarray, derived(test.states, test.us, task.test_contexts))
    acted = LearnerEpisodes(
        score=task.score,
        scores=np.asarray(test.score),
        solved=None if test.solved is None else np.asarray(test.solved),
        contexts=np.asarray(task.test_contexts),
        xs=xs,
        us=np.asarray(test.us),
        costs=costs,
        dt=task.dt,
        skeletons=drawn_by(task, "skeleton", xs, note),
        targets=drawn_by(task, "target", task.test_contexts, note),
        train_targets=drawn_by(task, "target", task.train_contexts, note),
    )
    return acted, Simulated(task.simulator.model, np.asarray(test.states))


def drawn_by(task: ControlTask, name: str, values: Any, note: Callable[[str], None]) -> np.ndarray | None:
    """What the task's `skeleton` or `target` says of states or contexts (any leading axes); None where it has none.

    Where it fails, a line goes to `note`.
    """
    member = getattr(task, name, None)
    if member is None:
        return None
    for _ in values.shape[:-1]:
        member = jax.vmap(member)
    try:
        return np.asarray(jax.jit(member)(values), float)
    except Exception as error:
        return note(f"`{name}` of the task is not drawn: {described(error)}")
