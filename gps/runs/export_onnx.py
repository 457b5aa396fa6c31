"""A learner as an ONNX model, by jax2onnx, and a loader for it that needs numpy and onnxruntime alone."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gps.errors import UserError, described, not_installed

FUNCTION = "learner.onnx"

LOADER_TEXT = '''"""The learner beside this file, which needs numpy and onnxruntime.

    learner = Learner()
    action = learner(observation)  # one step of an episode
    learner.reset()  # before the next episode: it may remember
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime


class Learner:
    def __init__(self, folder=Path(__file__).parent):
        self.about = json.loads((Path(folder) / "learner.json").read_text())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(Path(folder) / "learner.onnx"), options)
        self.reset()

    def reset(self):
        self._memory = [np.zeros(self.about["memory"], np.float32)] if self.about["memory"] else []

    def __call__(self, observation):
        given = zip(("observation", "memory"), [np.asarray(observation, np.float32), *self._memory])
        action, *self._memory = self._session.run(None, dict(given))
        return action
'''


def require_writer() -> None:
    """Raise UserError where what makes the model is not installed."""
    if importlib.util.find_spec("jax2onnx") is None:
        raise UserError(not_installed("--format onnx", "jax2onnx", "onnx"))


def model(act: Callable[[Any, Any], tuple[Any, Any]], memory: int, observation: int) -> bytes:
    """The model of a function of memory and observation that gives the next memory and an action.

    Its inputs are "observation" and "memory", its outputs "action" and "memory_after"; a learner that remembers nothing
    has neither memory.

    Errors:
        UserError for a function that jax2onnx can not translate.
    """
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)  # it tells of operations that our jax does not have
    sizes = (observation, memory) if memory else (observation,)

    def function(o, *remembered):
        (h,) = remembered or (np.zeros(0, np.float32),)
        after, action = act(h, o)
        return (action, after)[: len(sizes)]

    names = [("observation", "memory")[: len(sizes)], ("action", "memory_after")[: len(sizes)]]
    shapes = [jax.ShapeDtypeStruct((size,), np.float32) for size in sizes]
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]  (an extra)

        made = to_onnx(function, shapes, model_name="learner", input_names=names[0], output_names=names[1])
    except Exception as error:  # such as for an operation in an encoder of the user's own
        raise UserError(f"--format onnx: jax2onnx can not translate this learner: {described(error)}") from error
    return made.SerializeToString()
