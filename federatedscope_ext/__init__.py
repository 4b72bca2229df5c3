"""What the runtime lacks: tasks, methods and trainers.

Importing this package registers all of it with ``federatedscope.register``; what is done with runs
stands above it, in ``tools``.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["PARTS", "end_at_once"]


def end_at_once(signum: int, frame: Any) -> None:
    """Handle Ctrl-C while a command is being imported.

    That takes seconds in which nothing is there yet that has to be ended well, and an exception
    could come out of any library's import.
    """
    os._exit(130)


# For `python -m federatedscope_ext`: "-m" stands there while Python looks for it. Its `main`
# takes the handler away. A background job, for which Ctrl-C is ignored, stays as it is.
if (
    sys.argv[:1] == ["-m"]
    and __name__ in sys.orig_argv
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, end_at_once)

# The runtime comes first: it says how the threads of PyTorch, which the parts import, wait.
from federatedscope import register  # noqa: E402, F401

# Each part registers its builders when it is imported.
PARTS = (
    "methods",
    "options",
    "metrics",
    "data",
    "splitters",
    "ranks",
    "trainers",
)

for _part in PARTS:
    if find_spec(f"{__name__}.{_part}") is not None:
        import_module(f"{__name__}.{_part}")
