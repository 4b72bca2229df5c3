"""Which workers a method has.

Most methods differ only in what a client trains, sends and keeps
(:mod:`federatedscope_ext.methods`) and in how the server combines it
(:mod:`federatedscope_ext.aggregators`); their messages are those of FedAvg.
"""

from __future__ import annotations

from typing import Any

from federatedscope.core.workers import Client
from federatedscope.register import register_worker
from federatedscope_ext.methods import FEDROT, FEDSA, FFA, REPLICATION_PAD, ZERO_PAD
from federatedscope_ext.workers.base import MethodServer, settle
from federatedscope_ext.workers.dual import FedDPAServer
from federatedscope_ext.workers.halves import (
    FedSVDClient,
    FedSVDServer,
    RoLoRAClient,
    RoLoRAServer,
)
from federatedscope_ext.workers.merging import FedExServer, FloraServer, MergingClient
from federatedscope_ext.workers.pruning import HetLoRAClient, HetLoRAServer
from federatedscope_ext.workers.sparse_stage import (
    FlexLoRAServer,
    SLoRAServer,
    SparseStageClient,
)

__all__ = ["METHOD_WORKERS", "MethodServer", "build_method_workers", "settle"]


class FedSAServer(MethodServer):
    """FedSA-LoRA: averages A (VeRA: ``vera_lambda_d``)."""

    method = FEDSA


class FFAServer(MethodServer):
    """FFA-LoRA: averages B; A is one frozen random matrix."""

    method = FFA


class ReplicationPadServer(MethodServer):
    """Replication padding: every rank row is the mean over its owners."""

    method = REPLICATION_PAD


class ZeroPadServer(MethodServer):
    """Zero padding: missing rows count as zeros."""

    method = ZERO_PAD


class FedRotServer(MethodServer):
    """FedRot-LoRA: aligns factors before their mean."""

    method = FEDROT


METHOD_WORKERS: dict[str, dict[str, type[Any]]] = {
    "fedsa": {"client": Client, "server": FedSAServer},
    "ffa": {"client": Client, "server": FFAServer},
    "flexlora": {"client": SparseStageClient, "server": FlexLoRAServer},
    "replication_pad": {"client": Client, "server": ReplicationPadServer},
    "zero_pad": {"client": Client, "server": ZeroPadServer},
    "hetlora": {"client": HetLoRAClient, "server": HetLoRAServer},
    "flora": {"client": MergingClient, "server": FloraServer},
    "fedex": {"client": MergingClient, "server": FedExServer},
    "rolora": {"client": RoLoRAClient, "server": RoLoRAServer},
    "fedsvd": {"client": FedSVDClient, "server": FedSVDServer},
    "fedrot": {"client": Client, "server": FedRotServer},
    "slora": {"client": SparseStageClient, "server": SLoRAServer},
    "feddpa": {"client": Client, "server": FedDPAServer},
}


def build_method_workers(method: str) -> dict[str, type[Any]] | None:
    """Answer to the methods of this extension."""
    return METHOD_WORKERS.get(method.lower())


register_worker("federatedscope_ext", build_method_workers)
