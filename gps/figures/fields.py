"""Fields of a run's metrics that figures show: their names, their colours, and their numbers.

It imports no plotting library: figures on paper and those of a page share it. What is null, NaN or infinite in the
metrics is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

Rows = Sequence[Mapping[str, Any]]  # of `gps.runs.metrics.Metrics.rows`
Curves = tuple[tuple[str, str, str, str], ...]  # field, colour, line in the words of matplotlib, label

BLUE, GREEN, RED, GREY = "#0072B2", "#009E73", "#D55E00", "#6B6B6B"  # after Okabe and Ito: safe for the colour-blind
COLORS = (BLUE, RED, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)  # in the order of use

SCORES: Curves = (
    ("controllers_score", BLUE, "o-", "controllers, mean"),
    ("train_score", GREEN, "s-", "learner, training conditions"),
    ("test_score", RED, "^-", "learner, test conditions"),
    ("test_score_worst", RED, ":", "learner, worst test condition"),
)
COSTS: Curves = (
    ("cost", BLUE, "o-", "controllers, mean"),
    ("train_cost", GREEN, "s-", "learner, training conditions"),
    ("test_cost", RED, "^-", "learner, test conditions"),
)
SOLVED: Curves = (
    ("train_solved", GREEN, "s-", "learner, training conditions"),
    ("test_solved", RED, "^-", "learner, test conditions"),
)
RETURNS: Curves = (
    ("learner_return", RED, "^-", "learner, most likely actions"),
    ("learner_return_sampled", GREEN, "s-", "learner, sampled actions"),
    ("train_return", BLUE, "o-", "whoever acts in training"),
)
TIES = (  # of a model-based guider and its learner
    ("lambda_norm", "|λ| (cost per action)"),
    ("penalty", "penalty (cost per nat)"),
    ("price", "price (cost per nat)"),
    ("violation", "violation of the constraint"),
    ("kl_to_learner", "KL to learner (nat/step)"),
    ("eta", "η (cost per nat)"),
    ("kl_step", "KL of iteration (nat/step)"),
)
MODELS = (
    ("model_error", "relative model error"),
    ("prior_strength", "prior (in samples)"),
    ("untrusted_models", "models not trusted"),
    ("saturated_actions", "share of actions at a limit"),
)
MODEL_FREE = (  # what ties a model-free guider and its learner, as far as a method has it
    ("kl_to_learner", "KL, guider and learner (nats)"),
    ("alpha", "penalty alpha"),
    ("advice", "weight of imitation"),
    ("guider_entropy", "entropy of the guider (nats)"),
    ("learner_entropy", "entropy of the learner (nats)"),
)
SIGNED = ("guider_entropy", "learner_entropy")  # not on a logarithm


def numbers(rows: Rows, x: str, field: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n M"]]:
    """Of the n rows with a finite number in `field`: their `x`, and the field with NaN for what is not finite.

    Iterations count from 1, as on the terminal.
    """
    found = [(row.get(x), floats(row, field)) for row in rows]
    found = [(at, values) for at, values in found if at is not None and np.isfinite(values).any()]
    values = np.stack([values for _, values in found]) if found else np.empty((0, 1))
    return np.array([at for at, _ in found], float) + (x == "iteration"), np.where(np.isfinite(values), values, np.nan)


def shares(rows: Rows, field: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 1"]]:
    """Simulator steps, and the share in % of the episodes that a field of `SOLVED` counts."""
    steps, values = numbers(rows, "steps", field)
    return steps, 100 * values / numbers(rows, "steps", field.replace("solved", "episodes"))[1]


def gains(rows: Rows) -> Float[np.ndarray, "n 3"]:
    """Iteration, predicted and actual improvement of each condition that has both numbers."""
    pairs = [
        (row["iteration"] + 1, floats(row, "predicted_improvement"), floats(row, "actual_improvement")) for row in rows
    ]
    points = np.concatenate([np.empty((0, 3)), *(np.column_stack(np.broadcast_arrays(*pair)) for pair in pairs)])
    return points[np.isfinite(points).all(1)]


def floats(row: Mapping[str, Any], field: str) -> np.ndarray:
    """The numbers of a field, NaN for each that is null."""
    return np.atleast_1d(np.array(row.get(field), float))  # None becomes NaN
