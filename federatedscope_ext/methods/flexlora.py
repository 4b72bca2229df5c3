"""FlexLoRA: the mean of the applied updates, cut to each receiver's rank by its SVD.

::

    W = sum_k p_k s_k B_k A_k = U S V^T,    A = V_r^T,    s B = U_r S_r,

so that ``s B A`` is the best approximation of W of rank r. The server's state has the largest
rank; since its rows come in the order of the singular values, the first r of them are the best
approximation of rank r for every receiver.

Where W has fewer singular values above rounding than the server has rows, the other rows of A are
orthonormal to the rest (as far as the layer's side allows) and their columns of B are zero: the
applied update is unchanged, and the rows can still be trained.

Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client
Resources, NeurIPS 2024, arXiv 2402.11505.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.module import ModuleRule
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, Option, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.sparse_stage import SparseStageClient, SparseStageServer
from fedlora.pairs import Factors
from fedlora.svd import orthonormal_rows


class FlexLoraModule(ModuleRule):
    """The SVD of the mean applied update."""

    needs_exact = True
    writes_both = True

    def result(self) -> Factors:
        """See the module's formula."""
        u, s, vh = self.exact_sum().svd(self.rank)
        kept = int((s > self.exact_sum().tolerance()).sum())
        a = orthonormal_rows(vh[:kept], self.rank, self.target.generator())
        b = u.new_zeros(u.shape[0], self.rank)
        b[:, :kept] = u[:, :kept] * s[:kept]
        return Factors(a, b, 1.0)


class FlexLora(LoraRule):
    """FlexLoRA. Keys: ``flexlora.dtype`` (precision of the SVD), ``flexlora.path``."""

    module_rule = FlexLoraModule


FLEXLORA = register_method(
    Method(
        key="flexlora",
        name="FlexLoRA",
        paper="Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous "
        "Tasks and Client Resources, NeurIPS 2024, arXiv 2402.11505",
        note="The exact mean of the applied updates; every client gets its best approximation of "
        "the own rank (SVD).",
        variants=lora("FlexLoRA"),
        rule=FlexLora,
        server=SparseStageServer,
        client=SparseStageClient,
        combines_products=True,
        options=(
            Option(
                "flexlora",
                "dtype",
                "float32",
                "Precision of FlexLoRA's and FedSVD's decomposition.",
                ("float32", "float64"),
            ),
            Option(
                "flexlora",
                "path",
                "auto",
                "How it decomposes: stacked factors, the dense matrix, or the cheaper of the two.",
                ("auto", "stacked", "dense"),
            ),
        ),
    )
)
