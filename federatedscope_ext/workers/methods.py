"""Workers of ``fedsa`` and ``ffa``.

Both methods are decided by what a client trains, sends and keeps
(:mod:`federatedscope_ext.methods`); the messages are those of FedAvg. So their workers only write
that decision into the configuration: ``personalization.local_param`` for what stays,
``federate.freeze_A`` for what is not trained.
"""

from __future__ import annotations

from typing import Any, ClassVar

from federatedscope.core.workers import Client, Server
from federatedscope.register import register_worker
from federatedscope_ext.methods import FEDSA, FFA, Method


def settle(method: Method, cfg: Any) -> None:
    """Write a method's decisions into a (mutable) configuration; doing it twice changes nothing.

    Raises
    ------
    ExtensionError
        The method is not defined for the configured adapter, or needs what the user froze.
    """
    variant = method.variant(cfg)
    local = list(cfg.personalization.local_param)
    local += [keyword for keyword in variant.local_keywords if keyword not in local]
    cfg.personalization.local_param = local
    if variant.frozen_keywords:
        cfg.federate.freeze_A = True
    if cfg.personalization.get("head", "auto") == "auto":
        cfg.personalization.head = method.head


class MethodServer(Server):
    """A server whose method is a row of the table."""

    method: ClassVar[Method]

    @classmethod
    def prepare_config(cls, cfg: Any) -> None:
        """Called by the runtime once, before anything is built from the configuration."""
        settle(cls.method, cfg)

    @classmethod
    def variant(cls, cfg: Any) -> str:
        """Name of the method on the configured adapter, for summaries."""
        return cls.method.variant(cfg).name


class FedSAServer(MethodServer):
    """FedSA-LoRA: averages A (VeRA: ``vera_lambda_d``)."""

    method = FEDSA


class FFAServer(MethodServer):
    """FFA-LoRA: averages B; A is one frozen random matrix."""

    method = FFA


METHOD_WORKERS: dict[str, dict[str, type[Any]]] = {
    "fedsa": {"client": Client, "server": FedSAServer},
    "ffa": {"client": Client, "server": FFAServer},
}


def build_method_workers(method: str) -> dict[str, type[Any]] | None:
    """Answer to the methods of this extension."""
    return METHOD_WORKERS.get(method.lower())


register_worker("federatedscope_ext", build_method_workers)
