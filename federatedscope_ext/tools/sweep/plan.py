"""The points of a sweep: where each lies, how it is started, and what is left to do."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import federatedscope
from federatedscope.core.records import RUN_FILE
from federatedscope_ext.tools.sweep.arguments import Settings
from federatedscope_ext.tools.sweep.grid import Values, all_points, point_names

__all__ = ["LOG_FILE", "MAIN_FILE", "Found", "Point", "Status", "found_in", "make_points",
           "move_aside", "saved_run"]  # fmt: skip

MAIN_FILE = Path(federatedscope.__file__).resolve().parent / "main.py"
LOG_FILE = "console.log"


class Status(str, Enum):
    """How far a point is."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    def __str__(self) -> str:
        return self.value


class Found(Enum):
    """What lies in a point's folder before the sweep starts."""

    NOTHING = "nothing"
    UNFINISHED = "what an unfinished run left"
    FINISHED = "a finished run"


@dataclass
class Point:
    """One run of the sweep."""

    name: str  # says the values; the folder's name
    values: Values
    folder: Path
    arguments: list[str]  # of federatedscope/main.py
    status: Status = Status.QUEUED
    found: Found = Found.NOTHING
    config: dict[str, Any] = field(default_factory=dict)  # merged, by dotted key; once checked
    seconds: float | None = None  # of the whole process; of a skipped point, of its run
    exit_code: int | None = None
    error: str = ""
    device: str = ""  # the GPU that it was given; empty on the CPU

    @property
    def skipped(self) -> bool:
        """Whether it was finished before this sweep started."""
        return self.found is Found.FINISHED

    @property
    def command(self) -> list[str]:
        """What is executed."""
        return [sys.executable, str(MAIN_FILE), *self.arguments]

    @property
    def shown_command(self) -> str:
        """The command to type in the current directory, which its paths refer to."""
        root = MAIN_FILE.parents[1]
        main = MAIN_FILE.relative_to(root) if Path.cwd().resolve() == root else MAIN_FILE
        return shlex.join(["python", str(main), *self.arguments])

    def log_tail(self, lines: int = 12) -> list[str]:
        """The last lines that the run printed."""
        try:
            text = (self.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def make_points(settings: Settings) -> list[Point]:
    """The points of the grids, in order, with the arguments of each."""
    every = all_points(settings.grids)
    clients = ["--client_cfg", settings.client_cfg] if settings.client_cfg else []
    points = []
    for name, values in zip(point_names(every), every, strict=True):
        folder = settings.outdir / name
        arguments = ["--cfg", settings.cfg, *clients, *settings.presets, "--outdir", str(folder)]
        arguments += [word for pair in (*settings.pairs, *values.items()) for word in pair]
        points.append(Point(name, values, folder, arguments))
    return points


def found_in(folder: Path) -> Found:
    """What lies in a folder; any file at all counts as the rest of a run."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return Found.NOTHING
    finished = saved_run(folder).get("status") == "finished"
    return Found.FINISHED if finished else Found.UNFINISHED


def saved_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a folder; empty where there is none that can be read."""
    try:
        run = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def move_aside(folder: Path) -> Path:
    """Move what an unfinished run left to ``unfinished/NAME-TIME`` beside it; nothing is deleted.

    Its ``run.json`` is renamed, so that nobody who looks for runs below the sweep's folder counts
    it. Returns where it lies now.
    """
    stamp = datetime.now().strftime("%Y%m%d%H%M%S")
    target, count = folder.parent / "unfinished" / f"{folder.name}-{stamp}", 1
    while target.exists():
        target, count = target.with_name(f"{folder.name}-{stamp}-{count}"), count + 1
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, target)
    for run in target.rglob(RUN_FILE):
        run.rename(run.with_name("run-unfinished.json"))
    return target
