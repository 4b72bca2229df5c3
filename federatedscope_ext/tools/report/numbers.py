"""Numbers in words: the same in the terminal, on pages and in markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

NOTHING = "-"


def _or_nothing(show: Callable[[float], str]) -> Callable[[float | None], str]:
    """A dash where there is no number."""

    def text(value: float | None) -> str:
        return NOTHING if value is None or math.isnan(value) else show(value)

    text.__doc__ = show.__doc__
    return text


@_or_nothing
def metric_text(value: float) -> str:
    """A metric for a table; a dash where there is none."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


@_or_nothing
def signed_text(value: float) -> str:
    """A difference of metrics, always with its sign."""
    return f"{value:+.4f}"


@_or_nothing
def count_text(value: float) -> str:
    """A number of things: exact below ten million, then in M and B."""
    if abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value / 1e9:.2f} B" if abs(value) >= 1e9 else f"{value / 1e6:.1f} M"


@_or_nothing
def bytes_text(value: float) -> str:
    """Bytes in decimal units (1 MB = 1,000,000 bytes)."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f} B"


@_or_nothing
def duration_text(seconds: float) -> str:
    """A time span, to about three digits."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def rank_text(rank: int | tuple[int, ...] | None) -> str:
    """A rank; those of different modules with slashes between; a dash where there is none."""
    if rank is None:
        return NOTHING
    return "/".join(map(str, rank)) if isinstance(rank, tuple) else str(rank)


def listed(names: Iterable[object], most: int) -> str:
    """The first of some names."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def number_of(number: int, thing: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
