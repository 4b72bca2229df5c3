"""Tools: what uses all that lies below, and nothing below knows.

``commands`` is the command line, ``sweep`` and ``catalog`` are two of its commands, ``embedded`` is
the built-in miniature, which registers itself when it is imported.
"""

from __future__ import annotations

from federatedscope_ext.tools import embedded

__all__ = ["embedded"]
