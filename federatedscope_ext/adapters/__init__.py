"""The algebra of LoRA state: names, pairs, ranks, scales, sums. Pure PyTorch, nothing federated."""

from __future__ import annotations

from federatedscope_ext.adapters.names import factor_names, is_head, pair_names
from federatedscope_ext.adapters.ops import (
    cut,
    frobenius,
    inner,
    padded,
    rescaled,
    rotated,
    stacked,
)
from federatedscope_ext.adapters.pairs import LoraPair, applied_update, pairs_from_state, rank_of
from federatedscope_ext.adapters.scales import configured_rank, scale_at, scale_of
from federatedscope_ext.adapters.svd import UpdateSum, orthonormal_rows

__all__ = [
    "LoraPair",
    "UpdateSum",
    "applied_update",
    "configured_rank",
    "cut",
    "factor_names",
    "frobenius",
    "inner",
    "is_head",
    "orthonormal_rows",
    "padded",
    "pair_names",
    "pairs_from_state",
    "rank_of",
    "rescaled",
    "rotated",
    "scale_at",
    "scale_of",
    "stacked",
]
