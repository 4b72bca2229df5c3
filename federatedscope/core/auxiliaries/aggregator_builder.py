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
    TrimmedmeanAggregator,
)
from federatedscope.core.aggregators.registered_aggregator import with_checkpoints
from federatedscope.core.errors import ConfigError

ROBUST_RULES: dict[str, type[Aggregator]] = {
    "fedavg": ClientsAvgAggregator,
    "krum": KrumAggregator,
    "median": MedianAggregator,
    "trimmedmean": TrimmedmeanAggregator,
    "bulyan": BulyanAggregator,
    "normbounding": NormboundingAggregator,
}
WITHOUT_COMMUNICATION = ("local", "global")


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

    Parameters
    ----------
    method : str
        ``federate.method``, in any case.
    model : torch.nn.Module, optional
        The server's model.
    device : str, optional
        Where to aggregate; the CPU by default.
    online : bool
        ``federate.online_aggr``, which needs the plain mean; it is taken as uploads arrive anyway.
    config : CN
        The run's configuration.

    Returns
    -------
    Aggregator
        Or what a registered builder returned, with what it lacks for checkpoints.

    Raises
    ------
    ConfigError
        An unknown rule, or rules that exclude each other.
    """
    name = method.lower()
    where = "cpu" if device is None else device
    registered = register.first_answer(
        register.aggregator_dict, name, model=model, device=where, config=config
    )
    if registered is not None:
        return with_checkpoints(registered, model, where, config)
    if name in WITHOUT_COMMUNICATION:
        return NoCommunicationAggregator(model=model, device=where, config=config)
    rule = config.aggregator.robust_rule.lower()
    fedopt = name == "fedopt" or config.fedopt.use
    _check_combination(rule, fedopt, online)
    if fedopt:
        return FedOptAggregator(model=model, device=where, config=config)
    if config.llm.adapter.get("unequal_ranks", False):
        # A method of an extension that brings no rule for them: zero padding is the mean then.
        padded = register.first_answer(
            register.aggregator_dict, "zero_pad", model=model, device=where, config=config
        )
        if padded is not None:
            return with_checkpoints(padded, model, where, config)
    return ROBUST_RULES[rule](model=model, device=where, config=config)


def _check_combination(rule: str, fedopt: bool, online: bool) -> None:
    if rule not in ROBUST_RULES:
        remedy = f"write one of {', '.join(ROBUST_RULES)}"
        raise ConfigError("aggregator.robust_rule", rule, "there is no such rule", remedy)
    if rule != "fedavg" and fedopt:
        problem = "FedOpt takes the mean of the clients and would ignore the robust rule"
        remedy = "switch fedopt.use off, or write robust_rule: fedavg"
        raise ConfigError("aggregator.robust_rule", rule, problem, remedy)
    if online and (rule != "fedavg" or fedopt):
        raise ConfigError(
            "federate.online_aggr",
            True,
            "only the plain mean can be taken one upload at a time, and this run asks for "
            f"{'FedOpt' if fedopt else rule}",
            "write online_aggr: False",
        )
