"""The server under the name of the interface that extension modules import."""

from __future__ import annotations

from federatedscope.core.workers.server import Server as BaseServer

__all__ = ["BaseServer"]
