"""Names: PEFT's parameter names, and the patterns that pick modules by name.

In a model the factors are called ``MODULE.lora_A.ADAPTER.weight``, in a saved adapter
``MODULE.lora_A.weight``, for embeddings ``MODULE.lora_embedding_A.ADAPTER`` and
``MODULE.lora_embedding_A``; B likewise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))??(?:\.weight)?"
)
# What get_peft_model puts before the base model's own names.
_PREFIX = "base_model.model."


def factor_of(name: str) -> tuple[str, str] | None:
    """``(module, 'A' or 'B')`` of a parameter name, ``None`` for all that is no LoRA factor.

    The PEFT adapter may be any, the frozen base is none.
    """
    match = _FACTOR.fullmatch(name)
    return (match["module"], match["factor"]) if match else None


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
    """The names of A and B of every LoRA module; see :func:`factor_names`.

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


def base_name(module: str) -> str:
    """A module's name in the base model, without what PEFT puts before it."""
    return module.removeprefix(_PREFIX)


def matches(pattern: str, module: str) -> bool:
    """PEFT's rule for ``rank_pattern`` and ``alpha_pattern``: the end of the name, as a regex.

    A pattern that is no regular expression matches nothing.
    """
    try:
        return re.match(rf"(.*\.)?({pattern})$", base_name(module)) is not None
    except re.error:
        return False


def matched(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that matches a module's name."""
    found = (value for pattern, value in (patterns or {}).items() if matches(pattern, module))
    return next(found, default)
