"""Metrics, result lines, early stopping, progress and records."""

from __future__ import annotations

from federatedscope.core.monitors.early_stopper import EarlyStopper
from federatedscope.core.monitors.metric_calculator import MetricCalculator
from federatedscope.core.monitors.monitor import Monitor

__all__ = ["EarlyStopper", "MetricCalculator", "Monitor"]
