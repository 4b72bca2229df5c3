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

from federatedscope_ext.adapters import LoraPair, frobenius
from federatedscope_ext.aggregators.means import RowMeans
from federatedscope_ext.aggregators.module import ModuleRule, Site
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.aggregators.uploads import Factors

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
