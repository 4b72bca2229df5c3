"""FedSA-LoRA: share only A; every client keeps its own B and head.

Every client trains both factors::

    Abar = sum_k p_k A_k

goes to all; ``B_k`` and the head never leave client k. What client k uses is ``W0 + s B_k Abar``:
there is no global model. VeRA: ``d`` (length r) takes the place of A, ``b`` (length d_out) that of
B. At unequal ranks every rank row of A is averaged over the clients that own it (our rule).

Guo et al., Selective Aggregation for Low-Rank Adaptation in Federated Learning, ICLR 2025, arXiv
2410.01463.
"""

from __future__ import annotations

from federatedscope_ext.methods.method import LORA_B, Method, Variant
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.methods.replication_pad import ReplicationPad

FEDSA = register_method(
    Method(
        key="fedsa",
        name="FedSA-LoRA",
        paper="Guo et al., Selective Aggregation for Low-Rank Adaptation in Federated Learning, "
        "ICLR 2025, arXiv 2410.01463",
        note="B never reaches the server, so there is no global model: each client is evaluated "
        "with its own B and head and the aggregated A.",
        variants=(
            Variant("FedSA-LoRA", sends=("A",), local_keywords=LORA_B),
            Variant("FedSA-rsLoRA", sends=("A",), rslora=True, local_keywords=LORA_B),
            Variant("FedSA-VeRA", ("d", "b"), ("d",), "vera", local_keywords=("vera_lambda_b",)),
        ),
        head="local",
        evaluation="personal",
        unequal_rule=ReplicationPad,
        experts=True,
        hooks=("prepare_config",),
    )
)
