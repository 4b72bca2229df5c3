"""What the user sees while a sweep goes on: a table that moves, or plain lines."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from federatedscope.core.monitors.means import mean
from federatedscope.core.records import METRICS_FILE
from federatedscope_ext.tools.sweep.plan import Point, Status, saved_run

if TYPE_CHECKING:
    from federatedscope_ext.tools.sweep.jobs import Job

__all__ = ["Follower", "Lines", "LiveTable", "counts_line", "duration", "show_failures", "watcher"]

_REFRESH, _LINES_EVERY = 0.5, 60.0
_STYLE = {Status.FINISHED: "green", Status.FAILED: "red", Status.INTERRUPTED: "yellow"}


@contextmanager
def watcher(points: Sequence[Point], console: Console) -> Iterator[LiveTable | Lines]:
    """The table on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(points, console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield LiveTable(points, console, live)


def duration(seconds: float) -> str:
    """``1:02:03``."""
    return str(timedelta(seconds=round(seconds)))


def counts_line(points: Sequence[Point]) -> str:
    """``done 3 (2 of them before), running 2, queued 7, failed 0``."""
    counts = Counter(point.status for point in points)
    before = sum(point.skipped for point in points)
    done = f"done {counts[Status.FINISHED]}" + (f" ({before} of them before)" if before else "")
    parts = [done, f"running {counts[Status.RUNNING]}", f"queued {counts[Status.QUEUED]}",
             f"failed {counts[Status.FAILED]}"]  # fmt: skip
    if counts[Status.INTERRUPTED]:
        parts.append(f"interrupted {counts[Status.INTERRUPTED]}")
    return ", ".join(parts)


def show_failures(points: Sequence[Point], console: Console) -> None:
    """Each failed point with its reason, the end of its log and where all of it is."""
    for point in points:
        if point.status is not Status.FAILED:
            continue
        console.print(Text(f"\nFailed: {point.name}: {point.error}", style="red"), soft_wrap=True)
        for line in point.log_tail():
            console.print(Text(f"  | {line}"), soft_wrap=True)
        console.print(Text(f"  {point.folder}; its command:"), soft_wrap=True)
        console.print(Text(f"  {point.shown_command}"), soft_wrap=True)


def _ending(point: Point) -> str:
    reason = f": {point.error}" if point.error else ""
    return f"{point.status}  {point.name}  after {duration(point.seconds or 0)}{reason}"


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


class Lines:
    """A line for each start and end, and how the running points stand once a minute."""

    def __init__(self, points: Sequence[Point], console: Console) -> None:
        self.points, self.console = points, console
        self._began = self._told = time.perf_counter()

    def started(self, job: Job) -> None:
        """A run has been started."""
        where = f"  on GPU {job.point.device}" if job.point.device else ""
        self._say(f"started  {job.point.name}{where}")

    def ended(self, job: Job) -> None:
        """A run has ended; its point says how."""
        job.follower.update()
        self._say(f"{_ending(job.point)}  {job.follower.shown_metric}".rstrip())
        self._say(f"{counts_line(self.points)}; {self._clock()}")

    def stopping(self, jobs: Sequence[Job]) -> None:
        """The runs have been asked to end."""
        self._say(
            f"Stopping {len(jobs)} run(s); they write their records and reports. "
            "Once more ends them at once."
        )

    def tick(self, jobs: Sequence[Job]) -> None:
        """Some time has passed."""
        if time.perf_counter() - self._told < _LINES_EVERY:
            return
        self._told = time.perf_counter()
        for job in jobs:
            job.follower.update()
            parts = ["running", job.point.name, job.follower.text, job.follower.shown_metric]
            self._say("  ".join(filter(None, [*parts, f"elapsed {duration(job.seconds)}"])))

    def _clock(self) -> str:
        """Elapsed time, and a guess of what is left from the runs that have ended here."""
        elapsed = time.perf_counter() - self._began
        ended = sum(p.status is Status.FINISHED and not p.skipped for p in self.points)
        left = sum(p.status in (Status.QUEUED, Status.RUNNING) for p in self.points)
        guess = f", about {duration(elapsed / ended * left)} left" if ended and left else ""
        return f"elapsed {duration(elapsed)}{guess}"

    def _say(self, text: str, style: str = "") -> None:
        stamp = datetime.now().strftime("%H:%M:%S")
        self.console.print(Text(f"{stamp}  {text}", style=style), soft_wrap=True)


class LiveTable(Lines):
    """A line per running point, renewed in place; what has ended stays above it."""

    def __init__(self, points: Sequence[Point], console: Console, live: Live) -> None:
        super().__init__(points, console)
        self._live = live
        self._told = 0.0

    def started(self, job: Job) -> None:
        """Show it at once."""
        self._told = 0.0

    def ended(self, job: Job) -> None:
        """A line that stays."""
        self._say(_ending(job.point), style=_STYLE[job.point.status])
        self._told = 0.0

    def tick(self, jobs: Sequence[Job]) -> None:
        """Renew the table, twice a second at most."""
        if time.perf_counter() - self._told < _REFRESH:
            return
        self._told = time.perf_counter()
        for job in jobs:
            job.follower.update()
        self._live.update(self.table(jobs), refresh=True)

    def table(self, jobs: Sequence[Job]) -> Group:
        """What is shown now."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("running", overflow="fold")
        for title in ("round", "metric", "elapsed"):
            table.add_column(title, no_wrap=True)
        if any(job.point.device for job in jobs):
            table.add_column("GPU")
        for job in jobs:
            cells = [job.point.name, job.follower.text, job.follower.shown_metric,
                     duration(job.seconds), job.point.device]  # fmt: skip
            table.add_row(*map(Text, cells[: len(table.columns)]))
        return Group(table, Text(f"{counts_line(self.points)}; {self._clock()}", style="bold"))

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)
