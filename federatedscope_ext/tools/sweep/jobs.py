"""Running points, several at a time, each a process of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from federatedscope_ext.tools.sweep.display import Follower, Lines
from federatedscope_ext.tools.sweep.plan import (
    LOG_FILE,
    Found,
    Point,
    Status,
    move_aside,
    saved_run,
)
from federatedscope_ext.tools.sweep.slots import Slots

__all__ = ["Job", "Stop", "run_points", "stop_on_signals"]

_POLL = 0.1
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """How often the user has asked to stop: once to end well, twice to end at once."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, signum: int = 0, frame: Any = None) -> None:
        """Ask (also as a signal handler)."""
        self.asked += 1


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the terminal ask to stop; what ``nohup`` ignores stays so."""
    before = {
        number: signal.signal(number, stop.ask)
        for number in _SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Job:
    """The process of one point, whose status, seconds and error it keeps up to date."""

    def __init__(self, point: Point, slot: int, slots: Slots) -> None:
        self.point, self.slot = point, slot
        self.follower = Follower(point.folder)
        self._started = time.perf_counter()
        self._asked_to_end = False
        point.device = slots.gpu(slot)
        point.folder.mkdir(parents=True, exist_ok=True)
        environment = {"COLUMNS": "120", **os.environ, **slots.environment(slot)}
        # A session of its own: Ctrl-C in the terminal reaches it once, through `end`, and its
        # helper processes can be ended with it.
        with (point.folder / LOG_FILE).open("wb") as log:
            self.process = subprocess.Popen(
                point.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        point.status = Status.RUNNING

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started

    def end(self) -> None:
        """Ask the run to end; it completes its records and its report first."""
        self._asked_to_end = True
        self.process.terminate()

    def kill(self) -> None:
        """End the process and its helpers at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def poll(self) -> bool:
        """Whether it has ended; the point says how then."""
        code = self.process.poll()
        if code is None:
            return False
        point, run = self.point, saved_run(self.point.folder)
        point.seconds, point.exit_code = self.seconds, code
        if code == 0 and run.get("status") == "finished":
            point.status = Status.FINISHED
        elif self._asked_to_end:
            point.status = Status.INTERRUPTED
        else:
            point.status, point.error = Status.FAILED, _reason(code, run)
        return True


def _reason(code: int, run: dict[str, Any]) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (perhaps for want of memory)" if -code == signal.SIGKILL else ""
        return f"ended by {name}{hint}"
    return str(run.get("error") or f"ended with status {code}")


def _end_with_parent() -> Callable[[], None] | None:
    """For Linux: the run gets a SIGTERM when this process dies, however it dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os.kill(os.getpid(), signal.SIGTERM)

    return in_child


def run_points(
    points: Sequence[Point],
    slots: Slots,
    watcher: Lines,
    stop: Stop,
    keep: Callable[[], object] = lambda: None,
) -> None:
    """Run points in order, ``slots.jobs`` at a time; returns when all processes have ended.

    A point that fails does not stop the others. When ``stop`` is asked, no more are started and
    the running ones are asked to end; asked again, they are killed. ``keep`` is called whenever
    the status of a point has changed.
    """
    queue, heard = list(points), 0
    running: list[Job] = []
    try:
        while running or (queue and not stop.asked):
            if stop.asked > heard:
                heard = stop.asked
                for job in running:
                    job.kill() if heard > 1 else job.end()
                watcher.stopping(running)
            while queue and len(running) < slots.jobs and not stop.asked:
                free = min(set(range(slots.jobs)) - {job.slot for job in running})
                point = queue.pop(0)
                if point.found is Found.UNFINISHED:
                    move_aside(point.folder)
                running.append(Job(point, free, slots))
                keep()
                watcher.started(running[-1])
            for job in [job for job in running if job.poll()]:
                running.remove(job)
                keep()
                watcher.ended(job)
            watcher.tick(running)
            time.sleep(_POLL)
    finally:
        for job in running:  # only where something here went wrong
            job.end()
