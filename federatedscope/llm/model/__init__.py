"""Models and adapters."""

from __future__ import annotations

from federatedscope.llm.model.model_builder import build_skeleton, get_llm

__all__ = ["build_skeleton", "get_llm"]
