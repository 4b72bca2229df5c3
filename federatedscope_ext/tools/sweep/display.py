"""What the user sees while a sweep goes on: a table that moves, or plain lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from federatedscope_ext.tools.sweep.jobs import Job
from federatedscope_ext.tools.sweep.plan import Point, Status

__all__ = ["Lines", "LiveTable", "counts_line", "duration", "show_failures", "watcher"]

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


def duration(seconds: float | None) -> str:
    """``1:02:03``; a dash for none."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


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
    return f"{point.status}  {point.name}  after {duration(point.seconds)}{reason}"


class _Clock:
    """Elapsed time, and a guess of what is left from the runs that have ended here."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self.started = time.perf_counter()

    def __str__(self) -> str:
        elapsed = time.perf_counter() - self.started
        ended = sum(p.status is Status.FINISHED and not p.skipped for p in self.points)
        left = sum(p.status in (Status.QUEUED, Status.RUNNING) for p in self.points)
        guess = f", about {duration(elapsed / ended * left)} left" if ended and left else ""
        return f"elapsed {duration(elapsed)}{guess}"


class LiveTable:
    """A line per running point, renewed in place; what has ended stays above it.

    Parameters
    ----------
    points : sequence of Point
        All of the sweep.
    console : Console
        A terminal.
    live : Live
        Where on it.
    """

    def __init__(self, points: Sequence[Point], console: Console, live: Live) -> None:
        self.points, self.console = points, console
        self._clock, self._live = _Clock(points), live
        self._shown = 0.0

    def started(self, job: Job) -> None:
        """The table shows it at its next renewal."""
        self._shown = 0.0

    def ended(self, job: Job) -> None:
        """A line that stays."""
        self.console.print(Text(_ending(job.point), style=_STYLE[job.point.status]), soft_wrap=True)
        self._shown = 0.0

    def stopping(self, jobs: Sequence[Job]) -> None:
        """Say that the runs are ending."""
        self.console.print(_stopping(jobs))

    def tick(self, jobs: Sequence[Job]) -> None:
        """Renew the table, twice a second at most."""
        now = time.perf_counter()
        if now - self._shown < _REFRESH:
            return
        self._shown = now
        for job in jobs:
            job.follower.update()
        self._live.update(self.table(jobs), refresh=True)

    def table(self, jobs: Sequence[Job]) -> Group:
        """What is shown now."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("running", "round", "metric", "elapsed"):
            table.add_column(title, overflow="fold" if title == "running" else "ellipsis",
                             no_wrap=title != "running")  # fmt: skip
        if any(job.point.device for job in jobs):
            table.add_column("GPU")
        for job in jobs:
            cells = [job.point.name, job.follower.text, job.follower.shown_metric,
                     duration(job.seconds), job.point.device]  # fmt: skip
            table.add_row(*map(Text, cells[: len(table.columns)]))
        return Group(table, Text(f"{counts_line(self.points)}; {self._clock}", style="bold"))


class Lines:
    """A line for each start and end, and how the running points stand once a minute."""

    def __init__(self, points: Sequence[Point], console: Console) -> None:
        self.points, self.console = points, console
        self._clock = _Clock(points)
        self._told = time.perf_counter()

    def started(self, job: Job) -> None:
        """A line."""
        where = f"  on GPU {job.point.device}" if job.point.device else ""
        self._say(f"started  {job.point.name}{where}")

    def ended(self, job: Job) -> None:
        """A line with the metric that it ended with."""
        job.follower.update()
        self._say(f"{_ending(job.point)}  {job.follower.shown_metric}".rstrip())
        self._say(f"{counts_line(self.points)}; {self._clock}")

    def stopping(self, jobs: Sequence[Job]) -> None:
        """Say that the runs are ending."""
        self._say(_stopping(jobs))

    def tick(self, jobs: Sequence[Job]) -> None:
        """Once a minute a line per running point."""
        now = time.perf_counter()
        if now - self._told < _LINES_EVERY:
            return
        self._told = now
        for job in jobs:
            job.follower.update()
            metric = f"  {job.follower.shown_metric}" if job.follower.shown_metric else ""
            self._say(f"running  {job.point.name}  {job.follower.text}{metric}  "
                      f"elapsed {duration(job.seconds)}")  # fmt: skip

    def _say(self, text: str) -> None:
        stamp = datetime.now().strftime("%H:%M:%S")
        self.console.print(Text(f"{stamp}  {text}"), soft_wrap=True)


def _stopping(jobs: Sequence[Job]) -> str:
    return (
        f"Stopping {len(jobs)} run(s); they write their records and reports. "
        "Once more ends them at once."
    )
