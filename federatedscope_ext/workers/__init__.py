"""Servers and clients of the extension's methods."""

from __future__ import annotations

from federatedscope_ext.workers.methods import METHOD_WORKERS

__all__ = ["METHOD_WORKERS"]
