"""The top floor: what is done with runs. Uses all below freely, and nobody below knows it.

The runtime imports it after the extension (``load_extensions``), so that what it registers is there
in a run.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

# The tools that register something when they are imported.
PARTS = ("report",)

for _part in PARTS:
    if find_spec(f"{__name__}.{_part}") is not None:
        import_module(f"{__name__}.{_part}")
