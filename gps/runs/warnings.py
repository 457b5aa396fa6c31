"""What a run's metrics warn of, in the words in which it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNTRUSTED = 3  # iterations in a row, with most local models untrusted
STALLED = 10  # iterations in a row, without a lower cost in any condition

Rows = Sequence[Mapping[str, Any]]


def warnings_of(rows: Rows) -> list[str]:
    """What is to be told after the last of the rows, each of which is an iteration's metrics, from the first on.

    A warning is told when its reason has lasted for so many iterations, and again only after it was over: this follows
    from the rows alone, so that a resumed run repeats nothing.
    """
    found = []
    if _diverged(rows[-1]) and not any(map(_diverged, rows[:-1])):
        names = ("diverged_samples", "first_diverged_environment", "first_diverged_step")
        steps, environment, step = (f"{rows[-1][name]:.0f}" for name in names)
        found.append(
            f"{steps} steps diverged (an observation or a reward not finite, or too large), the first in environment "
            f"{environment}, step {step}: their episodes end, and they enter no statistics"
        )
    if _lasting(rows, _mostly_untrusted) == UNTRUSTED:
        found.append(
            f"most local models have not been trusted for {UNTRUSTED} iterations: try more samples per condition "
            "(guider.sampling.samples), a smaller step (guider.trust_region.kl_step) or another prior "
            "(guider.local_model.prior)"
        )
    if since_improvement(rows) == STALLED:
        found.append(
            f"no condition's cost has fallen for {STALLED} iterations: either the run has converged, or its steps do "
            "not help any more"
        )
    return found


def _lasting(rows: Rows, bad) -> int:
    """How many of the last rows in a row are bad."""
    return next((number for number, row in enumerate(reversed(rows)) if not bad(row)), len(rows))


def _diverged(row: Mapping[str, Any]) -> bool:
    """Whether steps of an environment diverged, and the metrics say where."""
    step = row.get("first_diverged_step")
    return step is not None and bool(np.isfinite(step))


def _mostly_untrusted(row: Mapping[str, Any]) -> bool:
    """Whether the local models of more than half of the conditions, each of which has a cost, are not trusted."""
    return row.get("untrusted_models", 0) > 0.5 * np.size(row.get("cost", 0.0))


def since_improvement(rows: Rows) -> int:
    """Iterations since the last one in which some condition had a lower cost than ever before.

    0 for metrics without costs. A cost that is not finite (null in a row that was read) is no improvement.
    """
    known = [np.atleast_1d(np.array(row["cost"], float)) for row in rows if "cost" in row]
    if not known:
        return 0
    costs = np.nan_to_num(np.stack(known), nan=np.inf, posinf=np.inf, neginf=np.inf)
    lowest = np.minimum.accumulate(costs)
    improved = np.flatnonzero((lowest[1:] < lowest[:-1]).any(1)) + 1
    return len(costs) - 1 - (int(improved[-1]) if len(improved) else 0)
