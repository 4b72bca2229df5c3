"""Which workers a method gets."""

from __future__ import annotations

from typing import Any

from federatedscope.core.auxiliaries.resolve import resolve


def get_client_cls(cfg: Any) -> type[Any]:
    """The client class of ``federate.method``; the plain one unless one is registered."""
    return _worker(cfg, "client")


def get_server_cls(cfg: Any) -> type[Any]:
    """The server class of ``federate.method``; the plain one unless one is registered."""
    return _worker(cfg, "server")


def _worker(cfg: Any, role: str) -> type[Any]:
    from federatedscope.core.workers import Client, Server

    plain = {"client": Client, "server": Server}
    worker: type[Any] = resolve("worker", lambda: plain, cfg.federate.method.lower())[role]
    return worker
