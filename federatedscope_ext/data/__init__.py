"""Data sets; importing this package registers them."""

from federatedscope_ext.data import glue, text

__all__ = ["glue", "text"]
