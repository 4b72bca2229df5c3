"""Metrics as plain numbers, whatever kind of scalar a metric or trainer returned."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from numbers import Real
from typing import Any

from federatedscope.core.errors import UserError

__all__ = ["plain_metrics"]


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Metrics by name as ``int`` and ``float``, ready for lines, records and means.

    They may be Python numbers, NumPy scalars, arrays or tensors of one element; a value that is no
    single number is a :class:`UserError`, which names the metric.
    """
    return {str(name): _plain(str(name), value) for name, value in metrics.items()}


def _plain(name: str, value: Any) -> int | float:
    if hasattr(value, "item"):
        # Several elements are told below.
        with contextlib.suppress(ValueError, RuntimeError, TypeError):
            value = value.item()
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise UserError(
        f"The metric {name} is a {type(value).__name__}, and one number is needed. Let the metric "
        "or the trainer return a float for each name (several figures need several names)."
    )
