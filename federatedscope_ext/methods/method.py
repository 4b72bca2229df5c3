"""What a method is: one object that says all that others need to know of it.

A LoRA module computes ``W0 x + s B A x``, VeRA ``W0 x + diag(b) B diag(d) A x`` with frozen random
A and B. ``p_k`` is the weight of client k among those that reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.errors import ExtensionError

__all__ = ["LORA_A", "LORA_B", "METHODS", "Method", "Option", "Variant", "lora", "method_of"]

#: parts of the names of LoRA's factors
LORA_A, LORA_B = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B")

#: all methods by key, in the order in which they were registered
METHODS: dict[str, Method] = {}


@dataclass(frozen=True)
class Variant:
    """A method on one kind of adapter.

    Parameters
    ----------
    name : str
        As in the literature, e.g. ``FedSA-rsLoRA``.
    trains, sends : tuple of str
        Adapter tensors, in the notation above. The head comes on top of what is trained, and of
        what is sent where the head is shared.
    adapter : str
        ``lora`` or ``vera`` (``llm.adapter.args[0].adapter_method``).
    rslora : bool
        The scale is ``alpha / sqrt(r)`` (``use_rslora``).
    local_keywords : tuple of str
        Substrings of names that are neither sent nor overwritten.
    frozen_keywords : tuple of str
        Substrings of names that no client trains; common to all from the start.
    """

    name: str
    trains: tuple[str, ...] = ("A", "B")
    sends: tuple[str, ...] = ("A", "B")
    adapter: str = "lora"
    rslora: bool = False
    local_keywords: tuple[str, ...] = ()
    frozen_keywords: tuple[str, ...] = ()


def lora(name: str, suffix: str = " (rsLoRA)", **fields: Any) -> tuple[Variant, ...]:
    """The two variants of a method on LoRA, one for each scale; see :class:`Variant`."""
    return Variant(name, **fields), Variant(f"{name}{suffix}", rslora=True, **fields)


@dataclass(frozen=True)
class Option:
    """A key of the configuration that a method has of its own.

    Parameters
    ----------
    section, name : str
        ``section.name`` is the dotted key.
    default : object
        Its type is the accepted one.
    help : str
        One line.
    choices : tuple of str
        Accepted values; empty for any.
    low, high : float
        Bounds of a number, both allowed.
    of_client : bool
        Whether clients read it for themselves, so that it may differ between them.
    """

    section: str
    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")
    of_client: bool = False


@dataclass(frozen=True)
class Method:
    """A federated method; ``register_method`` makes it known everywhere.

    Parameters
    ----------
    key : str
        ``federate.method``, in lower case.
    name : str
        Name in the literature.
    paper : str
        Reference; its end, after the last comma, stands in the catalogue.
    note : str
        One sentence for catalogue and report.
    variants : tuple of Variant
        Adapters that it is defined for, the usual one first.
    head : str
        ``local`` or ``shared``: the head rule under ``personalization.head: auto``.
    evaluation : str
        ``personal``: a client's own tensors with the aggregate. ``global``: one model for all.
    rule : type of LoraRule, optional
        How the server combines uploads; the runtime's mean without one.
    unequal_rule : type of LoraRule, optional
        The rule where clients differ in rank and :attr:`rule` is not given; zero padding without
        one.
    server : type, optional
        A subclass of ``MethodServer`` where the server does more than its rule.
    client : type, optional
        A subclass of ``Client`` where clients do more than train what is trained.
    options : tuple of Option
        Its keys.
    check : callable, optional
        ``f(cfg)``: refuses combinations of keys, beyond the bounds of single ones.
    combines_products : bool
        Whether it needs both factors of every client, since it combines or rewrites them together.
    traffic_varies : bool
        Whether rounds send different things, so that nothing is said about bytes before they do.
    experts : bool
        Whether it averages each factor by itself and so is right where PEFT keeps those of all
        experts in one (``target_parameters``).
    hooks : tuple of str
        What it needs of a runtime beyond FederatedScope's contract, see
        :mod:`federatedscope_ext.hooks`.
    """

    key: str
    name: str
    paper: str
    note: str
    variants: tuple[Variant, ...]
    head: str = "shared"
    evaluation: str = "global"
    rule: type[LoraRule] | None = None
    unequal_rule: type[LoraRule] | None = None
    server: type[Any] | None = None
    client: type[Any] | None = None
    options: tuple[Option, ...] = ()
    check: Callable[[Any], None] | None = None
    combines_products: bool = False
    traffic_varies: bool = False
    experts: bool = False
    hooks: tuple[str, ...] = ()

    def variant(self, cfg: Any) -> Variant:
        """The variant that ``llm.adapter`` asks for.

        Raises
        ------
        ExtensionError
            The method is not defined for this adapter.
        """
        arguments = cfg.llm.adapter.args[0] if cfg.llm.adapter.args else {}
        adapter = str(arguments.get("adapter_method", "lora")).lower()
        rslora = bool(arguments.get("use_rslora", False))
        for variant in self.variants:
            if cfg.llm.adapter.use and (variant.adapter, variant.rslora) == (adapter, rslora):
                return variant
        known = " or ".join(dict.fromkeys(repr(v.adapter) for v in self.variants))
        used = cfg.llm.adapter.use
        raise ExtensionError(
            "llm.adapter.args.adapter_method" if used else "llm.adapter.use",
            adapter if used else False,
            f"federate.method {self.key} ({self.name}) says what happens to {known} adapters only",
            f"write llm.adapter.use: True with adapter_method {known}, or another federate.method",
        )


def method_of(cfg: Any) -> Method | None:
    """The method that a configuration runs, ``None`` where it is not one of these.

    ``federate.method: FedAvg`` with ``federate.freeze_A: True`` is ``ffa`` by another name.

    Raises
    ------
    ExtensionError
        ``freeze_A`` under a method that changes A.
    """
    key = cfg.federate.method.lower()
    frozen = bool(cfg.federate.get("freeze_A", False))
    if key in METHODS and key != "ffa" and frozen:
        problem = "sends A only, and a frozen A never changes"
        raise ExtensionError(
            "federate.freeze_A",
            True,
            f"{key} {problem}" if key == "fedsa" else f"{key} changes A",
            "write federate.freeze_A: False, or federate.method: ffa",
        )
    return METHODS.get("ffa" if key == "fedavg" and frozen else key)


def local_keywords(cfg: Any) -> list[str]:
    """Names (substrings) that a configuration's method keeps at the client; without the head."""
    method = method_of(cfg)
    return list(method.variant(cfg).local_keywords) if method else []


def frozen_keywords(cfg: Any) -> list[str]:
    """Names (substrings) that a configuration's method does not train."""
    method = method_of(cfg)
    return list(method.variant(cfg).frozen_keywords) if method else []
