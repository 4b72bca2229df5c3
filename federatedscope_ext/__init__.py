"""What the runtime lacks: tasks, methods, trainers and the report.

Importing this package registers all of it with ``federatedscope.register``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

__all__ = ["PARTS"]

# Each part registers its builders when it is imported.
PARTS = (
    "options",
    "metrics",
    "data",
    "splitters",
    "ranks",
    "aggregators",
    "trainers",
    "workers",
    "report",
    "embedded",
)

for _part in PARTS:
    if find_spec(f"{__name__}.{_part}") is not None:
        import_module(f"{__name__}.{_part}")
