"""FedEx-LoRA: means of the factors, and what they miss goes into the frozen weight.

For equal ranks, as in the paper::

    A = sum_k p_k A_k,    s B = sum_k p_k s_k B_k,
    W0 <- W0 + (sum_k p_k s_k B_k A_k - s B A),

so that ``W0 + s B A`` is exactly the mean of the clients. For unequal ranks the same must hold for
receivers of every rank: the means are kept for the first ``r_min`` rows, which everybody owns;
beyond them the server's old rows of A remain and the columns of B are zero, and all the rest is in
the residual. The residual is computed against what is written, rounding to the wire's precision
included, and is handed on as factors of its own numerical rank (in float32).

Singhal, Ponkshe and Vepakomma, FedEx-LoRA: Exact Aggregation for Federated and Efficient
Fine-Tuning of Large Language Models, ACL 2025, arXiv 2410.09432. Unequal ranks: our rule.
"""

from __future__ import annotations

import torch

from federatedscope_ext.aggregators.module import ModuleRule
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.merging import MergingClient, MergingServer
from fedlora.errors import AggregationError
from fedlora.ops import cut
from fedlora.pairs import Factors, LoraPair

_EPSILON = torch.finfo(torch.float32).eps


class FedExModule(ModuleRule):
    """Means over the rows that everybody owns; the residual is the remainder."""

    needs_means = True
    needs_exact = True
    writes_both = True

    @property
    def common_rank(self) -> int:
        """Rows that every client of the run owns."""
        known = self.target.round.ranks.get(self.target.module) or ()
        return min([*known, *self.ranks])

    def result(self) -> Factors:
        """Means of the common rows, over old or fresh rows with zero columns of B."""
        exact, current, common = self.exact_sum(), self.target.current(), self.common_rank
        mean = self.means.over_all().completed(current)
        if mean is None:
            raise AggregationError(f"{self.target.module} came without both factors.")
        a = self.target.fresh_rows(self.rank, exact.d_in)
        if current is not None and current.A is not None:
            a = current.A.to(a, copy=True)
        b = a.new_zeros(exact.d_out, self.rank)
        a[:common] = mean.A[:common]
        b[:, :common] = mean.B[:, :common] * mean.scale
        return Factors(a, b, 1.0)

    def remainder(self, written: LoraPair) -> LoraPair:
        """``W - s B A`` of what was written."""
        rest = self.exact_sum().copy()
        rest.add(-1.0, cut(written, self.common_rank))
        # Below this, float32 cannot tell the sum with the frozen weight apart.
        return rest.pair(compress=True, tolerance=_EPSILON * self.exact_sum().norm())


class FedEx(LoraRule):
    """FedEx-LoRA. After :meth:`aggregate`, ``base_update`` is the residual of every module."""

    module_rule = FedExModule


FEDEX = register_method(
    Method(
        key="fedex",
        name="FedEx-LoRA",
        paper="Singhal et al., FedEx-LoRA: Exact Aggregation for Federated and Efficient "
        "Fine-Tuning of Foundation Models, ACL 2025, arXiv 2410.09432",
        note="Means of the factors; what they miss of the exact mean goes into the frozen weights.",
        variants=lora("FedEx-LoRA"),
        rule=FedEx,
        server=MergingServer,
        client=MergingClient,
        combines_products=True,
        traffic_varies=True,
        hooks=("prepare_config", "prepare_model", "content_for"),
    )
)
