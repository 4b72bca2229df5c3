"""HetLoRA: zero padding, weighted by the size of the clients' applied updates.

Per module, with the clients that reported::

    q_k = ||s_k B_k A_k||_F / sum_j ||s_j B_j A_j||_F,
    A = sum_k q_k pad(A_k),    s B = sum_k q_k pad(s_k B_k).

Norms come from Gram matrices of side r_k; no product is formed. Where all are zero the sample
sizes weigh. Tensors that are no LoRA factors are weighted by sample size. (The other half of the
method, self-pruning of a client's last ranks, happens at the client.)

Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models, EMNLP
2024, arXiv 2401.06432.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from federatedscope_ext.aggregators.module import ModuleRule, Site
from federatedscope_ext.aggregators.rule import LoraRule, Taken
from fedlora.means import RowMeans
from fedlora.ops import frobenius
from fedlora.pairs import Factors, LoraPair

__all__ = ["HetLora"]


class HetLoraModule(ModuleRule):
    """The zero-padded mean with norms as weights."""

    needs_means = True
    needs_pairs = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.by_norm = RowMeans(site.options.device)

    def add(self, weight: float, pair: LoraPair) -> None:
        """Count a pair by its norm."""
        norm = frobenius(pair)
        if norm > 0:
            self.by_norm.add(norm, Factors(pair.A, pair.B, pair.scale))

    def result(self) -> Factors:
        """See the module's formula."""
        rows = self.by_norm if self.by_norm.total > 0 else self.means
        return rows.over_all()


class HetLora(LoraRule):
    """HetLoRA's sparsity-weighted aggregation."""

    module_rule = HetLoraModule

    def reset(self, agg_info: Mapping[str, Any] | None = None) -> None:
        """Start a round, see :meth:`LoraRule.reset`."""
        super().reset(agg_info)
        self._norms: dict[int, dict[str, float]] = {}

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """The mean over modules of each client's ``q_k``; they add up to 1.

        Row shares, as :meth:`LoraRule.weights` has them, for uploads that were not taken in, or
        where all norms are zero. The clients without rows weigh nothing.
        """
        rows = super().weights(agg_info)
        if not all(client in self._norms for client in rows):
            return rows
        shares = [
            _shares({k: self._norms[k][module] if rows[k] else 0.0 for k in rows})
            for module in next(iter(self._norms.values()))
        ]
        known = [share for share in shares if share]
        if not known:
            return rows
        return {k: math.fsum(share[k] for share in known) / len(known) for k in rows}

    def _take(
        self, content: Any, client_id: int | None, scales: Mapping[str, float] | None
    ) -> Taken:
        taken = super()._take(content, client_id, scales)
        norms = self._norms.setdefault(taken.client_id, {})
        for module, factors in taken.factors.items():
            pair = factors.completed(Site(module, self._round, self._options).current())
            norms[module] = 0.0 if pair is None else frobenius(pair)
        return taken


def _shares(norms: Mapping[int, float]) -> dict[int, float]:
    total = math.fsum(norms.values())
    return {k: norm / total for k, norm in norms.items()} if total > 0 else {}
