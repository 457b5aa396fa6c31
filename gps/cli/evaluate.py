"""`gps evaluate`: let the learner of a run act."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import Any

from gps.cli.reading import add_best, add_run, read_run
from gps.settings import SettingsError, from_dict


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("evaluate", help="let the learner of a run act in training and test conditions")
    add_run(parser)
    add_best(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.0, help="1 samples the policy, 0 takes its mean (default)")
    parser.add_argument("--black-images", action="store_true", help="show the learner none of what it sees in images")
    parser.add_argument("--plant", metavar="ADDRESS", help="act on this plant, such as tcp://robot:5555")
    parser.add_argument("--conditions", type=int, default=20, help="test conditions on a plant (default: 20)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate, and print the scores."""
    from gps.experiments.experiment import PlantSettings, RunSettings

    from_dict(RunSettings, {"seed": options.seed}, "evaluate")  # of the same range
    from_dict(PlantSettings, {"address": options.plant or ""}, "evaluate")
    if options.conditions < 1:
        raise SettingsError(f"evaluate: conditions must be at least 1, not {options.conditions}")
    if not 0 <= options.noise < math.inf:
        raise SettingsError(f"evaluate: noise must be finite and at least 0, not {options.noise}")
    import jax

    from gps.tasks.control_task import is_control

    _, loaded = read_run(options)
    which, learner = loaded.chosen(options.best)
    task, policy = learner.task, learner.policy
    if options.black_images:
        policy = _shown_nothing(policy, task.name)
    shown = (task, policy, jax.random.key(options.seed), options.noise)
    if options.plant and not is_control(task):
        raise SettingsError(f"evaluate: {task.name} names no state that a plant could report")
    print(which)
    if options.plant:
        settings = replace(loaded.experiment.run.plant, address=options.plant)
        print(_on_plant(*shown, settings, options.conditions))
        return 0
    for line in (_conditions if is_control(task) else _episodes)(*shown):
        print(line)
    return 0


def _shown_nothing(policy: Any, name: str) -> Any:
    try:
        return policy.with_eyes_closed()
    except (ValueError, AttributeError) as error:  # or it is a policy of a guider of somebody's own
        raise SettingsError(f"evaluate: --black-images: the learner of {name} sees no images") from error


def _on_plant(task: Any, policy: Any, key: Any, noise: float, settings: Any, count: int) -> str:
    from gps.experiments.experiment import plant_of
    from gps.runs.evaluate import evaluate_on_plant

    contexts, plant = task.test_contexts[:count], plant_of(task, settings)
    return _line("plant's", task, evaluate_on_plant(task, plant, policy, contexts, key, noise), slice(None))


def _episodes(task: Any, policy: Any, key: Any, noise: float) -> list[str]:
    import jax
    import numpy as np

    from gps.runs.evaluate import episode_count, mean_of, returns
    from gps.tasks.task import require_working

    count = episode_count(task)
    evaluate = jax.jit(lambda key: returns(task, policy, jax.random.split(key, count), noise))
    values, steps, solved, means = jax.tree.map(np.asarray, evaluate(key))
    require_working(task)
    lost = np.isnan(values).sum()
    return [
        f"{count} episodes: return {_spread(values, values.min())}; {steps.mean():.1f} steps"
        + ("" if solved is None else f"; solved {solved.sum()} of {count}")
        + "".join(f"; {name} {mean_of(mean):.4g}" for name, mean in means.items())
        + (f"; {lost} diverged and have none" if lost else "")
    ]


def _conditions(task: Any, policy: Any, key: Any, noise: float) -> list[str]:
    import jax
    import numpy as np

    from gps.runs.evaluate import evaluate

    contexts = np.concatenate([task.train_contexts, task.test_contexts])  # together: one program to compile
    result = jax.jit(lambda contexts, key: evaluate(task, policy, contexts, key, noise))(contexts, key)
    count = len(task.train_contexts)
    return [_line("training", task, result, slice(None, count)), _line("test", task, result, slice(count, None))]


def _line(name: str, task: Any, result: Any, part: slice) -> str:
    """What an evaluation says of some of its conditions."""
    import numpy as np

    score, cost = np.asarray(result.score)[part], np.asarray(result.cost)[part]
    worst = score.min() if task.score.more_is_better else score.max()
    line = f"{name:8} conditions ({len(score)}): {task.score.label} {_spread(score, worst)}"
    if result.solved is not None:
        line += f"; solved {np.asarray(result.solved)[part].sum()} of {len(score)}"
    return f"{line}; cost {cost.mean():.4g}"


def _spread(values: Any, worst: float) -> str:
    import numpy as np

    return f"{values.mean():.4g} mean, {np.median(values):.4g} median, {worst:.4g} worst"
