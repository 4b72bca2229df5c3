"""FFA-LoRA: A is frozen at one random start, the same for everybody.

::

    Bbar = sum_k p_k B_k,    sum_k p_k (s B_k A_0) = s Bbar A_0,

so the mean of B is the exact mean of the applied updates. At unequal ranks this is so of the rows
that somebody of the round owns: the server's columns of B beyond them stay what they were, and add
to what a client of higher rank applies.

Sun et al., Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024, arXiv 2403.12313.
"""

from __future__ import annotations

from federatedscope_ext.methods.method import LORA_A, Method, Variant
from federatedscope_ext.methods.registry import register_method

FFA = register_method(
    Method(
        key="ffa",
        name="FFA-LoRA",
        paper="Sun et al., Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024, "
        "arXiv 2403.12313",
        note="A is frozen at one common random start, so the mean of B is the exact mean of the "
        "applied updates (in the ranks that somebody of the round has).",
        variants=(
            Variant("FFA-LoRA", ("B",), ("B",), frozen_keywords=LORA_A),
            Variant("FFA-rsLoRA", ("B",), ("B",), rslora=True, frozen_keywords=LORA_A),
        ),
        experts=True,
        hooks=("prepare_config",),
    )
)
