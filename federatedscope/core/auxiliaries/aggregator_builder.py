"""Which server rule a run gets."""

from __future__ import annotations

from typing import Any

from torch import nn

from federatedscope import register
from federatedscope.core.aggregators import (
    Aggregator,
    BulyanAggregator,
    ClientsAvgAggregator,
    FedOptAggregator,
    KrumAggregator,
    MedianAggregator,
    NoCommunicationAggregator,
    NormboundingAggregator,
    OnlineClientsAvgAggregator,
    TrimmedmeanAggregator,
)
from federatedscope.core.aggregators.registered_aggregator import with_checkpoints
from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ISOLATED_METHODS

ROBUST_RULES: dict[str, type[Aggregator]] = {
    "fedavg": ClientsAvgAggregator,
    "krum": KrumAggregator,
    "median": MedianAggregator,
    "trimmedmean": TrimmedmeanAggregator,
    "bulyan": BulyanAggregator,
    "normbounding": NormboundingAggregator,
}


def get_aggregator(
    method: str,
    model: nn.Module | None = None,
    device: Any = None,
    online: bool = False,
    config: Any = None,
) -> Any:
    """Build the aggregator of a run.

    Registered ones (``register_aggregator``) are asked first. Then ``local`` and ``global``
    exchange nothing, ``fedopt`` or ``fedopt.use`` puts an optimizer at the server, and every other
    method takes ``aggregator.robust_rule``, the weighted mean by default: methods that differ in
    *what* clients upload (FedSA-LoRA, FFA-LoRA) share the mean.

    ``method`` is ``federate.method``, in any case; ``online`` is ``federate.online_aggr``, which
    needs the plain mean (it is taken as uploads arrive anyway). What a registered builder returned
    gets what it lacks for checkpoints. An unknown rule, or rules that exclude each other, are a
    :class:`ConfigError`.
    """
    name, device = method.lower(), "cpu" if device is None else device
    own: dict[str, Any] = {"model": model, "device": device, "config": config}
    registered = register.first_answer(register.aggregator_dict, name, **own)
    if registered is not None:
        return with_checkpoints(registered, **own)
    if name in ISOLATED_METHODS:
        return NoCommunicationAggregator(**own)
    rule = config.aggregator.robust_rule.lower()
    fedopt = name == "fedopt" or config.fedopt.use
    _check_combination(rule, fedopt, online)
    if fedopt:
        return FedOptAggregator(**own)
    if config.llm.adapter.get("unequal_ranks", False):
        # A method of an extension that brings no rule for them: zero padding is the mean then.
        padded = register.first_answer(register.aggregator_dict, "zero_pad", **own)
        if padded is not None:
            return with_checkpoints(padded, **own)
    return OnlineClientsAvgAggregator(**own) if online else ROBUST_RULES[rule](**own)


def _check_combination(rule: str, fedopt: bool, online: bool) -> None:
    if rule not in ROBUST_RULES:
        remedy = f"write one of {', '.join(ROBUST_RULES)}"
        raise ConfigError("aggregator.robust_rule", rule, "there is no such rule", remedy)
    if rule != "fedavg" and fedopt:
        problem = "FedOpt takes the mean of the clients and would ignore the robust rule"
        remedy = "switch fedopt.use off, or write robust_rule: fedavg"
        raise ConfigError("aggregator.robust_rule", rule, problem, remedy)
    if online and (rule != "fedavg" or fedopt):
        problem = "only the plain mean can be taken one upload at a time, and this run asks for "
        problem += "FedOpt" if fedopt else rule
        raise ConfigError("federate.online_aggr", True, problem, "write online_aggr: False")
