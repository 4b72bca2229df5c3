"""When to stop before the last round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


class EarlyStopper:
    """Stops when a metric has not improved for a number of evaluations.

    Parameters
    ----------
    patience : int
        Evaluations without improvement that are tolerated; 0 never stops.
    delta : float
        Smallest change that counts as an improvement.
    improve_indicator_mode : str
        ``best``: compared with the best value so far; ``mean``: with the mean of the last
        ``patience`` values.
    the_larger_the_better : bool
        Direction of the metric.
    """

    _STATE = ("best_metric", "counter_no_improve", "early_stopped")

    def __init__(
        self,
        patience: int = 5,
        delta: float = 0.0,
        improve_indicator_mode: str = "best",
        the_larger_the_better: bool = True,
    ) -> None:
        self.patience = patience
        self.delta = delta
        self.improve_indicator_mode = improve_indicator_mode
        self.the_larger_the_better = the_larger_the_better
        self.best_metric: float | None = None
        self.counter_no_improve = 0
        self.early_stopped = False

    def _improved(self, new: float, reference: float) -> bool:
        gain = new - reference if self.the_larger_the_better else reference - new
        return gain > self.delta

    def track_and_check(self, history: Sequence[float]) -> bool:
        """Take in the newest value (the last of ``history``) and say whether to stop."""
        if self.patience == 0 or not history or math.isnan(history[-1]):
            return self.early_stopped
        new = float(history[-1])
        if self.improve_indicator_mode == "mean":
            if len(history) > self.patience:
                window = history[-self.patience - 1 : -1]
                self.early_stopped = not self._improved(new, sum(window) / len(window))
            return self.early_stopped
        if self.best_metric is None or self._improved(new, self.best_metric):
            self.best_metric, self.counter_no_improve = new, 0
        else:
            self.counter_no_improve += 1
        self.early_stopped = self.counter_no_improve >= self.patience
        return self.early_stopped

    def state_dict(self) -> dict[str, Any]:
        """What later values are compared with."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        for name in self._STATE:
            setattr(self, name, state[name])
