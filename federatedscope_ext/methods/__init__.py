"""The methods of this extension, one file each: paper, formula, what is trained, sent and kept.

A method is a :class:`Method` that :func:`register_method` makes known; a module of one's own that
``extensions`` names does the same.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from federatedscope_ext.methods.method import (
    LORA_A,
    LORA_B,
    METHODS,
    Method,
    Option,
    Variant,
    lora,
    method_of,
)
from federatedscope_ext.methods.registry import register_method, rule_for

# Every file of this folder registers its method when it is imported.
for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

__all__ = [
    "LORA_A",
    "LORA_B",
    "METHODS",
    "Method",
    "Option",
    "Variant",
    "lora",
    "method_of",
    "register_method",
    "rule_for",
]
