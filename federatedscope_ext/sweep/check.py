"""Asking the runtime about configurations, in a process beside this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from federatedscope_ext.sweep.errors import SweepError

__all__ = ["Checker", "Verdict", "child_environment"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Verdict:
    """What the runtime says about one configuration.

    Attributes
    ----------
    error : str or None
        Why it does not run.
    config : dict or None
        The merged configuration, nested.
    clients : list of dict
        What differs for each client with settings of its own, by dotted key.
    figures : list of str
        What the run will measure; empty where it cannot be known.
    """

    error: str | None
    config: dict[str, Any] | None
    clients: list[dict[str, Any]] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)


class Checker:
    """The process of :mod:`federatedscope_ext.sweep.checker`, as a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def __enter__(self) -> Checker:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=child_environment(),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            if kind is not None:
                self._process.kill()
            self._process.communicate()
        if self._log is not None:
            self._log.close()

    def check(self, argv: Sequence[str], full: bool, clients: int = 0) -> Verdict:
        """Check one configuration; see :func:`federatedscope_ext.sweep.checker.answer`.

        Raises
        ------
        SweepError
            The process has died, for example for want of memory.
        """
        return Verdict(**self._ask({"argv": list(argv), "full": full, "clients": clients}))

    def devices(self) -> int:
        """Number of CUDA devices that PyTorch sees."""
        return int(self._ask({"devices": True})["devices"])

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the checker has not been started")
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SweepError(self._why_it_died(process))
        result: dict[str, Any] = json.loads(line)
        return result

    def _why_it_died(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        text = ""
        if self._log is not None:
            self._log.seek(0)
            text = "\n".join(self._log.read().splitlines()[-10:])
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return f"the process that checks configurations ended with {how}.\n{text}"


def child_environment() -> dict[str, str]:
    """The environment, with this checkout on Python's path wherever the command is called."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}
