"""How far a run is, from the files that it writes while it goes on."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from federatedscope_ext.sweep.plan import run_files, saved_run

__all__ = ["Follower"]


class Follower:
    """Reads a run folder's new lines each time it is asked.

    Attributes
    ----------
    round, rounds : int or None
        The round that the run is in, and how many there are.
    metric : str
        Name of the run's main metric.
    value : float
        Its plain mean over clients in the latest evaluation after aggregation; NaN before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.round: int | None = None
        self.rounds: int | None = None
        self.metric = ""
        self.value = math.nan
        self._offset = 0
        self._evaluated: tuple[int, bool] = (-1, False)
        self._values: list[float] = []

    def update(self) -> None:
        """Read on; a file that is not there yet, or a line that is not whole, comes later."""
        if self.rounds is None:
            run = saved_run(self.folder)
            if not run:
                return
            self.rounds, self.metric = run.get("rounds"), str(run.get("main_metric", ""))
        try:
            with run_files(self.folder)[1].open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._add(event)

    def _add(self, event: dict[str, Any]) -> None:
        number = event.get("round")
        if isinstance(number, int) and number > 0:
            self.round = number
        if event.get("event") != "eval" or event.get("phase") == "before" or event.get("unseen"):
            return
        value = (event.get("metrics") or {}).get(self.metric)
        if not isinstance(number, int) or not isinstance(value, int | float):
            return
        # Of one round the clients' own evaluations count, the server's where there are no others.
        key = (number, event.get("client", 0) != 0)
        if key > self._evaluated:
            self._evaluated, self._values = key, []
        if key == self._evaluated:
            self._values.append(float(value))
            self.value = statistics.fmean(self._values)

    @property
    def text(self) -> str:
        """``round 3/10`` and so on; ``starting`` before the first round."""
        if not self.round:
            return "starting"
        return f"round {self.round}/{self.rounds}" if self.rounds else f"round {self.round}"

    @property
    def shown_metric(self) -> str:
        """``val_acc 0.8123``; empty before the first evaluation."""
        return "" if math.isnan(self.value) else f"{self.metric} {self.value:.4f}"
