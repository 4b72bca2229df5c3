"""FLoRA: the exact mean of the applied updates goes into the frozen weight.

Stacking is exact: with ``B = [p_1 s_1 B_1, p_2 s_2 B_2, ...]`` and ``A = [A_1; A_2; ...]``::

    W0 <- W0 + B A = W0 + sum_k p_k s_k B_k A_k,

after which everybody starts the next round with a fresh adapter, as PEFT starts one: by default A
from ``U(-1 / sqrt(d_in), 1 / sqrt(d_in))`` and B zero, otherwise what ``init_lora_weights`` asks
for. The random stream is named by seed, round and module.

Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank
Adaptations, NeurIPS 2024, arXiv 2409.05976.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from federatedscope_ext.aggregators.module import ModuleRule, Target
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.merging import MergingClient, MergingServer
from fedlora.pairs import Factors, LoraPair


class FloraModule(ModuleRule):
    """A fresh pair; the exact mean is the remainder."""

    needs_exact = True
    writes_both = True

    def result(self) -> Factors:
        """A fresh pair."""
        exact, target = self.exact_sum(), self.target
        arguments = target.options.setting("llm.adapter.args", None) or [{}]
        start = arguments[0].get("init_lora_weights", True)
        if start is not True:
            a, b = peft_start(target, start, self.rank, exact.d_out, exact.d_in)
            return Factors(a, b * target.server_scale(self.rank), 1.0)
        a = target.fresh_rows(self.rank, exact.d_in)
        return Factors(a, a.new_zeros(exact.d_out, self.rank), 1.0)

    def remainder(self, written: LoraPair) -> LoraPair:
        """The stack, or the layer's own size where that is smaller."""
        return self.exact_sum().pair()


def peft_start(
    target: Target, start: Any, rank: int, d_out: int, d_in: int
) -> tuple[Tensor, Tensor]:
    """A and B of a linear layer as PEFT makes them for an ``init_lora_weights``."""
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    base = nn.Linear(d_in, d_out, bias=False, device="meta")
    # Its values are not looked at; where it is says where the factors are.
    base.weight = nn.Parameter(torch.empty(0))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(target.generator().get_state())
        config = LoraConfig(r=rank, init_lora_weights=start)
        layer = Linear(base, "default", config, r=rank)
    device, dtype = target.options.device, target.options.dtype
    a, b = (factor["default"].weight.detach() for factor in (layer.lora_A, layer.lora_B))
    return a.to(device, dtype), b.to(device, dtype)


def check_start(cfg: Any) -> None:
    """Refuse a start that changes the frozen weights: every round would be another.

    Raises
    ------
    ExtensionError
        ``init_lora_weights`` is of that kind.
    """
    arguments = cfg.llm.adapter.args[0] if cfg.llm.adapter.args else {}
    start = arguments.get("init_lora_weights", True)
    known = ("true", "false", "gaussian", "orthogonal")
    if cfg.federate.method.lower() == "flora" and str(start).lower() not in known:
        raise ExtensionError(
            "llm.adapter.args.init_lora_weights",
            start,
            "FLoRA starts the adapters afresh every round, and this start is a part of the frozen "
            "weights or of the data",
            "Leave it out, or write one of True, False, gaussian and orthogonal",
        )


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
        check=check_start,
        hooks=("prepare_config", "prepare_model", "content_for"),
    )
)
