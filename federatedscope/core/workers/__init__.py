"""Server and client, driven by messages."""

from __future__ import annotations

from federatedscope.core.workers.base_worker import Worker
from federatedscope.core.workers.client import Client
from federatedscope.core.workers.server import Server

# The roles' own names, for extensions that type against them.
BaseServer = Server
BaseClient = Client

__all__ = ["BaseClient", "BaseServer", "Client", "Server", "Worker"]
