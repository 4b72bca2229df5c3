"""The points of a sweep: where each lies, how it is started, and what is left to do."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from federatedscope_ext.sweep.arguments import Settings
from federatedscope_ext.sweep.checker import MAIN_FILE
from federatedscope_ext.sweep.grid import Values, all_points, point_names
from federatedscope_ext.tools.report.records import METRICS_FILE, RUN_FILE

__all__ = ["LOG_FILE", "Found", "Point", "Status", "found_in", "make_points", "move_aside",
           "saved_run"]  # fmt: skip

CONFIG_FILE, CLIENT_CONFIG_FILE = "config.yaml", "client_config.yaml"
LOG_FILE = "console.log"
UNFINISHED = "unfinished"


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
    """One run of the sweep.

    Attributes
    ----------
    name : str
        Says the values; the folder's name.
    values : dict
        Key -> value of the grid.
    folder : Path
        Where the run goes.
    arguments : list of str
        Of ``federatedscope/main.py``.
    status : Status
        How far it is.
    found : Found
        What was in the folder.
    skipped : bool
        It was finished before this sweep started.
    config : dict
        The merged configuration, once it has been checked.
    figures : list of str
        What it will measure, once it has been checked; empty where that cannot be known.
    seconds : float or None
        Duration of the run, start of the process included (of a skipped one: of the run).
    exit_code : int or None
        Of its process.
    error : str
        Why it failed.
    device : str
        The GPU it was given; empty on the CPU.
    """

    name: str
    values: Values
    folder: Path
    arguments: list[str]
    status: Status = Status.QUEUED
    found: Found = Found.NOTHING
    skipped: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    seconds: float | None = None
    exit_code: int | None = None
    error: str = ""
    device: str = ""

    @property
    def command(self) -> list[str]:
        """What is executed."""
        return [sys.executable, str(MAIN_FILE), *self.arguments]

    @property
    def shown_command(self) -> str:
        """The command to type in the current directory, which its paths refer to."""
        folder = MAIN_FILE.parent
        here = Path.cwd().resolve() == folder.parent
        main = str(MAIN_FILE.relative_to(folder.parent) if here else MAIN_FILE)
        return shlex.join(["python", main, *self.arguments])

    def log_tail(self, lines: int = 12) -> list[str]:
        """The last lines that the run printed."""
        try:
            text = (self.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def make_points(settings: Settings) -> list[Point]:
    """The points of the grids, in order, with the command of each."""
    every = all_points(settings.grids)
    common = ["--cfg", settings.cfg]
    if settings.client_cfg:
        common += ["--client_cfg", settings.client_cfg]
    common += settings.presets
    fixed = [word for pair in settings.pairs for word in pair]
    points = []
    for name, values in zip(point_names(every), every, strict=True):
        folder = settings.outdir / name
        own = [word for pair in values.items() for word in pair]
        points.append(Point(name, values, folder, [*common, "--outdir", str(folder), *fixed, *own]))
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


def saved_arguments(folder: Path) -> list[str]:
    """Arguments that repeat the run in a folder."""
    clients = folder / CLIENT_CONFIG_FILE
    own = ["--client_cfg", str(clients)] if clients.is_file() else []
    return ["--cfg", str(folder / CONFIG_FILE), *own, "--outdir", str(folder)]


def move_aside(folder: Path) -> Path:
    """Move what an unfinished run left to ``unfinished/NAME-TIME`` beside it; nothing is deleted.

    Its ``run.json`` becomes ``run-unfinished.json``, so that nobody who looks for runs below the
    sweep's folder counts it.

    Returns
    -------
    Path
        Where it lies now.
    """
    stamp = datetime.now().strftime("%Y%m%d%H%M%S")
    target, count = folder.parent / UNFINISHED / f"{folder.name}-{stamp}", 1
    while target.exists():
        target, count = target.with_name(f"{folder.name}-{stamp}-{count}"), count + 1
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, target)
    for run in target.rglob(RUN_FILE):
        run.rename(run.with_name("run-unfinished.json"))
    return target


def run_files(folder: Path) -> Sequence[Path]:
    """``run.json`` and ``metrics.jsonl`` of a folder."""
    return folder / RUN_FILE, folder / METRICS_FILE
