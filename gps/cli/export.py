"""`gps export`: the learner of a run as files for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gps.cli.reading import add_best, add_run, read_run


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser = commands.add_parser("export", help="write the learner of a run as files for other programs")
    add_run(parser)
    add_best(parser)
    needs = "what loads it: jax (with flatbuffers), or onnxruntime and its like (default: stablehlo)"
    parser.add_argument("--format", choices=("stablehlo", "onnx"), default="stablehlo", help=needs)
    parser.add_argument("--out", help="the folder to write (default: RUN-learner)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Export, and print where and how long an action takes."""
    from gps.runs import export, export_onnx

    path, onnx = Path(options.out or f"{Path(options.run).name}-learner"), options.format == "onnx"
    export.check_free(path)
    if onnx:
        export_onnx.require_writer()
    _, loaded = read_run(options)
    which, learner = loaded.chosen(options.best)
    named = loaded.experiment.run
    export.write(learner, path, {"task": named.task, "guider": named.guider, "learner": which}, onnx=onnx)
    print(f"{which}\n{path}: {export.LOADER} loads it; an action takes {export.microseconds(path)[0]:.0f} us here")
    return 0
