"""How far a run is, from the files that it writes while it goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from federatedscope_ext.report.records import METRICS_FILE, mean
from federatedscope_ext.tools.sweep.plan import saved_run

__all__ = ["Follower"]


class Follower:
    """Reads a run folder's new lines each time it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run: dict[str, Any] = {}
        self._round = 0
        self._offset = 0
        self._evaluated: tuple[int, bool] = (-1, False)
        self._values: list[float] = []

    def update(self) -> None:
        """Read on; a file that is not there yet, or a line that is not whole, comes later."""
        self._run = self._run or saved_run(self.folder)
        file = self.folder / METRICS_FILE
        if not self._run or not file.is_file():
            return
        with file.open("rb") as stream:
            stream.seek(self._offset)
            text = stream.read()
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
        if not isinstance(number, int):
            return
        self._round = number if number > 0 else self._round
        if event.get("event") != "eval" or event.get("phase") == "before" or event.get("unseen"):
            return
        value = (event.get("metrics") or {}).get(self.metric)
        # Of one round the clients' own evaluations count, the server's where there are no others.
        key = (number, event.get("client", 0) != 0)
        if isinstance(value, int | float) and key >= self._evaluated:
            self._values = [*self._values, value] if key == self._evaluated else [value]
            self._evaluated = key

    @property
    def metric(self) -> str:
        """Name of the run's main metric; empty before the run has begun."""
        return str(self._run.get("main_metric", ""))

    @property
    def value(self) -> float:
        """Its plain mean over clients in the latest evaluation after aggregation; NaN before."""
        return mean(self._values)

    @property
    def text(self) -> str:
        """``round 3/10`` and so on; ``starting`` before the first round."""
        rounds = self._run.get("rounds")
        if not self._round:
            return "starting"
        return f"round {self._round}/{rounds}" if rounds else f"round {self._round}"

    @property
    def shown_metric(self) -> str:
        """``val_acc 0.8123``; empty before the first evaluation."""
        return "" if math.isnan(self.value) else f"{self.metric} {self.value:.4f}"
