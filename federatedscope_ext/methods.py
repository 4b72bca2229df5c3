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

The others combine uploads in ways of their own; their formulas stand in
:mod:`federatedscope_ext.aggregators`, one file each. Workers read the keywords here; nothing else
knows a method's parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


def _both(name: str, local: tuple[str, ...] = ()) -> tuple[Variant, ...]:
    """A method that trains and sends both factors, at either scale."""
    return tuple(
        Variant(f"{name}{suffix}", "lora", rslora, ("A", "B"), ("A", "B"), local_keywords=local)
        for suffix, rslora in (("", False), (" (rsLoRA)", True))
    )


def _halves(name: str, sends: tuple[str, ...]) -> tuple[Variant, ...]:
    """A method whose clients train one factor at a time."""
    return tuple(
        Variant(f"{name}{suffix}", "lora", rslora, sends, sends)
        for suffix, rslora in (("", False), (" (rsLoRA)", True))
    )


def _aggregated(
    key: str, name: str, paper: str, note: str, variants: tuple[Variant, ...] | None = None
) -> Method:
    """A method of one global update, with the head shared."""
    return Method(key, name, paper, variants or _both(name), "shared", "global", note)


FLEXLORA = _aggregated(
    "flexlora",
    "FlexLoRA",
    "Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and "
    "Client Resources, NeurIPS 2024, arXiv 2402.11505",
    "The exact mean of the applied updates; every client gets its best approximation of the own "
    "rank (SVD).",
)
REPLICATION_PAD = _aggregated(
    "replication_pad",
    "Replication padding",
    "Byun and Lee, Towards Federated Low-Rank Adaptation of Language Models with Rank "
    "Heterogeneity, NAACL 2025, arXiv 2406.17477",
    "Every rank row is averaged over the clients that own it.",
)
ZERO_PAD = _aggregated(
    "zero_pad",
    "Zero padding",
    "the baseline of HetLoRA, arXiv 2401.06432, and of replication padding, arXiv 2406.17477",
    "Missing rank rows count as zeros, so what only some clients know is divided by everybody.",
)
HETLORA = _aggregated(
    "hetlora",
    "HetLoRA",
    "Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models, "
    "EMNLP 2024, arXiv 2401.06432",
    "Zero padding, weighted by the norm of each client's update; clients prune their own rank.",
)
FLORA = _aggregated(
    "flora",
    "FLoRA",
    "Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank "
    "Adaptations, NeurIPS 2024, arXiv 2409.05976",
    "The exact sum of the updates, as stacked factors, goes into the frozen weights; adapters "
    "start afresh every round.",
)
FEDEX = _aggregated(
    "fedex",
    "FedEx-LoRA",
    "Singhal et al., FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of "
    "Foundation Models, ACL 2025, arXiv 2410.09432",
    "Means of the factors; what they miss of the exact mean goes into the frozen weights.",
)
ROLORA = _aggregated(
    "rolora",
    "RoLoRA",
    "Chen et al., Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA, "
    "arXiv 2502.01755",
    "Odd rounds train and average B, even rounds A; each mean is exact.",
    _halves("RoLoRA", ("A or B",)),
)
FEDSVD = _aggregated(
    "fedsvd",
    "FedSVD",
    "Lee et al., FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA, "
    "arXiv 2505.12805",
    "Clients train B; the server re-factors the exact mean so that A has orthonormal rows.",
    _halves("FedSVD", ("B",)),
)
FEDROT = _aggregated(
    "fedrot",
    "FedRot-LoRA",
    "FedRot-LoRA: Mitigating Rotational Misalignment in Federated LoRA, arXiv 2602.23638",
    "Factors are rotated towards a common reference before their mean.",
)
SLORA = _aggregated(
    "slora",
    "SLoRA",
    "Babakniya et al., SLoRA: Federated Parameter Efficient Fine-Tuning of Language Models, "
    "arXiv 2308.06522",
    "First rounds train a sparse update of the frozen weights; its SVD starts the adapters.",
)
FEDDPA = Method(
    key="feddpa",
    name="FedDPA-LoRA",
    paper="Yang et al., Dual-Personalizing Adapter for Federated Foundation Models, NeurIPS 2024, "
    "arXiv 2403.19211",
    variants=tuple(
        replace(variant, trains=("A", "B", "A'", "B'"))
        for variant in _both("FedDPA-LoRA", (".private",))
    ),
    head="shared",
    evaluation="personal",
    note="Every client adds a private adapter to the averaged one; both are trained.",
)

METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        FEDSA,
        FFA,
        FLEXLORA,
        REPLICATION_PAD,
        ZERO_PAD,
        HETLORA,
        FLORA,
        FEDEX,
        ROLORA,
        FEDSVD,
        FEDROT,
        SLORA,
        FEDDPA,
    )
}


def method_of(cfg: Any) -> Method | None:
    """The method that a configuration runs, ``None`` where it is not one of ours.

    ``federate.method: FedAvg`` with ``federate.freeze_A: True`` is ``ffa`` by another name.

    Raises
    ------
    ExtensionError
        ``freeze_A`` under a method that changes A.
    """
    key = cfg.federate.method.lower()
    frozen = bool(cfg.federate.get("freeze_A", False))
    if key in METHODS and key != FFA.key and frozen:
        problem = "sends A only, and a frozen A never changes"
        raise ExtensionError(
            "federate.freeze_A",
            True,
            f"{key} {problem}" if key == FEDSA.key else f"{key} changes A",
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
