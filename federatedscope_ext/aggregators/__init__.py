"""What the server rules of all methods share: the frame of a rule, the arithmetic of a module.

:mod:`.rule` reads, checks and writes; :mod:`.module` is what a method fills in, one module at a
time in canonical form. The formulas stand in :mod:`federatedscope_ext.methods`, one file each.
"""

from __future__ import annotations

from federatedscope_ext.aggregators.module import ModuleRule
from federatedscope_ext.aggregators.rule import LoraRule

__all__ = ["LoraRule", "ModuleRule"]
