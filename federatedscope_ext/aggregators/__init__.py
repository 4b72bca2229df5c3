"""Server rules, one file per method, the maths on top.

:mod:`.rule` is the frame of all of them, :mod:`.module` what a method fills in.
``register_aggregator`` answers for the methods of :data:`RULES`, and for plain means where the
clients' ranks differ.
"""

from __future__ import annotations

from typing import Any

from federatedscope import register
from federatedscope_ext.aggregators.fedex import FedEx
from federatedscope_ext.aggregators.fedrot import FedRot
from federatedscope_ext.aggregators.fedsvd import FedSvd
from federatedscope_ext.aggregators.flexlora import FlexLora
from federatedscope_ext.aggregators.flora import Flora
from federatedscope_ext.aggregators.hetlora import HetLora
from federatedscope_ext.aggregators.replication_pad import ReplicationPad
from federatedscope_ext.aggregators.rolora import RoLora
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.aggregators.zero_pad import ZeroPad
from fedlora.errors import AggregationError

__all__ = ["RULES", "RULES_FOR_UNEQUAL_RANKS", "AggregationError", "LoraRule", "rule_for"]

RULES: dict[str, type[LoraRule]] = {
    "flexlora": FlexLora,
    "replication_pad": ReplicationPad,
    "zero_pad": ZeroPad,
    "hetlora": HetLora,
    "flora": Flora,
    "fedex": FedEx,
    "fedsvd": FedSvd,
    "fedrot": FedRot,
    "rolora": RoLora,
}

#: methods whose rule is the runtime's mean as long as all ranks are equal
RULES_FOR_UNEQUAL_RANKS: dict[str, type[LoraRule]] = {
    "fedavg": ZeroPad,
    "fedprox": ZeroPad,
    "ffa": ZeroPad,
    "slora": ZeroPad,
    "feddpa": ZeroPad,
    "fedsa": ReplicationPad,
}


def rule_for(method: str, config: Any = None) -> type[LoraRule] | None:
    """The rule that a run needs from here, ``None`` where the runtime's own serves.

    Parameters
    ----------
    method : str
        ``federate.method``, in any case.
    config : CN, optional
        The run's configuration; read for whether ranks differ.
    """
    name = method.lower()
    if name in RULES:
        return RULES[name]
    if not _unequal_ranks(config):
        return None
    if name in ("fedavg", "fedprox") and _keeps_b(config):
        # FedSA-LoRA in its authors' words: what is averaged is A alone.
        return ReplicationPad
    return RULES_FOR_UNEQUAL_RANKS.get(name)


def _keeps_b(config: Any) -> bool:
    """Whether B stays at the client and A travels."""
    section = config.get("personalization") if hasattr(config, "get") else None
    words = (section or {}).get("local_param") or ()
    a, b = ("lora_A.default.weight", "lora_B.default.weight")
    return any(word in b for word in words) and not any(word in a for word in words)


def _unequal_ranks(config: Any) -> bool:
    """Whether ``llm.adapter`` says that ranks differ, as settled by the run or as written."""
    adapter: Any = config
    for part in ("llm", "adapter"):
        adapter = adapter.get(part) if hasattr(adapter, "get") else None
    if not hasattr(adapter, "get"):
        return False
    ranks = adapter.get("client_ranks") or []
    distinct = {str(rank) for rank in ranks} if isinstance(ranks, list | tuple) else {ranks, ""}
    return bool(adapter.get("unequal_ranks")) or len(distinct) > 1


def _build(
    method: str, model: Any = None, device: Any = None, config: Any = None
) -> LoraRule | None:
    rule = rule_for(method, config)
    return None if rule is None else rule(config=config, device=device, model=model)


# FederatedScope itself asks nobody for aggregators; there the servers bring the rule along.
_register_aggregator = getattr(register, "register_aggregator", None)
if _register_aggregator is not None:
    # One key a method: keys are what a wrong federate.method is compared with.
    for _key in RULES:
        _register_aggregator(_key, _build)
