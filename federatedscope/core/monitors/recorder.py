"""The machine-readable record of a run: ``run.json`` and ``metrics.jsonl``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import IO

from federatedscope.core.callbacks import Callback, Event
from federatedscope.core.files import write_json
from federatedscope.core.metric_values import finite
from federatedscope.core.records import METRICS_FILE, RUN_FILE


class Recorder(Callback):
    """Writes what happens in the run's folder as it happens.

    ``metrics.jsonl`` gets one line per event and is flushed after each, so that an interrupted
    run keeps everything that was finished. ``run.json`` is rewritten whole at start and end.
    """

    def __init__(self, outdir: str | Path) -> None:
        self.outdir = Path(outdir)
        self._file: IO[str] | None = None
        self._round_started = time.perf_counter()

    def on_run_start(self, run: Event) -> None:
        """Write the setup."""
        self.outdir.mkdir(parents=True, exist_ok=True)
        write_json(self.outdir / RUN_FILE, finite(run))
        self._file = (self.outdir / METRICS_FILE).open("a", encoding="utf-8")

    def on_round_start(self, rnd: int, clients: list[int]) -> None:
        """Start the round's clock."""
        self._round_started = time.perf_counter()

    def on_train(self, event: Event) -> None:
        """Write a line."""
        if self._file is not None:
            self._file.write(json.dumps(finite(event), allow_nan=False) + "\n")
            self._file.flush()

    on_eval = on_traffic = on_train

    def on_round(self, event: Event) -> None:
        """Write an aggregation; its seconds run from the start of the round (no evaluation)."""
        seconds = time.perf_counter() - self._round_started
        self.on_train({**event, "seconds": round(seconds, 4)})

    def on_run_end(self, run: Event, outdir: str) -> None:
        """Write how it ended."""
        if self._file is not None:
            self._file.close()
            self._file = None
        write_json(self.outdir / RUN_FILE, finite(run))
