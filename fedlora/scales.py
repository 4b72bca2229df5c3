"""Ranks and scales that a configuration gives to a module.

``s = lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with ``use_rslora`` (Kalajdzievski 2023, arXiv
2312.03732). ``rank_pattern`` and ``alpha_pattern`` map the end of a module's name, a regular
expression, to a value of its own; the first that matches counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedlora.names import matched

__all__ = ["SCALE_RULES", "configured_rank", "scale_at", "scale_of"]

#: rules for the scale at another rank than the configured one, see :func:`scale_at`
SCALE_RULES = ("auto", "alpha", "proportional", "rslora")
# Those of peft.LoraConfig.
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


def configured_rank(config: Any, module: str) -> int:
    """The rank that a module gets.

    Parameters
    ----------
    config : peft.LoraConfig or mapping
        The configuration, or its fields as in ``llm.adapter.args``.
    module : str
        Module name, with or without PEFT's prefix.
    """
    return int(matched(_field(config, "rank_pattern"), module, _field(config, "r")))


def scale_of(config: Any, module: str) -> float:
    """The scale ``s`` of a module at its configured rank; see :func:`configured_rank`."""
    return scale_at(config, module, configured_rank(config, module))


def scale_at(config: Any, module: str, rank: int, rule: str = "auto", base: Any = None) -> float:
    """The scale ``s`` of a module at a rank of a client's own.

    Parameters
    ----------
    config : peft.LoraConfig or mapping
        As for :func:`configured_rank`; the client's own where it has one.
    module : str
        Module name, with or without PEFT's prefix.
    rank : int
        The rank, for example read off a client's factors.
    rule : str
        ``alpha``: ``lora_alpha / rank``. ``rslora``: ``lora_alpha / sqrt(rank)``.
        ``proportional``: alpha is meant for the base rank and grows with the rank, so that every
        rank has the scale of the base one. ``auto``: ``rslora`` where the configuration says
        ``use_rslora``, else ``alpha``.
    base : peft.LoraConfig or mapping, optional
        Whose rank ``proportional`` counts from; ``config`` when not given.

    Raises
    ------
    ValueError
        An unknown rule.
    """
    if rule not in SCALE_RULES:
        raise ValueError(f"{rule!r} is no scale rule: {', '.join(SCALE_RULES)}")
    alpha = float(matched(_field(config, "alpha_pattern"), module, _field(config, "lora_alpha")))
    root = rule == "rslora" or (rule != "alpha" and _field(config, "use_rslora"))
    if rule == "proportional":
        rank = configured_rank(config if base is None else base, module)
    return alpha / (math.sqrt(rank) if root else rank)
