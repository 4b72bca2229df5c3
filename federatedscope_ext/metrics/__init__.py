"""Metrics of the tasks; importing this package registers them."""

from federatedscope_ext.metrics import glue, rouge

__all__ = ["glue", "rouge"]
