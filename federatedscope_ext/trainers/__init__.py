"""Trainers that FS-LLM lacks."""

from __future__ import annotations

from federatedscope_ext.trainers.glue import GlueTrainer

__all__ = ["GlueTrainer"]
