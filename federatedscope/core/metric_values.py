"""Metrics as plain numbers, whatever kind of scalar a metric or trainer returned, and as text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from federatedscope.core.errors import UserError

__all__ = ["finite", "plain_metrics"]


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


def finite(value: Any) -> Any:
    """``value`` with ``None`` for every number in it that is NaN or infinite, in any nesting of
    mappings, lists and tuples: neither JSON nor ``ast.literal_eval`` reads these.
    """
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
