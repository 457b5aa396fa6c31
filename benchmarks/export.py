"""What one action of an exported learner takes, numpy in and out, in a process that has nothing but the three files.

    taskset -c 0 python benchmarks/export.py

The learner sees 8 numbers and gives 2, as the reacher's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import jax
from timing import machine, row, table

from gps.experiments.experiment import Experiment
from gps.runs import export

NETWORKS = {
    "feed-forward, 2 layers of 64": {"hidden": [64, 64]},
    "feed-forward, 2 layers of 256": {"hidden": [256, 256]},
    "recurrent, 2 layers of 64 and a GRU of 64": {"hidden": [64, 64], "memory": 64},
}


def exported(network: dict, folder: Path) -> Path:
    """An untrained learner's files."""
    settings = {"run": {"task": "reacher", "guider": "ppo"}, "guider": {"learner": {"network": network}}}
    guider = Experiment.resolve(settings).build()
    policy = guider.policy(guider.init(jax.random.key(0)))
    return export.write(export.Learner(policy, guider.task), folder, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=20_000, help="of which median and least are shown")
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}. {machine()}, jax {jax.__version__}")
    table(f"An action of an exported learner, {options.actions} of them", "learner", "median, us", "least, us")
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, network) in enumerate(NETWORKS.items()):
            row(name, *export.microseconds(exported(network, Path(folder) / str(i)), options.actions))


if __name__ == "__main__":
    main()
