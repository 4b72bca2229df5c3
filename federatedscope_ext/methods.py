"""Who trains, sends and keeps what: the methods of this extension in one table.

A LoRA module computes ``W0 x + s B A x``, VeRA ``W0 x + diag(b) B diag(d) A x`` with frozen random
A and B. With ``p_k`` the weight of client k among those that reported:

``fedsa``
    Every client trains both factors. ``Abar = sum_k p_k A_k`` goes to all; ``B_k`` and the head
    never leave client k. What client k uses is ``W0 + s B_k Abar``: there is no global model.
    VeRA: ``d`` (length r) takes the place of A, ``b`` (length d_out) that of B.
``ffa``
    A is frozen at one random start ``A_0``, the same for everybody, and
    ``Bbar = sum_k p_k B_k``. Exact: ``sum_k p_k (s B_k A_0) = s Bbar A_0``.

Workers read the keywords here; nothing else knows a method's parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from federatedscope_ext.errors import ExtensionError

_METHOD_FIELD = "llm.adapter.args.adapter_method"


@dataclass(frozen=True)
class Variant:
    """A method on one kind of adapter.

    Parameters
    ----------
    name : str
        As in the literature, e.g. ``FedSA-rsLoRA``.
    adapter : str
        ``lora`` or ``vera`` (``llm.adapter.args[0].adapter_method``).
    rslora : bool
        The scale is ``alpha / sqrt(r)`` (``use_rslora``).
    trains, sends : tuple of str
        Adapter tensors, in the notation above. The head comes on top of what is trained, and of
        what is sent where the head is shared.
    local_keywords : tuple of str
        Substrings of names that are neither sent nor overwritten.
    frozen_keywords : tuple of str
        Substrings of names that no client trains; common to all from the start.
    """

    name: str
    adapter: str
    rslora: bool
    trains: tuple[str, ...]
    sends: tuple[str, ...]
    local_keywords: tuple[str, ...] = ()
    frozen_keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A federated method.

    Parameters
    ----------
    key : str
        ``federate.method``.
    name : str
        Name in the literature.
    paper : str
        Reference.
    variants : tuple of Variant
        Adapters that it is defined for.
    head : str
        ``local`` or ``shared``: the head rule under ``personalization.head: auto``.
    evaluation : str
        ``personal``: a client's own tensors with the aggregate. ``global``: one model for all.
    note : str
        One sentence for the report.
    """

    key: str
    name: str
    paper: str
    variants: tuple[Variant, ...]
    head: str
    evaluation: str
    note: str

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
        raise ExtensionError(
            _METHOD_FIELD if cfg.llm.adapter.use else "llm.adapter.use",
            adapter if cfg.llm.adapter.use else False,
            f"federate.method {self.key} ({self.name}) says what happens to {known} adapters only",
            f"write llm.adapter.use: True with adapter_method {known}, or another federate.method",
        )


_LORA_B = ("lora_B", "lora_embedding_B")
_LORA_A = ("lora_A", "lora_embedding_A")


def _fedsa_lora(name: str, rslora: bool) -> Variant:
    return Variant(name, "lora", rslora, ("A", "B"), ("A",), local_keywords=_LORA_B)


def _ffa_lora(name: str, rslora: bool) -> Variant:
    return Variant(name, "lora", rslora, ("B",), ("B",), frozen_keywords=_LORA_A)


FEDSA = Method(
    key="fedsa",
    name="FedSA-LoRA",
    paper="Guo et al., Selective Aggregation for Low-Rank Adaptation in Federated Learning, ICLR "
    "2025, arXiv 2410.01463",
    variants=(
        _fedsa_lora("FedSA-LoRA", rslora=False),
        _fedsa_lora("FedSA-rsLoRA", rslora=True),
        Variant("FedSA-VeRA", "vera", False, ("d", "b"), ("d",), local_keywords=("vera_lambda_b",)),
    ),
    head="local",
    evaluation="personal",
    note="B never reaches the server, so there is no global model: each client is evaluated with "
    "its own B and head and the aggregated A.",
)

FFA = Method(
    key="ffa",
    name="FFA-LoRA",
    paper="Sun et al., Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024, arXiv "
    "2403.12313",
    variants=(_ffa_lora("FFA-LoRA", rslora=False), _ffa_lora("FFA-rsLoRA", rslora=True)),
    head="shared",
    evaluation="global",
    note="A is frozen at one common random start, so the mean of B is the exact mean of the "
    "applied updates.",
)

METHODS: dict[str, Method] = {method.key: method for method in (FEDSA, FFA)}


def method_of(cfg: Any) -> Method | None:
    """The method that a configuration runs, ``None`` where it is not one of ours.

    ``federate.method: FedAvg`` with ``federate.freeze_A: True`` is ``ffa`` by another name.

    Raises
    ------
    ExtensionError
        ``fedsa`` with ``freeze_A``: A is all it sends.
    """
    key = cfg.federate.method.lower()
    frozen = bool(cfg.federate.get("freeze_A", False))
    if key == FEDSA.key and frozen:
        raise ExtensionError(
            "federate.freeze_A",
            True,
            "fedsa sends A only, and a frozen A never changes",
            "write federate.freeze_A: False, or federate.method: ffa",
        )
    return FFA if key == "fedavg" and frozen else METHODS.get(key)


def local_keywords(cfg: Any) -> list[str]:
    """Names (substrings) that a configuration's method keeps at the client; without the head."""
    method = method_of(cfg)
    return list(method.variant(cfg).local_keywords) if method else []


def frozen_keywords(cfg: Any) -> list[str]:
    """Names (substrings) that a configuration's method does not train."""
    method = method_of(cfg)
    return list(method.variant(cfg).frozen_keywords) if method else []
