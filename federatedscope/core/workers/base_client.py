"""The client under the name of the interface that extension modules import."""

from __future__ import annotations

from federatedscope.core.workers.client import Client as BaseClient

__all__ = ["BaseClient"]
