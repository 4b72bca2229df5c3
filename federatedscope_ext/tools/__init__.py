"""The top floor: what is done with runs. Uses all below freely, and nobody below knows it.

``commands`` is the command line, ``sweep``, ``catalog`` and ``report`` are behind it; ``report`` is
also made at the end of a run, and ``embedded`` is the built-in miniature. The runtime imports this
package after the extension (``load_extensions``), so that what it registers is there in a run.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

# The tools that register something when they are imported.
PARTS = ("report", "embedded")

for _part in PARTS:
    if find_spec(f"{__name__}.{_part}") is not None:
        import_module(f"{__name__}.{_part}")
