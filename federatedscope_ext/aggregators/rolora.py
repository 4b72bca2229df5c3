"""RoLoRA: odd rounds train and average B, even rounds A.

One factor is frozen and common in every round, so the zero-padded mean of the other is the exact
mean of the applied updates, whatever the ranks::

    sum_k p_k s_k B_k A[:r_k] = (sum_k p_k pad(s_k B_k)) A.

Chen et al., Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA, NeurIPS
2025, arXiv 2502.01755.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.aggregators.zero_pad import ZeroPadModule

__all__ = ["RoLora"]


class RoLora(LoraRule):
    """The mean of the factor that was trained; the other is not sent and stays what it was."""

    module_rule = ZeroPadModule
