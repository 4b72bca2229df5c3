"""FedSVD: clients train B on a common A, and the server re-orthogonalises A after every round.

::

    W = sum_k p_k s_k B_k A = U S V^T,    A <- V_r^T,    s B <- U_r S_r.

A is common, so W has rank r at most and nothing is cut off: the new pair is the exact mean, with
orthonormal rows of A. Uploads hold B; A is the server's. Uploads that hold both factors are
combined by their products all the same, and cut to the server's rank.

Lee et al., FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA, NeurIPS
2025, arXiv 2505.12805.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.flexlora import FlexLoraModule
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.halves import HalfClient


class FedSvd(LoraRule):
    """FedSVD's server step: FlexLoRA's arithmetic where A is common, so that it is exact."""

    module_rule = FlexLoraModule


class FedSvdClient(HalfClient):
    """Trains B."""

    starts_from_download = True

    def frozen_factor(self, completed: int) -> str:
        """Always A."""
        return "A"


FEDSVD = register_method(
    Method(
        key="fedsvd",
        name="FedSVD",
        paper="Lee et al., FedSVD: Adaptive Orthogonalization for Private Federated Learning with "
        "LoRA, arXiv 2505.12805",
        note="Clients train B; the server re-factors the exact mean so that A has orthonormal "
        "rows.",
        variants=lora("FedSVD", trains=("B",), sends=("B",)),
        rule=FedSvd,
        client=FedSvdClient,
        combines_products=True,
        traffic_varies=True,
    )
)
