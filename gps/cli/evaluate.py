"""`gps evaluate`: let the learner of a run act."""

from __future__ import annotations

import argparse
import math
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
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate, and print the scores."""
    from gps.experiments.experiment import RunSettings

    from_dict(RunSettings, {"seed": options.seed}, "evaluate")  # of the same range
    if not 0 <= options.noise < math.inf:
        raise SettingsError(f"evaluate: noise must be finite and at least 0, not {options.noise}")
    import jax

    from gps.tasks.control_task import is_control

    _, loaded = read_run(options)
    which, learner = loaded.chosen(options.best)
    task, policy = learner.task, learner.policy
    print(which)
    for line in (_conditions if is_control(task) else _episodes)(
        task, policy, jax.random.key(options.seed), options.noise
    ):
        print(line)
    return 0


def _episodes(task: Any, policy: Any, key: Any, noise: float) -> list[str]:
    import jax
    import numpy as np

    from gps.runs.evaluate import episode_count, returns

    count = episode_count(task)
    evaluate = jax.jit(lambda key: returns(task, policy, jax.random.split(key, count), noise))
    values, steps, solved = jax.tree.map(np.asarray, evaluate(key))
    lost = np.isnan(values).sum()
    return [
        f"{count} episodes: return {_spread(values, values.min())}; {steps.mean():.1f} steps"
        + ("" if solved is None else f"; solved {solved.sum()} of {count}")
        + (f"; {lost} diverged and have none" if lost else "")
    ]


def _conditions(task: Any, policy: Any, key: Any, noise: float) -> list[str]:
    import jax
    import numpy as np

    from gps.runs.evaluate import evaluate

    contexts = np.concatenate([task.train_contexts, task.test_contexts])  # together: one program to compile
    result = jax.jit(lambda contexts, key: evaluate(task, policy, contexts, key, noise))(contexts, key)
    lines, count = [], len(task.train_contexts)
    for name, part in (("training", slice(None, count)), ("test", slice(count, None))):
        score, cost = np.asarray(result.score)[part], np.asarray(result.cost)[part]
        worst = score.min() if task.score.more_is_better else score.max()
        line = f"{name:8} conditions ({len(score)}): {task.score.label} {_spread(score, worst)}"
        if result.solved is not None:
            line += f"; solved {np.asarray(result.solved)[part].sum()} of {len(score)}"
        lines.append(f"{line}; cost {cost.mean():.4g}")
    return lines


def _spread(values: Any, worst: float) -> str:
    import numpy as np

    return f"{values.mean():.4g} mean, {np.median(values):.4g} median, {worst:.4g} worst"
