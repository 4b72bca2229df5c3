"""Means over clients and the best round: each is computed here and nowhere else.

The *plain* mean counts every client the same and decides which round is best. The *weighted* mean
counts a client by the rows it was evaluated on (FederatedScope's ``Results_weighted_avg``). Sums
are exact (``math.fsum``), so that neither depends on the order of clients. A value that is not a
number makes the mean none: a client that diverged is not averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from federatedscope.core.callbacks import Callback, Event

__all__ = ["Best", "EvaluationMeans", "is_better", "mean", "std", "weighted_mean"]


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN for no values."""
    items = list(values)
    return _sum(items) / len(items) if items else math.nan


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float:
    """Mean of ``(value, weight)`` pairs; NaN where the weights add up to nothing."""
    items = list(pairs)
    total = _sum([weight for _, weight in items])
    return _sum([value * weight for value, weight in items]) / total if total > 0 else math.nan


def _sum(items: list[float]) -> float:
    try:
        return math.fsum(items)
    except (OverflowError, ValueError):
        # What diverged is not summed exactly: infinite, or not a number.
        return float(sum(items))


def std(values: Iterable[float], sample: bool = False) -> float:
    """Standard deviation. The clients of a run are all there are; the seeds of a comparison are a
    ``sample``, divided by ``n - 1``, and NaN for fewer than two.
    """
    items = list(values)
    count = len(items) - (1 if sample else 0)
    centre = mean(items)
    squares = [(value - centre) * (value - centre) for value in items]
    return math.sqrt(_sum(squares) / count) if count > 0 else math.nan


def is_better(new: float, old: float, larger: bool) -> bool:
    """Whether one value of the deciding metric is better than another; NaN is the worst."""
    if math.isnan(old):
        return not math.isnan(new)
    return new > old if larger else new < old


@dataclass
class Best:
    """The best round so far, the first of equal ones: its value and the rounds completed by then,
    ``None`` before the first. ``larger``: larger values are better.
    """

    larger: bool
    round: int | None = None
    value: float = math.nan

    def offer(self, rnd: int, value: float) -> bool:
        """Take a round in; returns whether it is the best so far."""
        if self.round is not None and not is_better(value, self.value, self.larger):
            return False
        self.round, self.value = rnd, value
        return True


class EvaluationMeans(Callback):
    """Collects what participating clients reach after aggregation, for the means over them."""

    def __init__(self) -> None:
        self._reached: dict[str, list[float]] = {}

    def on_eval(self, event: Event) -> None:
        """Collect a client's figures."""
        if event["phase"] == "after" and not event["unseen"]:
            for key, value in event["metrics"].items():
                if not key.endswith("_total"):
                    self._reached.setdefault(key, []).append(value)

    def take_means(self) -> tuple[dict[str, float], int]:
        """Means of all figures, and of how many clients; what follows is another evaluation."""
        taken, self._reached = self._reached, {}
        return {key: mean(v) for key, v in taken.items()}, max(map(len, taken.values()), default=0)
