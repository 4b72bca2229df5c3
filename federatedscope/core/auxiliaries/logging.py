"""Log lines of a script that is no run, under the name that such scripts import."""

from __future__ import annotations

from typing import Any

from federatedscope.core.logging_setup import log_to_folder, setup_console
from federatedscope.core.outdir import choose_outdir

__all__ = ["update_logger"]


def update_logger(cfg: Any, clear_before_add: bool = False, rank: int = 0) -> None:
    """Choose the output folder and send the project's log lines there.

    A run does this by itself; scripts that build a model or data on their own call it.

    ``cfg.outdir`` becomes the folder of this script, by the rules for runs. Of several processes
    only the one of ``rank`` 0 writes a file. No line is ever written twice, ``clear_before_add`` or
    not.
    """
    setup_console(quiet=rank != 0 or cfg.verbose <= 0)
    if rank != 0:
        return
    folder = choose_outdir(cfg, outdir_given=False)
    cfg.outdir = str(folder)
    log_to_folder(folder)
