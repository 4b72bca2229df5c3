"""What is a model's head: the part that a task brings along, trained beside the adapter."""

from __future__ import annotations

from collections.abc import Iterable

#: PEFT's field for modules that are trained whole; part of the names of their trained copies
SAVED = "modules_to_save"
#: the usual head modules of Hugging Face's classes for sequence classification; under PEFT all that
#: a model has are marked by :data:`SAVED`, and models with others are refused without an adapter
HEAD_MODULES = ("classifier", "score", "classification_head")
#: those of other tasks and of single families
OTHER_HEADS = ("lm_head", "qa_outputs", "sequence_summary", "logits_proj")


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the classification head.

    That is PEFT's trained copy (:data:`SAVED`), and without an adapter a module of
    :data:`HEAD_MODULES`. PEFT's frozen ``original_module`` is not.
    """
    parts = name.split(".")
    if SAVED in parts:
        return True
    lora = any(part.startswith("lora_") for part in parts)
    return not lora and "original_module" not in parts and any(p in HEAD_MODULES for p in parts)


def head_names(names: Iterable[str]) -> list[str]:
    """Those of the names that belong to the classification head."""
    return [name for name in names if is_head(name)]


def names_head(keyword: str) -> bool:
    """Whether a keyword that is looked for in names (``local_param``) is about a head."""
    heads = (SAVED, *HEAD_MODULES, *OTHER_HEADS)
    return bool(keyword) and any(keyword in head or head in keyword for head in heads)


def head_keywords(adapted: bool) -> tuple[str, ...]:
    """Keywords that are in the names of all heads; ``adapted`` for a model under PEFT."""
    return (SAVED,) if adapted else HEAD_MODULES
