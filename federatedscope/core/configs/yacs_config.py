"""Names that extensions import from here: ``CfgNode`` and ``Argument``."""

from __future__ import annotations

from federatedscope.core.configs.node import CN as CfgNode
from federatedscope.core.configs.node import Argument

__all__ = ["Argument", "CfgNode"]
