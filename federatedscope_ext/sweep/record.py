"""``sweep.json``: what a sweep is and how far it has come; and who works in its folder."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from federatedscope_ext.sweep.arguments import Settings
from federatedscope_ext.sweep.errors import SweepError
from federatedscope_ext.sweep.plan import Point
from federatedscope_ext.sweep.slots import Slots
from federatedscope_ext.tools.report.files import write_text

__all__ = ["Record", "only_one"]

SWEEP_FILE, LOCK_FILE = "sweep.json", ".sweep.lock"


class Record:
    """Writes ``sweep.json``, whole each time.

    Parameters
    ----------
    settings : Settings
        The command.
    command : sequence of str
        As it was typed.
    points : list of Point
        Looked at again at every writing.
    slots : Slots
        Where they run.
    """

    def __init__(
        self, settings: Settings, command: Sequence[str], points: list[Point], slots: Slots
    ) -> None:
        self.path = settings.outdir / SWEEP_FILE
        self.points = points
        self._started = time.perf_counter()
        self._head: dict[str, Any] = {
            "format": 1,
            "command": shlex.join(command),
            "directory": os.getcwd(),  # what the paths in the commands refer to
            "cfg": settings.cfg,
            "client_cfg": settings.client_cfg or None,
            "presets": settings.presets,
            "settings": dict(settings.pairs),
            "grids": settings.grids,
            "jobs": slots.jobs,
            "threads": slots.threads,
            "gpus": list(slots.gpus),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def write(self, status: str = "running") -> None:
        """Write how it stands: ``running``, ``finished``, ``failed`` or ``interrupted``."""
        counts = Counter(str(point.status) for point in self.points)
        content = {
            **self._head,
            "status": status,
            "seconds": round(time.perf_counter() - self._started, 3),
            "counts": counts,
            "points": [_point(point) for point in self.points],
        }
        write_text(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _point(point: Point) -> dict[str, Any]:
    return {
        "name": point.name,
        "values": point.values,
        "status": str(point.status),
        "skipped": point.skipped,
        "seconds": None if point.seconds is None else round(point.seconds, 3),
        "exit_code": point.exit_code,
        "error": point.error or None,
        "gpu": point.device or None,
        "command": point.shown_command,
    }


@contextmanager
def only_one(outdir: Path) -> Iterator[None]:
    """Refuse a second sweep in the same folder at the same time; ends with the process at latest.

    Raises
    ------
    SweepError
        Another one is going on there.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    with (outdir / LOCK_FILE).open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SweepError(
                f"--outdir {outdir}: another sweep is running there. Wait for it, or give another "
                "folder"
            ) from error
        yield
