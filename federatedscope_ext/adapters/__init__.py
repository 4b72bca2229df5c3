"""The algebra of LoRA state: names, pairs, ranks, scales. Pure PyTorch, nothing federated.

The place for what changes a rank (pad, slice, stack, compact SVD): pure functions from
:class:`LoraPair` to :class:`LoraPair`, one file each beside :mod:`.pairs`.
"""

from __future__ import annotations

from federatedscope_ext.adapters.names import is_head, pair_names
from federatedscope_ext.adapters.pairs import LoraPair, applied_update, pairs_from_state, rank_of
from federatedscope_ext.adapters.scales import configured_rank, scale_of

__all__ = [
    "LoraPair",
    "applied_update",
    "configured_rank",
    "is_head",
    "pair_names",
    "pairs_from_state",
    "rank_of",
    "scale_of",
]
