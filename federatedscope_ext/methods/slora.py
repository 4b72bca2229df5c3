"""SLoRA: a sparse update first, whose SVD starts the adapters.

The first rounds train a sparse update S of every adapted weight, on one random mask of each module
that all clients share (those of lower ranks a part of it), and the server averages S. Then
``S = U diag(sigma) V^T`` gives ``A = V_r^T`` and ``s B = U_r diag(sigma_r)``, and the other rounds
are those of FedAvg. The stage itself (:mod:`federatedscope_ext.workers.sparse_stage`) serves
FlexLoRA too, where ``slora.rounds`` asks for it.

Babakniya et al., SLoRA: Federated Parameter Efficient Fine-Tuning of Language Models, 2023, arXiv
2308.06522.
"""

from __future__ import annotations

from typing import Any

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods.method import Method, Option, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.sparse_stage import SparseStageClient, SparseStageServer


class SLoraServer(SparseStageServer):
    """FedAvg after the first stage."""

    @classmethod
    def prepare_config(cls, cfg: Any) -> None:
        """A tenth of the rounds for the first stage unless the user says otherwise."""
        super().prepare_config(cfg)
        if not cfg.slora.rounds:
            cfg.slora.rounds = max(1, cfg.federate.total_round_num // 10)


def check_stages(cfg: Any) -> None:
    """Refuse a first stage that leaves no round, and FedOpt, which would have to follow both.

    Raises
    ------
    ExtensionError
        For every method that ``slora.rounds`` gives a first stage.
    """
    if cfg.fedopt.use and (cfg.slora.rounds or cfg.federate.method.lower() == "slora"):
        raise ExtensionError(
            "fedopt.use",
            True,
            "SLoRA's two stages send different tensors, which a server's optimizer cannot follow",
            "Write fedopt.use: False",
        )
    rounds, every = cfg.slora.rounds, cfg.federate.total_round_num
    if rounds and rounds >= every:
        problem = f"of {every} rounds none is left for the adapters"
        raise ExtensionError("slora.rounds", rounds, problem, "Write fewer")


SLORA = register_method(
    Method(
        key="slora",
        name="SLoRA",
        paper="Babakniya et al., SLoRA: Federated Parameter Efficient Fine-Tuning of Language "
        "Models, arXiv 2308.06522",
        note="First rounds train a sparse update of the frozen weights; its SVD starts the "
        "adapters.",
        variants=lora("SLoRA"),
        server=SLoraServer,
        client=SparseStageClient,
        traffic_varies=True,
        hooks=("prepare_config", "prepare_model", "shared_state", "content_for"),
        check=check_stages,
        options=(
            Option(
                "slora",
                "rounds",
                0,
                "SLoRA's first stage: so many rounds train a sparse update of the frozen weights,"
                " whose SVD starts the adapters. 0 leaves it out; federate.method slora takes a"
                " tenth.",
                low=0,
            ),
            Option(
                "slora",
                "density",
                0.0,
                "Share of a weight matrix that the first stage trains at the largest rank, other"
                " ranks in proportion; 0 for as many numbers as the client's LoRA factors of the"
                " module have.",
                low=0.0,
                high=1.0,
            ),
        ),
    )
)
