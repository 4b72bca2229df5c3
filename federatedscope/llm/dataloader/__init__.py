"""Instruction data, under the names that extension modules import."""

from __future__ import annotations

from federatedscope.llm.dataloader.dataloader import (
    LLMDataCollator,
    get_tokenizer,
    load_json,
    load_jsonl,
    load_llm_dataset,
)

__all__ = ["LLMDataCollator", "get_tokenizer", "load_json", "load_jsonl", "load_llm_dataset"]
