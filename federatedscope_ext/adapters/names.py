"""Reading PEFT's parameter names.

In a model the factors are called ``MODULE.lora_A.ADAPTER.weight``, in a saved adapter
``MODULE.lora_A.weight``, for embeddings ``MODULE.lora_embedding_A.ADAPTER`` and
``MODULE.lora_embedding_A``; B likewise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))??(?:\.weight)?"
)
_HEADS = ("classifier", "score", "classification_head")


def factor_names(names: Iterable[str], adapter: str = "default") -> dict[str, dict[str, str]]:
    """The names of the factors that are there, where a state may hold A only or B only.

    Parameters
    ----------
    names : iterable of str
        Parameter names; those of other tensors are passed over.
    adapter : str
        PEFT adapter to read where names carry one.

    Returns
    -------
    dict
        Module name -> ``{"A": name, "B": name}`` or a part of it, in the order of the names.
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _FACTOR.fullmatch(name)
        if match and match["adapter"] in (None, adapter):
            found.setdefault(match["module"], {})[match["factor"]] = name
    return found


def pair_names(names: Iterable[str], adapter: str = "default") -> dict[str, tuple[str, str]]:
    """The names of A and B of every LoRA module.

    Parameters
    ----------
    names : iterable of str
        Parameter names; those of other tensors are passed over.
    adapter : str
        PEFT adapter to read where names carry one.

    Returns
    -------
    dict
        Module name -> (name of A, name of B), in the order of the names.

    Raises
    ------
    ValueError
        A module has only one of its two factors.
    """
    found = factor_names(names, adapter)
    for module, factors in found.items():
        if len(factors) < 2:
            present = next(iter(factors))
            raise ValueError(f"{module} has a lora_{present} and no lora_{'AB'[present == 'A']}")
    return {module: (factors["A"], factors["B"]) for module, factors in found.items()}


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the classification head.

    That is PEFT's trained copy (``modules_to_save``), and without an adapter the module
    ``classifier``, ``score`` or ``classification_head``. PEFT's frozen ``original_module`` is not.
    """
    parts = name.split(".")
    if "modules_to_save" in parts:
        return True
    lora = any(part.startswith("lora_") for part in parts)
    return not lora and "original_module" not in parts and any(part in _HEADS for part in parts)
