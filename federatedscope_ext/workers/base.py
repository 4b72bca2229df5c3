"""What the workers of all methods have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from federatedscope import register
from federatedscope.core.workers import Server
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods.method import Method, method_of
from fedlora.names import factor_names

__all__ = ["MethodServer", "factors_frozen", "only_training", "settle"]


def _check_factors_travel(method: Method, cfg: Any) -> None:
    for keyword in cfg.personalization.local_param:
        if any(keyword in f"lora_{factor}.default.weight" for factor in "AB"):
            raise ExtensionError(
                "personalization.local_param",
                keyword,
                f"{method.name} combines both factors, and the keyword keeps one at the client",
                "Leave it out, or use federate.method fedsa or replication_pad",
            )
    arguments = cfg.llm.adapter.args[0] if cfg.llm.adapter.args else {}
    if arguments.get("use_dora"):
        raise ExtensionError(
            "llm.adapter.args.use_dora",
            True,
            f"DoRA's applied update is not s B A, which {method.name} is defined on",
            "Leave it out, or use federate.method: FedAvg",
        )


def _check_experts(method: Method, cfg: Any) -> None:
    """Refuse experts where more than the plain mean of both factors is asked for.

    PEFT lays the factors of E experts out as A of ``(E r, d_in)``, expert by expert, and B of
    ``(d_out, r E)``, rank by rank: ``B A`` is no applied update, and its SVD says nothing.
    """
    arguments = cfg.llm.adapter.args[0] if cfg.llm.adapter.args else {}
    named = arguments.get("target_parameters")
    stages = cfg.get("slora", {}).get("rounds", 0)
    # FedDPA's client weighs adapters as a whole and never looks at factors.
    own_client = method.client is not None and method.key != "feddpa"
    if named and (method.rule or own_client or stages):
        raise ExtensionError(
            "llm.adapter.args.target_parameters",
            list(named),
            f"{method.name if not stages else 'SLoRA'} works on the factors of single layers, and "
            "these hold those of all experts",
            "Use federate.method: fedavg, fedsa, ffa or feddpa, or name linear layers in "
            "target_modules instead",
        )


def settle(method: Method, cfg: Any) -> None:
    """Write a method's decisions into a (mutable) configuration; doing it twice changes nothing.

    Raises
    ------
    ExtensionError
        The method is not defined for the configured adapter, or needs what the user froze.
    """
    method_of(cfg)  # refuses a frozen A where the method changes it
    variant = method.variant(cfg)
    if method.combines_products:
        _check_factors_travel(method, cfg)
    _check_experts(method, cfg)
    local = list(cfg.personalization.local_param)
    local += [keyword for keyword in variant.local_keywords if keyword not in local]
    cfg.personalization.local_param = local
    if variant.frozen_keywords:
        cfg.federate.freeze_A = True
    if cfg.personalization.get("head", "auto") == "auto":
        cfg.personalization.head = method.head


class MethodServer(Server):
    """A server whose method is described by a :class:`Method`."""

    method: ClassVar[Method]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from federatedscope_ext.hooks import check_hooks

        check_hooks(self.method)
        super().__init__(*args, **kwargs)
        if self._cfg is not None and not hasattr(register, "register_aggregator"):
            self._bring_rule()

    def _bring_rule(self) -> None:
        """Let FederatedScope's own aggregator keep the model, and the method's rule combine."""
        from federatedscope_ext.methods.registry import rule_for

        rule = rule_for(self.method.key, self._cfg)
        if rule is not None:
            self.aggregator.aggregate = rule(config=self._cfg, device=self.device).aggregate

    @classmethod
    def prepare_config(cls, cfg: Any) -> None:
        """Called by the runtime once, before anything is built from the configuration."""
        settle(cls.method, cfg)

    @classmethod
    def prepare_model(cls, model: Any, cfg: Any) -> None:
        """Called by the runtime with the new model, with or without storage."""

    @classmethod
    def variant(cls, cfg: Any) -> str:
        """Name of the method on the configured adapter, for summaries."""
        return cls.method.variant(cfg).name


@contextmanager
def only_training(model: Any, names: Iterable[str]) -> Iterator[None]:
    """Let a model train only some of its trainable parameters for a while.

    What is not trained is not uploaded either, since a worker sends what it trains.
    """
    wanted = set(names)
    frozen = [p for n, p in model.named_parameters() if p.requires_grad and n not in wanted]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def factors_frozen(model: Any, factor: str) -> Iterator[None]:
    """Do not train the LoRA factors ``A`` (or ``B``) for a while."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    frozen = {found[factor] for found in factor_names(names).values() if factor in found}
    with only_training(model, [name for name in names if name not in frozen]):
        yield
