"""The registered metrics that a run asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from federatedscope import register
from federatedscope.core.auxiliaries.resolve import look_up

__all__ = ["get_metric"]

Metric = tuple[Callable[..., Any], bool]


def get_metric(types: Iterable[str]) -> dict[str, Metric]:
    """Ask the registered builders for metrics, and take the built-in ones for the rest: name to
    ``(function, larger is better)``. A :class:`ConfigError` where neither have a name.
    """
    # Not at the top: the calculator asks this builder for its metrics.
    from federatedscope.core.monitors.metric_calculator import SUPPORT_METRICS

    names = list(dict.fromkeys(types))
    found: dict[str, Metric] = {}
    for builder in list(register.metric_dict.values()):
        if (answer := builder(names)) is not None:
            name, function, larger_is_better = answer
            found.setdefault(name, (function, bool(larger_is_better)))
    for name in names:
        if name not in found:
            found[name] = look_up("metric", "eval.metrics", name, SUPPORT_METRICS)
    return found
