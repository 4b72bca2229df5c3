"""Zero padding: what a client does not have counts as zero.

With ``pad`` adding zero rows to A and zero columns to B up to the largest rank::

    A = sum_k p_k pad(A_k),    s B = sum_k p_k pad(s_k B_k),

and a client of rank r receives the first r rows and columns. Rank rows that no client of the round
owns stay the server's old ones. The product ``B A`` is not the mean of the products, except where
one factor is common to all (FFA-LoRA, RoLoRA).

Baseline of Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models,
EMNLP 2024, arXiv 2401.06432, and of Byun and Lee, NAACL 2025, arXiv 2406.17477.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.module import ModuleRule
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from fedlora.pairs import Factors


class ZeroPadModule(ModuleRule):
    """The mean in which missing rows are zero."""

    needs_means = True

    def result(self) -> Factors:
        """See the module's formula."""
        return self.means.over_all()


class ZeroPad(LoraRule):
    """Zero padding, for ``zero_pad`` and for plain means (``fedavg``, ``ffa``) at unequal ranks."""

    module_rule = ZeroPadModule


ZERO_PAD = register_method(
    Method(
        key="zero_pad",
        name="Zero padding",
        paper="the baseline of HetLoRA, arXiv 2401.06432, and of replication padding, arXiv "
        "2406.17477",
        note="Missing rank rows count as zeros, so what only some clients know is divided by "
        "everybody.",
        variants=lora("Zero padding"),
        rule=ZeroPad,
    )
)
