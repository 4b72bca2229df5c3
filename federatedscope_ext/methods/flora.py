"""FLoRA: the exact mean of the applied updates goes into the frozen weight.

Stacking is exact: with ``B = [p_1 s_1 B_1, p_2 s_2 B_2, ...]`` and ``A = [A_1; A_2; ...]``::

    W0 <- W0 + B A = W0 + sum_k p_k s_k B_k A_k,

after which everybody starts the next round with a fresh adapter: A from
``U(-1 / sqrt(d_in), 1 / sqrt(d_in))``, B zero. The fresh A is named by seed, round and module.

Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank
Adaptations, NeurIPS 2024, arXiv 2409.05976.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.module import ModuleRule
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.merging import MergingClient, MergingServer
from fedlora.pairs import Factors, LoraPair


class FloraModule(ModuleRule):
    """A fresh pair; the exact mean is the remainder."""

    needs_exact = True
    writes_both = True

    def result(self) -> Factors:
        """A fresh A, B zero."""
        exact = self.exact_sum()
        a = self.target.fresh_rows(self.rank, exact.d_in)
        return Factors(a, a.new_zeros(exact.d_out, self.rank), 1.0)

    def remainder(self, written: LoraPair) -> LoraPair:
        """The stack, or the layer's own size where that is smaller."""
        return self.exact_sum().pair()


class Flora(LoraRule):
    """FLoRA. After :meth:`aggregate`, ``base_update`` is the exact mean of every module."""

    module_rule = FloraModule


FLORA = register_method(
    Method(
        key="flora",
        name="FLoRA",
        paper="Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous "
        "Low-Rank Adaptations, NeurIPS 2024, arXiv 2409.05976",
        note="The exact sum of the updates, as stacked factors, goes into the frozen weights; "
        "adapters start afresh every round.",
        variants=lora("FLoRA"),
        rule=Flora,
        server=MergingServer,
        client=MergingClient,
        combines_products=True,
        traffic_varies=True,
        hooks=("prepare_config", "prepare_model", "content_for"),
    )
)
