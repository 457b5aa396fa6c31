"""`gps sweep`: many runs over settings and seeds, and which settings are best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gps.cli.reading import TRUST

GO_ON = "; the same command goes on from the last checkpoint of each run"


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("sweep", help="run many settings and seeds, and say which are best")
    parser.add_argument("file", help="what is varied, in TOML; see docs/running.md")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="over what the file says, such as workers=2"
    )
    parser.add_argument("--out", help="folder of runs and results (default: runs/sweep-FILE)")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    return parser


def run(options: argparse.Namespace) -> int:
    """Sweep; the exit status is 1 where a cell failed."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # this process trains nothing: the workers have the device to themselves
    from gps.sweeps.plan import read_plan
    from gps.sweeps.sweep import sweep

    out = Path(options.out or f"runs/sweep-{Path(options.file).stem}")
    plan = read_plan(options.file, options.set, trust=options.trust)
    results, text = sweep(plan, out, trust=options.trust)
    print(f"\n{text}")
    for path in (out / f"sweep.{kind}" for kind in ("md", "csv", "png", "pdf")):
        if path.exists():
            print(path)
    return 1 if any(result.failed for result in results) else 0
