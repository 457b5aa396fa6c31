"""What a run's metrics warn of, in the words in which it is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

UNTRUSTED = 3  # iterations in a row, with most local models untrusted
STALLED = 10  # iterations in a row, without a lower cost in any condition

Row = Mapping[str, Any]


class Warnings:
    """A warning is told when its reason has lasted for so many iterations, and again only after it was over.

    This follows from the rows alone, so that a resumed run repeats nothing.

    Args:
        earlier: the rows of before, from the first on.
    """

    def __init__(self, earlier: Iterable[Row] = ()):
        self._diverged = False
        self._untrusted = 0  # of the last rows in a row
        self._since = -1  # rows since the last one in which some condition had a lower cost than ever before
        self._lowest: np.ndarray | None = None  # cost of each condition
        for row in earlier:
            self.after(row)

    def after(self, row: Row) -> list[str]:
        """What is to be told after one more row, the metrics of an iteration."""
        found = []
        if _diverged(row) and not self._diverged:
            self._diverged = True
            names = ("diverged_samples", "first_diverged_environment", "first_diverged_step")
            steps, environment, step = (f"{row[name]:.0f}" for name in names)
            found.append(
                f"{steps} steps diverged (an observation or a reward not finite, or too large), the first in "
                f"environment {environment}, step {step}: their episodes end, and they enter no statistics"
            )
        self._untrusted = self._untrusted + 1 if _mostly_untrusted(row) else 0
        if self._untrusted == UNTRUSTED:
            found.append(
                f"most local models have not been trusted for {UNTRUSTED} iterations: try more samples per condition "
                "(guider.sampling.samples), a smaller step (guider.trust_region.kl_step) or another prior "
                "(guider.local_model.prior)"
            )
        if self._since_improvement(row) == STALLED:
            found.append(
                f"no condition's cost has fallen for {STALLED} iterations: either the run has converged, or its steps "
                "do not help any more"
            )
        return found

    def _since_improvement(self, row: Row) -> int:
        """A cost that is not finite (null in a row that was read) is no improvement, and nor is the first one."""
        if "cost" not in row:
            return self._since
        cost = np.nan_to_num(np.atleast_1d(np.array(row["cost"], float)), nan=np.inf, posinf=np.inf, neginf=np.inf)
        improved = self._lowest is None or (cost < self._lowest).any()
        self._lowest = cost if self._lowest is None else np.minimum(self._lowest, cost)
        self._since = 0 if improved else self._since + 1
        return self._since


def _diverged(row: Row) -> bool:
    """Whether steps of an environment diverged, and the metrics say where."""
    step = row.get("first_diverged_step")
    return step is not None and bool(np.isfinite(step))


def _mostly_untrusted(row: Row) -> bool:
    """Whether the local models of more than half of the conditions, each of which has a cost, are not trusted."""
    return row.get("untrusted_models", 0) > 0.5 * np.size(row.get("cost", 0.0))
