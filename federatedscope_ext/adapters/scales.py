"""Ranks and scales as PEFT's configuration gives them to a module.

``s = lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with ``use_rslora`` (Kalajdzievski 2023, arXiv
2312.03732). ``rank_pattern`` and ``alpha_pattern`` map the end of a module's name, a regular
expression, to a value of its own; the first that matches counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# What get_peft_model puts before the base model's own names.
_PREFIX = "base_model.model."
_DEFAULTS = {
    "r": 8,
    "lora_alpha": 8,
    "use_rslora": False,
    "rank_pattern": None,
    "alpha_pattern": None,
}


def _field(config: Any, name: str) -> Any:
    if isinstance(config, Mapping):
        return config.get(name, _DEFAULTS[name])
    return getattr(config, name, _DEFAULTS[name])


def _matched(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    name = module.removeprefix(_PREFIX)
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def configured_rank(config: Any, module: str) -> int:
    """The rank that a module gets.

    Parameters
    ----------
    config : peft.LoraConfig or mapping
        The configuration, or its fields as in ``llm.adapter.args``.
    module : str
        Module name, with or without PEFT's prefix.
    """
    return int(_matched(_field(config, "rank_pattern"), module, _field(config, "r")))


def scale_of(config: Any, module: str) -> float:
    """The scale ``s`` of a module; parameters as for :func:`configured_rank`."""
    rank = configured_rank(config, module)
    alpha = _matched(_field(config, "alpha_pattern"), module, _field(config, "lora_alpha"))
    return float(alpha) / (math.sqrt(rank) if _field(config, "use_rslora") else rank)


def scale_at(config: Any, module: str, rank: int, rule: str = "auto") -> float:
    """The scale ``s`` of a module at a rank of a client's own.

    Parameters
    ----------
    config : peft.LoraConfig or mapping
        As for :func:`configured_rank`.
    module : str
        Module name, with or without PEFT's prefix.
    rank : int
        The rank, for example read off a client's factors.
    rule : str
        ``alpha``: ``lora_alpha / rank``; ``rslora``: ``lora_alpha / sqrt(rank)``;
        ``proportional``: ``lora_alpha`` grows with the rank, so that every rank has the scale of
        the configured one; ``auto``: ``rslora`` where the configuration says ``use_rslora``, else
        ``alpha``.

    Raises
    ------
    ValueError
        An unknown rule.
    """
    if rule == "proportional":
        return scale_of(config, module)
    if rule not in ("auto", "alpha", "rslora"):
        raise ValueError(f"{rule!r} is no scale rule: auto, alpha, proportional, rslora")
    alpha = _matched(_field(config, "alpha_pattern"), module, _field(config, "lora_alpha"))
    rslora = rule == "rslora" or (rule == "auto" and _field(config, "use_rslora"))
    return float(alpha) / (math.sqrt(rank) if rslora else rank)
