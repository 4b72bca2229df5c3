"""Where log lines go: everything to the run folder, warnings to the terminal."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import warnings
from pathlib import Path

_FORMAT = "%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s"
_PACKAGES = ("federatedscope", "federatedscope_ext", "fedfiles")
# Libraries whose informational output would drown the run's own.
_CHATTY = ("transformers", "datasets", "peft", "accelerate", "httpx", "filelock", "matplotlib")


def quiet_libraries() -> None:
    """Keep the libraries' own bars and reports off the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


class _ConsoleHandler(logging.Handler):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(self.format(record) + "\n")


_console = _ConsoleHandler()
_console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
# What is logged before there is a run folder, as how files were read.
_early = logging.handlers.MemoryHandler(10_000, logging.CRITICAL + 1, flushOnClose=False)


def setup_console(quiet: bool = False) -> None:
    """Show warnings of the project on standard error; with ``quiet`` only errors."""
    _console.setLevel(logging.ERROR if quiet else logging.WARNING)
    _early.buffer.clear()
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        # Adding a handler twice has no effect.
        logger.addHandler(_console)
        logger.addHandler(_early)
    quiet_libraries()


def log_to_folder(outdir: Path) -> logging.Handler:
    """Also write ``outdir/exp_print.log``, with what was logged since :func:`setup_console`; gives
    the handler to take down at the end.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(outdir / "exp_print.log", encoding="utf-8")
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter(_FORMAT))
    _early.setTarget(handler)
    _early.flush()
    _early.setTarget(None)
    for name in _PACKAGES:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).removeHandler(_early)
    return handler


def stop_logging_to_folder(handler: logging.Handler) -> None:
    """Take a handler of :func:`log_to_folder` down."""
    for name in _PACKAGES:
        logging.getLogger(name).removeHandler(handler)
    handler.close()
