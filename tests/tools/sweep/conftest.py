"""Fixtures of a quick runner and a quick checker (``sweep_cases``)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import RUNNER, FakeChecker, MakePoints

from federatedscope_ext.tools.sweep.grid import point_names
from federatedscope_ext.tools.sweep.plan import Point


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Shells start background jobs with Ctrl-C ignored, and the tests may be such a job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script that points run."""
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    monkeypatch.setattr("federatedscope_ext.tools.sweep.plan.MAIN_FILE", script)
    return script


@pytest.fixture
def checker(monkeypatch: pytest.MonkeyPatch) -> FakeChecker:
    """What the command asks about each point."""
    fake = FakeChecker()
    monkeypatch.setattr("federatedscope_ext.tools.sweep.check.examine", fake)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return fake


@pytest.fixture
def make(tmp_path: Path, runner: Path) -> MakePoints:
    """Points for the runner, from dictionaries of keys."""

    def points(*keys: dict[str, Any]) -> list[Point]:
        texts = [{key: str(value) for key, value in one.items()} for one in keys]
        return [
            Point(name, values, tmp_path / "out" / name,
                  ["--outdir", str(tmp_path / "out" / name),
                   *(word for pair in values.items() for word in pair)])
            for name, values in zip(point_names(texts), texts, strict=True)
        ]  # fmt: skip

    return points
