"""Running points: order, number, failure, interruption, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sweep_cases import MakePoints

from federatedscope_ext.tools.sweep.jobs import Job, Stop, run_points, stop_on_signals
from federatedscope_ext.tools.sweep.plan import Found, Status, found_in
from federatedscope_ext.tools.sweep.slots import Slots


class Log:
    """Remembers what happened; ``stop_when`` runs of the list have a run.json, it asks to stop."""

    def __init__(self, stop: Stop | None = None, times: int = 1) -> None:
        self.most, self.order, self.stopped = 0, [], 0
        self._stop, self._times = stop, times
        self.order: list[str] = []

    def started(self, job: Job) -> None:
        self.order.append(job.point.name)

    def ended(self, job: Job) -> None:
        self.order.append(f"-{job.point.name}")

    def stopping(self, jobs: Sequence[Job]) -> None:
        self.stopped += 1

    def tick(self, jobs: Sequence[Job]) -> None:
        self.most = max(self.most, len(jobs))
        running = [job for job in jobs if (job.point.folder / "metrics.jsonl").is_file()]
        if self._stop is not None and running and len(running) == len(jobs) and self._times:
            self._times -= 1
            self._stop.ask()


def test_all_are_run_so_many_at_a_time(make: MakePoints) -> None:
    points = make(*({"seed": seed, "fake.sleep": 0.3} for seed in range(5)))
    log = Log()
    run_points(points, Slots(2, 3), log, Stop())
    assert [point.status for point in points] == [Status.FINISHED] * 5
    assert log.most == 2
    assert [name for name in log.order if name[0] != "-"] == [point.name for point in points]
    environment = json.loads((points[0].folder / "environment.json").read_text())
    assert environment["OMP_NUM_THREADS"] == "3"
    assert all(point.seconds and point.exit_code == 0 for point in points)


def test_two_at_a_time_are_on_two_gpus(make: MakePoints) -> None:
    points = make(*({"seed": seed, "fake.sleep": 0.5} for seed in range(4)))
    run_points(points, Slots(2, 1, ("4", "6")), Log(), Stop())
    seen = {
        json.loads((point.folder / "environment.json").read_text())["CUDA_VISIBLE_DEVICES"]
        for point in points[:2]
    }
    assert seen == {"4", "6"} == {point.device for point in points}


def test_a_failure_does_not_stop_the_others(make: MakePoints) -> None:
    points = make({"seed": 0, "fake.fail": 1}, {"seed": 1})
    run_points(points, Slots(1, 1), Log(), Stop())
    assert [point.status for point in points] == [Status.FAILED, Status.FINISHED]
    assert points[0].exit_code == 1
    assert points[0].error == "ended with status 1"
    assert points[0].log_tail(2) == ["the last line", "it went wrong"]


def test_a_run_that_does_not_say_that_it_finished_has_failed(
    make: MakePoints, runner: Path
) -> None:
    runner.write_text("pass")
    (point,) = make({"seed": 0})
    run_points([point], Slots(1, 1), Log(), Stop())
    assert point.status is Status.FAILED


def test_a_killed_run_is_told_as_such(make: MakePoints, runner: Path) -> None:
    runner.write_text("import os; os.kill(os.getpid(), 9)")
    (point,) = make({"seed": 0})
    run_points([point], Slots(1, 1), Log(), Stop())
    assert point.status is Status.FAILED
    assert "SIGKILL" in point.error


def test_stopped_runs_write_their_reports(make: MakePoints) -> None:
    points = make(*({"seed": seed, "fake.sleep": 60} for seed in range(3)))
    stop = Stop()
    log = Log(stop)
    run_points(points, Slots(2, 1), log, stop)
    assert [point.status for point in points] == [
        Status.INTERRUPTED, Status.INTERRUPTED, Status.QUEUED
    ]  # fmt: skip
    assert all((point.folder / "report.html").is_file() for point in points[:2])
    assert log.stopped == 1


def test_asked_twice_runs_that_do_not_end_are_killed(make: MakePoints) -> None:
    (point,) = make({"seed": 0, "fake.sleep": 60, "fake.deaf": 1})
    stop = Stop()
    started = time.perf_counter()
    run_points([point], Slots(1, 1), Log(stop, times=2), stop)
    assert point.exit_code == -signal.SIGKILL
    assert point.status is Status.INTERRUPTED
    assert time.perf_counter() - started < 30


def test_what_an_unfinished_run_left_is_kept_and_not_counted(make: MakePoints) -> None:
    (point,) = make({"seed": 0})
    point.folder.mkdir(parents=True)
    (point.folder / "run.json").write_text('{"format": 1, "status": "failed"}')
    (point.folder / "metrics.jsonl").write_text("old")
    point.found = found_in(point.folder)
    assert point.found is Found.UNFINISHED
    run_points([point], Slots(1, 1), Log(), Stop())
    assert found_in(point.folder) is Found.FINISHED
    (kept,) = (point.folder.parent / "unfinished").iterdir()
    assert kept.name.startswith("seed=0-")
    assert (kept / "metrics.jsonl").read_text() == "old"
    assert (kept / "run-unfinished.json").is_file()
    assert list(point.folder.parent.rglob("run.json")) == [point.folder / "run.json"]


def test_signals_ask_and_are_given_back() -> None:
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked == 2
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_runs_end_when_the_sweep_dies(tmp_path: Path, runner: Path) -> None:
    script = f"""
from pathlib import Path
from federatedscope_ext.tools.sweep import plan
from federatedscope_ext.tools.sweep.jobs import Stop, run_points
from federatedscope_ext.tools.sweep.slots import Slots
plan.MAIN_FILE = Path({str(runner)!r})
class Quiet:
    started = ended = stopping = tick = lambda self, jobs: None
out = Path({str(tmp_path / "out")!r})
run_points([plan.Point("p", {{}}, out, ["--outdir", str(out), "fake.sleep", "60"])],
           Slots(1, 1), Quiet(), Stop())
"""
    sweep = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": "."})
    _wait_for(tmp_path / "out" / "metrics.jsonl", sweep)
    sweep.kill()
    sweep.wait()
    _wait_for(tmp_path / "out" / "report.html")


def _wait_for(file: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + 60
    while not file.is_file():
        assert time.monotonic() < end, f"{file} did not appear"
        assert process is None or process.poll() is None, "the process has ended"
        time.sleep(0.05)
