"""``sweep.json``: what a sweep is and how far it has come; and who works in its folder."""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from federatedscope.core.errors import UserError
from federatedscope.core.files import write_json
from federatedscope_ext.tools.sweep.arguments import Settings
from federatedscope_ext.tools.sweep.plan import Point
from federatedscope_ext.tools.sweep.slots import Slots

__all__ = ["SWEEP_FILE", "only_one", "recorder"]

SWEEP_FILE = "sweep.json"


def recorder(
    settings: Settings, command: Sequence[str], points: Sequence[Point], slots: Slots
) -> Callable[..., None]:
    """What writes ``sweep.json``, whole each time, with how the points stand then.

    It takes the status: ``running`` (the default), ``finished``, ``failed`` or ``interrupted``.
    """
    began = time.perf_counter()
    head: dict[str, Any] = {
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

    def write(status: str = "running") -> None:
        now = {
            "status": status,
            "seconds": round(time.perf_counter() - began, 3),
            "counts": Counter(str(point.status) for point in points),
            "points": [_point(point) for point in points],
        }
        write_json(settings.outdir / SWEEP_FILE, head | now)

    return write


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
    UserError
        Another one is going on there.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    with (outdir / ".sweep.lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"--outdir {outdir}: another sweep is running there. Wait for it, or give another "
                "folder"
            ) from error
        yield
