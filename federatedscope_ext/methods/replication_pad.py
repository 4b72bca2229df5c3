"""Replication padding: a client lacks nothing that others of higher rank know.

From the highest rank down, the clients of a rank are averaged with the (already padded) clients
above it, and that aggregate fills the missing rows of the next lower rank; at the end all clients
have the largest rank and their weighted mean is taken. With the same weights throughout this is
the same as averaging every rank row over the clients that own it::

    A[i] = sum_{k: r_k > i} p_k A_k[i] / sum_{k: r_k > i} p_k,    s B[:, i] likewise of s_k B_k,

which is what is computed. Scales are brought in and out (``s_k B_k``), so they may differ.
Rank rows that no client of the round owns stay the server's old ones.

Byun and Lee, Towards Federated Low-Rank Adaptation of Language Models with Rank Heterogeneity,
NAACL 2025, arXiv 2406.17477.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.module import ModuleRule
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from fedlora.pairs import Factors


class ReplicationPadModule(ModuleRule):
    """The mean of each row over its owners."""

    needs_means = True

    def result(self) -> Factors:
        """See the module's formula."""
        return self.means.over_owners()


class ReplicationPad(LoraRule):
    """Replication padding; with uploads of A only the rule of ``fedsa`` at unequal ranks."""

    module_rule = ReplicationPadModule


REPLICATION_PAD = register_method(
    Method(
        key="replication_pad",
        name="Replication padding",
        paper="Byun and Lee, Towards Federated Low-Rank Adaptation of Language Models with Rank "
        "Heterogeneity, NAACL 2025, arXiv 2406.17477",
        note="Every rank row is averaged over the clients that own it.",
        variants=lora("Replication padding"),
        rule=ReplicationPad,
    )
)
