"""Which workers a method gets."""

from __future__ import annotations

from typing import Any

from federatedscope import register


def _registered(method: str) -> dict[str, type[Any]] | None:
    for builder in register.worker_dict.values():
        workers = builder(method.lower())
        if workers is not None:
            return workers
    return None


def get_client_cls(cfg: Any) -> type[Any]:
    """The client class of ``federate.method``; the plain one unless one is registered."""
    from federatedscope.core.workers import Client

    workers = _registered(cfg.federate.method)
    return workers["client"] if workers else Client


def get_server_cls(cfg: Any) -> type[Any]:
    """The server class of ``federate.method``; the plain one unless one is registered."""
    from federatedscope.core.workers import Server

    workers = _registered(cfg.federate.method)
    return workers["server"] if workers else Server
