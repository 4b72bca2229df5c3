"""A process that asks the runtime about many configurations, importing everything only once.

It runs the runtime's own command with ``--check``, in this process, one job after the other, so
what it accepts is what a run accepts: some milliseconds for merging and checking a configuration,
then data and model as far as ``--check`` goes. The merged configuration is seen by a check function
that is registered as any extension registers one.

Jobs are lines of JSON on standard input: ``{"argv": [...], "full": bool, "clients": n}``; each is
answered by a line on standard output, what :func:`answer` returns. ``{"devices": true}`` has the
answer ``{"devices": n}``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope.core.configs.config import CN
from federatedscope_ext.sweep.differences import flat
from federatedscope_ext.sweep.figures import figures_of

__all__ = ["MAIN_FILE", "answer"]

MAIN_FILE = Path(register.__file__).resolve().parent / "main.py"
_KEY = "federatedscope_ext.sweep.checker"


class _MergedEnough(Exception):
    """Ends the command where only the merged configuration is wanted."""


def answer(argv: list[str], full: bool, clients: int = 0) -> dict[str, Any]:
    """Check one configuration.

    Parameters
    ----------
    argv : list of str
        Arguments of ``federatedscope/main.py``, without ``--check``.
    full : bool
        Also load data and look at the model's shapes, as ``--check`` does.
    clients : int
        Number of clients with settings of their own.

    Returns
    -------
    dict
        ``error``: why it does not run, or ``None``; ``config``: the merged configuration with
        what follows from it, before data and machine were looked at (``None`` if it cannot be
        merged); ``clients``: for each of these clients, by dotted key, what differs from it;
        ``figures``: what the run will measure, see :func:`figures_of`.
    """
    while True:
        known = len(register.config_dict)
        result = _run(argv, full, clients)
        if len(register.config_dict) <= known:
            return result
        # An extension was imported on the way: its checks ran after ours. Again, the last now.


def _run(argv: list[str], full: bool, clients: int) -> dict[str, Any]:
    """Run the command once; its output is kept for the error."""
    seen: list[dict[str, Any]] = []

    def capture(cfg: CN) -> None:
        # The first call is about the run, the next ones about its clients in the order of their
        # settings, and what comes after about the changes that the data make.
        if len(seen) <= clients:
            seen.append(cfg.to_dict())
            if len(seen) > clients and not full:
                raise _MergedEnough

    def extend(cfg: CN) -> None:
        cfg.register_cfg_check_fun(capture)

    register.config_dict.pop(_KEY, None)
    register.register_config(_KEY, extend)
    before, sys.argv = sys.argv, [str(MAIN_FILE), *argv, "--check"]
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            problem = _outcome(errors)
    finally:
        sys.argv = before
        register.config_dict.pop(_KEY, None)
    own = [_changed(seen[0], config) for config in seen[1:]]
    return {
        "error": problem,
        "config": seen[0] if seen else None,
        "clients": own,
        "figures": figures_of(seen),
    }


def _changed(base: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    known = flat(base)
    return {
        key: value for key, value in flat(config).items() if key not in known or known[key] != value
    }


def _outcome(errors: io.StringIO) -> str | None:
    """Run what ``sys.argv`` says; ``None`` or the reason why it does not run."""
    try:
        runpy.run_path(str(MAIN_FILE), run_name="__main__")
    except _MergedEnough:
        return None
    except SystemExit as end:
        if not end.code:
            return None
        text = errors.getvalue().strip()
        return text.rpartition("Error: ")[2] or f"the check ended with status {end.code}"
    except Exception as error:  # noqa: BLE001 - whatever fails is this point's result
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
    return None


def _devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def main() -> None:
    """Answer until standard input ends."""
    # Nobody but this function writes to the pipe, whatever libraries print.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            job = json.loads(line)
            result = (
                {"devices": _devices()}
                if "devices" in job
                else answer(job["argv"], job["full"], job["clients"])
            )
            answers.write(json.dumps(result, default=str) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
